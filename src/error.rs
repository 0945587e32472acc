//! What can go wrong, at which step, and what to do about it.
//!
//! Every [`Error`] names the step that failed, keeps the `errno` where there is one
//! ([`Error::raw_os_error`]), and ends its `Display` text with a remedy where one is known.

#[cfg(feature = "pcap")]
mod file;
mod filter;
mod geometry;
mod kind;
mod step;
mod text;

use std::error::Error as StdError;
use std::{fmt, io};

#[cfg(feature = "pcap")]
pub use self::file::{FileError, FileFault};
pub use self::filter::{FilterError, ProgramFault};
pub use self::geometry::GeometryError;
pub use self::kind::ErrorKind;
pub use self::step::Step;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a ringtap operation failed.
///
/// Its `Debug` is its `Display`: what `main` returns and what `unwrap` panics with names the remedy too.
#[non_exhaustive]
pub enum Error {
    /// A system call failed at a named step.
    Os {
        /// What was being done.
        step: Step,
        /// To what: an interface, a queue of one, a core, a file. `None` where it was to nothing in particular.
        object: Option<Box<str>>,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A builder was finished without naming an interface.
    InterfaceMissing,
    /// No interface has this name in the current network namespace.
    NoSuchInterface {
        /// The name asked for.
        name: String,
    },
    /// The interface that the socket was bound to no longer exists.
    InterfaceGone {
        /// Its name when the socket was opened.
        name: String,
    },
    /// The interface is down: frames that were committed stay, and go once it is up.
    LinkDown {
        /// Its name when the socket was opened.
        name: String,
    },
    /// A frame is too short or too long to be sent.
    FrameLength {
        /// Its length in bytes.
        len: usize,
        /// The least that can be sent.
        least: usize,
        /// The most that can be sent: MTU and header, or the ring's slot.
        most: usize,
    },
    /// A reactor was to be attached to a thread that has one.
    AlreadyAttached,
    /// A bridge was to join an interface with itself.
    SameInterface {
        /// The interface's name.
        name: String,
    },
    /// A bridge was to join interfaces of different kinds of link: a frame of one cannot be sent on the other.
    DifferentLinks {
        /// The interfaces' names.
        names: [String; 2],
        /// What their packets begin with, by the number of a [`LinkType`](crate::packet::LinkType); `None` where that is not known.
        links: [Option<u16>; 2],
    },
    /// AF_XDP would lose the VLAN tags of packets that come in here, and what was asked for needs them.
    TagsStripped {
        /// The interface's name.
        name: String,
        /// The interface whose offload takes the tags out; `None` if it is the veth peer in another namespace, whose
        /// setting is not known.
        by: Option<String>,
    },
    /// An interface has no clock that stamps packets as they come in.
    NoHardwareClock {
        /// The interface's name.
        name: String,
        /// Whether the driver stamps them in software.
        has_software: bool,
    },
    /// A frame with an [`Offload`](crate::packet::Offload), or a checksum to be computed, on a socket without.
    OffloadsDisabled,
    /// A checksum is to be computed of, or written to, what is not in the frame.
    ChecksumOutside {
        /// Where it begins.
        start: u16,
        /// Where it is written, from there.
        offset: u16,
        /// Bytes of the frame.
        len: usize,
    },
    /// An XDP program of one interface was given for a socket of another.
    OtherInterface {
        /// The interface that the program is attached to.
        program: String,
        /// The interface of the socket.
        socket: String,
    },
    /// An AF_XDP socket was to receive that was opened for sending only.
    NotReceiving,
    /// An AF_XDP socket was to send that was opened for receiving only.
    NotSending,
    /// An interface has no such queue.
    NoSuchQueue {
        /// The interface's name.
        name: String,
        /// The queue asked for.
        queue: u32,
        /// How many it has: queues are numbered from 0.
        count: u32,
    },
    /// Another XDP program is attached to the interface.
    ProgramAttached {
        /// The interface's name.
        name: String,
        /// The program's id, as `bpftool prog show id` takes it, where the kernel told.
        id: Option<u32>,
    },
    /// The sizes asked for do not form a ring.
    Geometry(GeometryError),
    /// The kernel could not find memory for the ring.
    RingTooLarge {
        /// Bytes asked for.
        bytes: usize,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The socket could not join its fanout group.
    Fanout {
        /// The group asked for; `None` where the kernel was to choose it.
        group: Option<u16>,
        /// What the kernel answered.
        source: io::Error,
        /// Whether the interface was up, which joining needs on older kernels.
        interface_up: bool,
    },
    /// The kernel refused to create an io_uring.
    IoUringRefused {
        /// What the kernel answered.
        source: io::Error,
    },
    /// This kernel's io_uring loses completion signals in every mode, so that a reactor on another runtime's thread would
    /// sleep for ever.
    HostUnsignalled,
    /// A text or terms that are no filter.
    Filter(Box<FilterError>),
    /// A capture file that cannot be read or written.
    #[cfg(feature = "pcap")]
    File(Box<FileError>),
    /// A program of classic BPF that the kernel would refuse.
    Program(ProgramFault),
    /// No reactor is attached to this thread.
    NoReactor,
    /// The reactor that this socket was registered with has ended.
    ReactorGone,
    /// The process forked, and a child cannot use its parent's io_uring.
    Forked,
    /// The reactor's op slab is full.
    TooManyOps {
        /// Its capacity, as given to [`ReactorOptions::max_ops`](crate::reactor::ReactorOptions::max_ops).
        limit: usize,
    },
    /// The executor that ran an awaited task ended before the task did.
    TaskCancelled,
    /// A shard plan cannot be made from what was asked.
    ShardPlan(&'static str),
    /// A shard failed; the others were treated as [`FailurePolicy`](crate::shard::FailurePolicy) says.
    Shard {
        /// Which shard.
        index: usize,
        /// Its error.
        source: Box<Error>,
    },
    /// A shard panicked; the others were treated as [`FailurePolicy`](crate::shard::FailurePolicy) says.
    ShardPanicked {
        /// Which shard.
        index: usize,
        /// The panic's message.
        message: String,
    },
    /// An error of the caller's own, carried through a shard (see [`Error::other`]).
    Other(Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// Carries the message of the caller's own error, so that a shard's future may return it. The error need not be `Send`:
    /// `.map_err(Error::other)?` works on glommio's.
    pub fn other(error: impl fmt::Display) -> Self {
        Self::Other(error.to_string().into())
    }

    /// Whether the options are at fault, so that every shard would fail alike.
    pub(crate) fn is_about_options(&self) -> bool {
        matches!(
            self,
            Self::InterfaceMissing
                | Self::NoSuchInterface { .. }
                | Self::Geometry(_)
                | Self::Filter(_)
                | Self::Program(_)
                | Self::NoHardwareClock { .. }
        )
    }

    pub(crate) fn os(step: Step, source: impl Into<io::Error>) -> Self {
        Self::Os { step, object: None, source: source.into() }
    }

    /// Says what it was done to, where that is not said already.
    pub(crate) fn of(mut self, what: impl fmt::Display) -> Self {
        if let Self::Os { object: object @ None, .. } = &mut self {
            *object = Some(what.to_string().into_boxed_str());
        }
        self
    }

    /// The kernel's `errno`, where a system call is behind this error.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Os { source, .. }
            | Self::RingTooLarge { source, .. }
            | Self::Fanout { source, .. }
            | Self::IoUringRefused { source } => source.raw_os_error(),
            Self::Shard { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Os { source, .. }
            | Self::RingTooLarge { source, .. }
            | Self::Fanout { source, .. }
            | Self::IoUringRefused { source } => Some(source),
            Self::Geometry(error) => Some(error),
            Self::Filter(error) => Some(error.as_ref()),
            #[cfg(feature = "pcap")]
            Self::File(error) => Some(error.as_ref()),
            Self::Program(fault) => Some(fault),
            Self::Shard { source, .. } => Some(source.as_ref()),
            Self::Other(source) => Some(source.as_ref()),
            _ => None,
        }
    }
}

impl From<GeometryError> for Error {
    fn from(error: GeometryError) -> Self {
        Self::Geometry(error)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Os { ref source, .. } => Self::new(source.kind(), error),
            Error::NoSuchInterface { .. } | Error::InterfaceGone { .. } => {
                Self::new(io::ErrorKind::NotFound, error)
            }
            Error::Geometry(_) | Error::InterfaceMissing => {
                Self::new(io::ErrorKind::InvalidInput, error)
            }
            error => Self::other(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_capability_names_its_remedy() {
        let error = Error::os(Step::OpenSocket, io::Error::from_raw_os_error(libc::EPERM));
        let text = error.to_string();
        assert!(text.contains("CAP_NET_RAW"), "{text}");
        assert!(text.contains("setcap cap_net_raw+ep"), "{text}");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn refused_io_uring_names_the_sysctl_and_the_container() {
        for errno in [libc::EPERM, libc::ENOSYS] {
            let error = Error::IoUringRefused { source: io::Error::from_raw_os_error(errno) };
            let text = error.to_string();
            assert!(text.contains("seccomp"), "{text}");
        }
    }

    #[test]
    fn the_error_of_a_shard_keeps_its_errno_and_its_number() {
        let cause = Error::os(Step::Bind, io::Error::from_raw_os_error(libc::ENODEV));
        let error = Error::Shard { index: 3, source: Box::new(cause) };
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(error.to_string().starts_with("shard 3: "));
        assert!(error.source().is_some());
    }
}
