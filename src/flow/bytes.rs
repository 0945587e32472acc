//! Bytes of a stream, for longer than a call: lent by their batch, or kept.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::ring::batch::{PacketBatch, Place};

/// Bytes of a stream: a part of a packet that is still in its batch, or memory of their own.
///
/// Those of a packet hold its batch, and so a block of the ring: [`detach`](Self::detach) what is kept long.
#[derive(Clone)]
pub struct StreamBytes(Memory);

#[derive(Clone)]
enum Memory {
    Lent { batch: Arc<dyn Held>, place: Place, part: Range<usize> },
    Own(Arc<[u8]>),
}

impl StreamBytes {
    /// Copies them out of the batch; bytes that are memory of their own already are left as they are.
    pub fn detach(&mut self) {
        if !self.is_detached() {
            self.0 = Memory::Own(Arc::from(&**self));
        }
    }

    /// Whether they hold no batch.
    pub fn is_detached(&self) -> bool {
        matches!(self.0, Memory::Own(_))
    }
}

impl From<Vec<u8>> for StreamBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Memory::Own(bytes.into()))
    }
}

impl Deref for StreamBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Own(bytes) => bytes,
            Memory::Lent { batch, place, part } => {
                let packet = batch.batch().iter_from(*place).next();
                packet.map_or(&[], |packet| &packet.data()[part.clone()])
            }
        }
    }
}

impl AsRef<[u8]> for StreamBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for StreamBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for StreamBytes {}

impl fmt::Debug for StreamBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamBytes")
            .field("len", &self.len())
            .field("detached", &self.is_detached())
            .finish()
    }
}

/// Lends bytes of the packet that is just looked at.
pub(super) type Lend<'a> = &'a dyn Fn(Range<usize>) -> StreamBytes;

/// What holds a batch, as long as bytes of it are lent.
pub(super) trait Held: Send + Sync {
    fn batch(&self) -> &PacketBatch;
}

/// Bytes of the packet of a batch that is at a place.
pub(super) fn lent(batch: Arc<dyn Held>, place: Place, part: Range<usize>) -> StreamBytes {
    StreamBytes(Memory::Lent { batch, place, part })
}
