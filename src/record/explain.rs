//! What a query reads, and why.

use std::fmt;

use ringtap_filter::Needs;

/// What a query passes over, and what is left to be read; from [`Query::explain`](super::Query::explain).
///
/// ```no_run
/// use ringtap::record::Archive;
///
/// # fn main() -> ringtap::Result<()> {
/// let query = Archive::open("/var/spool/capture")?.query();
/// println!("{}", query.filter("host 192.0.2.7 and less 100".parse()?).explain()?);
/// # Ok(())
/// # }
/// ```
///
/// ```text
/// by index: host 192.0.2.7
/// 12 files of 12884901888 bytes, 12 of them with an index
/// passed over: 0 bytes by their times, 12738101248 by the index
/// to be read: 146800640 bytes
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// What an index is asked for. The rest of the filter is decided packet by packet.
    pub needs: Needs,
    /// The files.
    pub files: u64,
    /// The bytes of all files.
    pub bytes: u64,
    /// The files that have an index.
    pub indexed: u64,
    /// Bytes whose packets are of other times.
    pub of_other_times: u64,
    /// Bytes of which an index says that no packet has what is needed.
    pub without_terms: u64,
    /// Bytes that have to be read.
    pub to_read: u64,
}

impl Explanation {
    pub(super) fn new(needs: Needs) -> Self {
        let (files, bytes, indexed, of_other_times, without_terms, to_read) = Default::default();
        Self { needs, files, bytes, indexed, of_other_times, without_terms, to_read }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needs, files, bytes, indexed, of_other_times, without_terms, to_read } = self;
        writeln!(f, "by index: {needs}")?;
        writeln!(f, "{files} files of {bytes} bytes, {indexed} of them with an index")?;
        writeln!(
            f,
            "passed over: {of_other_times} bytes by their times, {without_terms} by the index"
        )?;
        write!(f, "to be read: {to_read} bytes")
    }
}
