//! Assigns shards to cores: a pure function of the options and the available cores.

use crate::error::{Error, Result, Step};
use crate::options::Cores;
use crate::sys::thread;

/// Number and core of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShardSpec {
    /// Number of the shard, from 0.
    pub index: usize,
    /// Core that the shard is pinned to, if any.
    pub core: Option<usize>,
}

/// Numbers and cores of all shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardPlan {
    specs: Vec<ShardSpec>,
}

impl ShardPlan {
    /// Plans `count` shards (`None`: one per core) on `cores`. This process may use the cores in `allowed`.
    ///
    /// # Errors
    /// [`Error::ShardPlan`] if the requested cores are not available, or the count is 0.
    fn new(cores: &Cores, allowed: &[usize], count: Option<usize>) -> Result<Self> {
        let places: Vec<Option<usize>> = match cores {
            Cores::All => allowed.iter().copied().map(Some).collect(),
            Cores::First(first) if *first > allowed.len() => {
                return Err(Error::ShardPlan(
                    "`Cores::First` asks for more cores than this process may use; see `nproc`",
                ));
            }
            Cores::First(first) => allowed[..*first].iter().copied().map(Some).collect(),
            Cores::List(list) if !list.iter().all(|core| allowed.contains(core)) => {
                return Err(Error::ShardPlan(
                    "`Cores::List` names a core that this process may not use; see `taskset -p`",
                ));
            }
            Cores::List(list) => list.iter().copied().map(Some).collect(),
            Cores::Unpinned => vec![None; allowed.len()],
        };
        if places.is_empty() {
            return Err(Error::ShardPlan("no core to run on; name at least one"));
        }
        let count = count.unwrap_or(places.len());
        if count == 0 {
            return Err(Error::ShardPlan("no shards: ask for one at least"));
        }
        let specs = places.iter().cycle().take(count).enumerate();
        Ok(Self { specs: specs.map(|(index, &core)| ShardSpec { index, core }).collect() })
    }

    /// As [`new`](Self::new), with the cores that this thread may use.
    pub(super) fn for_this_machine(cores: &Cores, count: Option<usize>) -> Result<Self> {
        let allowed =
            thread::allowed_cores().map_err(|source| Error::os(Step::PinThread, source))?;
        Self::new(cores, &allowed, count)
    }

    /// Leaves out the shards beyond a number.
    pub(super) fn at_most(mut self, count: usize) -> Self {
        self.specs.truncate(count);
        self
    }

    /// The shards, by number.
    pub(crate) fn specs(&self) -> &[ShardSpec] {
        &self.specs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_cores_and_count() {
        let allowed = [0, 2, 5];
        let list = |cores: &[usize]| Cores::List(cores.to_vec());
        let pinned = |cores: &[usize]| Some(cores.iter().copied().map(Some).collect::<Vec<_>>());
        let table = [
            (Cores::All, None, pinned(&[0, 2, 5])),
            (Cores::All, Some(1), pinned(&[0])),
            (Cores::All, Some(5), pinned(&[0, 2, 5, 0, 2])),
            (Cores::First(2), None, pinned(&[0, 2])),
            (Cores::First(2), Some(3), pinned(&[0, 2, 0])),
            (Cores::First(0), None, None),
            (Cores::First(4), None, None),
            (list(&[5, 0]), None, pinned(&[5, 0])),
            (list(&[1]), None, None),
            (list(&[]), None, None),
            (Cores::Unpinned, None, Some(vec![None; 3])),
            (Cores::Unpinned, Some(2), Some(vec![None; 2])),
            (Cores::All, Some(0), None),
            (
                Cores::All,
                Some(256),
                Some([0, 2, 5].map(Some).into_iter().cycle().take(256).collect()),
            ),
        ];
        for (cores, count, expected) in table {
            let plan = ShardPlan::new(&cores, &allowed, count).ok();
            let places = plan.map(|plan| {
                assert!(plan.specs.iter().enumerate().all(|(at, spec)| spec.index == at));
                plan.specs.iter().map(|spec| spec.core).collect::<Vec<_>>()
            });
            assert_eq!(places, expected, "{cores:?}, {count:?}");
        }
    }

    #[test]
    fn a_process_without_cores_is_an_error_not_a_panic() {
        assert!(ShardPlan::new(&Cores::All, &[], None).is_err());
        assert!(ShardPlan::new(&Cores::Unpinned, &[], Some(2)).is_err());
    }
}
