//! The source of a shard's packets: sockets of fanout groups, or of an interface's queues.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::handle::ReadStats;
use super::plan::ShardSpec;
use super::startup::Lineup;
use crate::afpacket::{Capture, CaptureBuilder, Socket};
use crate::error::Result;
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

/// Sockets of fanout groups: each shard has one in every group.
#[derive(Debug)]
pub(super) struct Fanouts(pub(super) Vec<CaptureBuilder>);

impl ShardSockets for Fanouts {
    type Port = AsyncCapture;

    fn open(
        &self,
        spec: ShardSpec,
        lineup: &Lineup,
        stop: &StopHandle,
    ) -> Result<Option<Opened<AsyncCapture>>> {
        let Self(options) = self;
        let open_all = || -> Result<Vec<OwnedFd>> {
            options.iter().map(CaptureBuilder::open_socket).collect()
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
