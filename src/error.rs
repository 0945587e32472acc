//! The errors of this crate: the step that failed, the cause, and the remedy.
//!
//! Every [`Error`] names the step that failed, keeps the `errno` if there is one ([`Error::raw_os_error`]), and
//! ends its `Display` text with a remedy if one is known.

#[cfg(feature = "pcap")]
mod file;
mod geometry;
mod kind;
mod step;
mod text;

use std::error::Error as StdError;
use std::{fmt, io};

#[cfg(feature = "pcap")]
pub use self::file::{FileError, FileFault};
pub use self::geometry::GeometryError;
pub use self::kind::ErrorKind;
pub use self::step::Step;
pub use ringtap_filter::{FilterError, ProgramFault};

impl From<FilterError> for Error {
    fn from(error: FilterError) -> Self {
        Self::Filter(Box::new(error))
    }
}

impl From<ProgramFault> for Error {
    fn from(fault: ProgramFault) -> Self {
        Self::Program(fault)
    }
}

impl From<ringtap_filter::ListingError> for Error {
    fn from(error: ringtap_filter::ListingError) -> Self {
        match error {
            ringtap_filter::ListingError::Text(error) => error.into(),
            ringtap_filter::ListingError::Program(fault) => fault.into(),
        }
    }
}

/// The result of every operation in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason why a ringtap operation failed.
///
/// `Debug` prints the same text as `Display`, so that errors returned from `main` and panics of `unwrap` name
/// the remedy too.
#[non_exhaustive]
pub enum Error {
    /// A system call failed at a named step.
    Os {
        /// The step that failed.
        step: Step,
        /// The object of the step: an interface, one of its queues, a core or a file. `None` if it had no
        /// particular object.
        object: Option<Box<str>>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A builder was finished without naming an interface.
    InterfaceMissing,
    /// No interface has this name in the current network namespace.
    NoSuchInterface {
        /// The requested name.
        name: String,
    },
    /// The interface that the socket was bound to no longer exists.
    InterfaceGone {
        /// Its name when the socket was opened.
        name: String,
    },
    /// The interface is down. Committed frames stay in the ring and are sent once it is up.
    LinkDown {
        /// Its name when the socket was opened.
        name: String,
    },
    /// A frame is too short or too long to be sent.
    FrameLength {
        /// Its length in bytes.
        len: usize,
        /// The least length that can be sent.
        least: usize,
        /// The greatest length that can be sent: MTU plus header, or the slot of the ring.
        most: usize,
    },
    /// A reactor could not be attached because this thread already has one, which is running.
    AlreadyAttached,
    /// A bridge was asked to join an interface with itself.
    SameInterface {
        /// The interface's name.
        name: String,
    },
    /// A bridge was asked to join interfaces of different link types: frames of one cannot be sent on the
    /// other.
    DifferentLinks {
        /// The names of the interfaces.
        names: [String; 2],
        /// Numbers of their [`LinkType`](crate::packet::LinkType)s; `None` if unknown.
        links: [Option<u16>; 2],
    },
    /// AF_XDP would lose the VLAN tags of packets that arrive on this interface, and the requested operation
    /// needs them.
    TagsStripped {
        /// The interface's name.
        name: String,
        /// The interface whose offload removes the tags; `None` if it is the veth peer in another namespace,
        /// whose setting is not known.
        by: Option<String>,
    },
    /// An option cannot be used with the chosen interface.
    Unusable {
        /// The option's name.
        option: &'static str,
        /// The interface.
        interface: String,
        /// The reason and the remedy.
        why: &'static str,
    },
    /// An interface has no hardware clock that stamps arriving packets.
    NoHardwareClock {
        /// The interface's name.
        name: String,
        /// Whether the driver can stamp packets in software.
        has_software: bool,
    },
    /// A frame has an [`Offload`](crate::packet::Offload), or needs a checksum computed, but offloads are not
    /// enabled on this socket.
    OffloadsDisabled,
    /// An AF_XDP socket was given a filter: there the XDP program decides.
    FilteredByProgram,
    /// A checksum covers, or is to be written to, bytes outside the frame.
    ChecksumOutside {
        /// Offset at which the covered bytes begin.
        start: u16,
        /// Offset, from `start`, at which the checksum is written.
        offset: u16,
        /// Length of the frame in bytes.
        len: usize,
    },
    /// An XDP program attached to one interface was given to a socket of another.
    OtherInterface {
        /// The interface that the program is attached to.
        program: String,
        /// The interface of the socket.
        socket: String,
    },
    /// An interface does not have the requested queue.
    NoSuchQueue {
        /// The interface's name.
        name: String,
        /// The requested queue.
        queue: u32,
        /// Number of the interface's queues, which are numbered from 0.
        count: u32,
    },
    /// Another XDP program is attached to the interface.
    ProgramAttached {
        /// The interface's name.
        name: String,
        /// The id of that program, as taken by `bpftool prog show id`, if the kernel reported it.
        id: Option<u32>,
    },
    /// The requested sizes do not form a ring.
    Geometry(GeometryError),
    /// The kernel could not allocate memory for the ring.
    RingTooLarge {
        /// Requested size in bytes.
        bytes: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The socket could not join its fanout group.
    Fanout {
        /// The requested group; `None` if the kernel was to choose one.
        group: Option<u16>,
        /// The kernel's answer.
        source: io::Error,
        /// Whether the interface was up, which older kernels require for joining.
        interface_up: bool,
    },
    /// The kernel refused to create an io_uring.
    IoUringRefused {
        /// The kernel's answer.
        source: io::Error,
    },
    /// This kernel's io_uring loses completion signals in every mode, so that a reactor hosted on another
    /// runtime's thread would sleep forever.
    HostUnsignalled,
    /// A text or a set of terms is not a valid filter.
    Filter(Box<FilterError>),
    /// A capture file cannot be read or written.
    #[cfg(feature = "pcap")]
    File(Box<FileError>),
    /// The kernel would refuse a classic BPF program.
    Program(ProgramFault),
    /// No reactor is attached to this thread.
    NoReactor,
    /// The reactor of this thread, or the one that this socket was registered with, has ended: with its guard, or because
    /// the host dropped the task that drove it.
    ReactorGone,
    /// The process has forked, and the child cannot use its parent's io_uring.
    Forked,
    /// The reactor's op slab is full.
    TooManyOps {
        /// Its capacity, as set by [`ReactorOptions::max_ops`](crate::reactor::ReactorOptions::max_ops).
        limit: usize,
    },
    /// The executor that ran an awaited task ended before the task did.
    TaskCancelled,
    /// The requested shard plan is not possible.
    ShardPlan(&'static str),
    /// A shard failed; the other shards were treated according to the
    /// [`FailurePolicy`](crate::shard::FailurePolicy).
    Shard {
        /// Number of the shard.
        index: usize,
        /// The shard's error.
        source: Box<Error>,
    },
    /// A shard panicked; the other shards were treated according to the
    /// [`FailurePolicy`](crate::shard::FailurePolicy).
    ShardPanicked {
        /// Number of the shard.
        index: usize,
        /// The message of the panic.
        message: String,
    },
    /// The caller's own error, carried through a shard (see [`Error::other`]).
    Other(Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// Wraps the message of the caller's own error, so that a shard's future may return it. The error need not
    /// be `Send`: `.map_err(Error::other)?` works even with glommio's errors.
    pub fn other(error: impl fmt::Display) -> Self {
        Self::Other(error.to_string().into())
    }

    /// Whether the options are at fault, so that every shard would fail in the same way.
    pub(crate) fn is_about_options(&self) -> bool {
        matches!(
            self,
            Self::InterfaceMissing
                | Self::NoSuchInterface { .. }
                | Self::Geometry(_)
                | Self::Filter(_)
                | Self::Program(_)
                | Self::NoHardwareClock { .. }
                | Self::Unusable { .. }
        )
    }

    pub(crate) fn os(step: Step, source: impl Into<io::Error>) -> Self {
        Self::Os { step, object: None, source: source.into() }
    }

    /// Adds the object of the failed step, unless it is already set.
    pub(crate) fn of(mut self, what: impl fmt::Display) -> Self {
        if let Self::Os { object: object @ None, .. } = &mut self {
            *object = Some(what.to_string().into_boxed_str());
        }
        self
    }

    /// Returns the kernel's `errno`, if a system call caused this error.
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
