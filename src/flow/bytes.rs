//! Bytes of a stream that outlive a call: borrowed from their batch, or owned.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::ring::batch::{PacketBatch, Place};

/// Bytes of a stream: either part of a packet that is still in its batch, or owned memory.
///
/// Bytes of a packet keep its batch alive, and with it a block of the ring: [`detach`](Self::detach) bytes that
/// are kept for long.
#[derive(Clone)]
pub struct StreamBytes(Memory);

#[derive(Clone)]
enum Memory {
    Lent { batch: Arc<dyn Held>, place: Place, part: Range<usize> },
    Own(Arc<[u8]>),
}

impl StreamBytes {
    /// Copies the bytes out of the batch. Owned bytes are left as they are.
    pub fn detach(&mut self) {
        if !self.is_detached() {
            self.0 = Memory::Own(Arc::from(&**self));
        }
    }

    /// Returns whether the bytes hold no batch.
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

/// Lends bytes of the current packet.
pub(super) type Lend<'a> = &'a dyn Fn(Range<usize>) -> StreamBytes;

/// Keeps a batch alive as long as bytes of it are lent.
pub(super) trait Held: Send + Sync {
    fn batch(&self) -> &PacketBatch;
}

/// Returns bytes of the packet at `place` in a batch.
pub(super) fn lent(batch: Arc<dyn Held>, place: Place, part: Range<usize>) -> StreamBytes {
    StreamBytes(Memory::Lent { batch, place, part })
}
