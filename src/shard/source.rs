//! The source of a shard's packets: sockets of fanout groups, or of an interface's queues.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use super::handle::ReadStats;
use super::plan::ShardSpec;
use super::startup::Lineup;
use crate::afpacket::{Capture, CaptureBuilder, Socket};
use crate::error::{Error, Result};
use crate::io::AsyncCapture;
use crate::wait::StopHandle;

/// The socket setup shared by all shards of a job.
pub(super) trait ShardSockets: Send + Sync + 'static {
    /// A socket as the shard's future sees it.
    type Port: 'static;

    /// Opens a shard's sockets in their places in their groups, with closed intakes; `None` if the start was
    /// aborted meanwhile.
    fn open(
        &self,
        spec: ShardSpec,
        lineup: &Lineup,
        stop: &StopHandle,
    ) -> Result<Option<Opened<Self::Port>>>;

    /// Lets packets come in.
    fn open_intake(port: &mut Self::Port) -> Result<()>;
}

/// The sockets that a shard has opened.
pub(super) struct Opened<P> {
    /// At least one.
    pub(super) ports: Vec<P>,
    pub(super) readers: Vec<ReadStats>,
    /// Sockets that must stay in their group until all shards have ended.
    pub(super) anchors: Vec<Arc<Socket>>,
}

/// Sockets that were opened before the shards start, in the order of shards; a shard's are next to each other.
#[derive(Debug, Clone)]
pub(super) struct PassedSockets(Arc<Mutex<Vec<Option<OwnedFd>>>>);

impl PassedSockets {
    pub(super) fn new(sockets: impl IntoIterator<Item = OwnedFd>) -> Self {
        Self(Arc::new(Mutex::new(sockets.into_iter().map(Some).collect())))
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Returns the next `each` sockets of shard `index`.
    fn take(&self, index: usize, each: usize) -> Result<Vec<OwnedFd>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.iter_mut().skip(index * each).take(each).filter_map(Option::take);
        let own: Vec<_> = own.collect();
        if own.len() < each {
            return Err(Error::ShardPlan("a copy of these options has taken the sockets already"));
        }
        Ok(own)
    }
}

/// Sockets of fanout groups: each shard has one in every group.
#[derive(Debug)]
pub(super) struct Fanouts {
    pub(super) options: Vec<CaptureBuilder>,
    /// Those that are used instead of new ones.
    pub(super) passed: Option<PassedSockets>,
}

impl ShardSockets for Fanouts {
    type Port = AsyncCapture;

    fn open(
        &self,
        spec: ShardSpec,
        lineup: &Lineup,
        stop: &StopHandle,
    ) -> Result<Option<Opened<AsyncCapture>>> {
        let Self { options, passed } = self;
        let open_all = || -> Result<Vec<OwnedFd>> {
            let Some(passed) = passed else {
                return options.iter().map(CaptureBuilder::open_socket).collect();
            };
            let sockets = passed.take(spec.index, options.len())?;
            let with_options = options.iter().zip(&sockets);
            with_options
                .into_iter()
                .try_for_each(|(of, socket)| of.check_socket(socket.as_fd()))?;
            Ok(sockets)
        };
        let sockets = match lineup.in_turn(spec.index, open_all) {
            Some(opened) => opened?,
            None => return Ok(None),
        };
        let opened =
            options.iter().zip(sockets).map(|(options, socket)| options.open_closed(socket));
        let mut captures: Vec<Capture> = opened.collect::<Result<_>>()?;
        let Ok(groups) = lineup.wait_to_join(spec.index) else { return Ok(None) };
        for (at, (options, capture)) in options.iter().zip(&mut captures).enumerate() {
            if let Some(membership) = options.effective_membership() {
                capture.join(&membership.of_group(groups.get(at).copied().flatten()))?;
            }
        }
        lineup.joined(captures.iter().map(Capture::fanout_group).collect());
        let anchors = captures.iter().map(Capture::anchor).collect();
        let attach = |mut capture: Capture| {
            capture.share_stop(stop.clone());
            AsyncCapture::new(capture)
        };
        let ports: Vec<_> = captures.into_iter().map(attach).collect::<Result<_>>()?;
        let reader =
            |port: &AsyncCapture| ReadStats::Capture(port.stats_handle(), port.filter_handle());
        let readers = ports.iter().map(reader).collect();
        Ok(Some(Opened { ports, readers, anchors }))
    }

    fn open_intake(port: &mut AsyncCapture) -> Result<()> {
        port.get_ref().open_intake()
    }
}
