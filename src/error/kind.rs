//! Kinds of errors, for programs that decide by them.

use super::{Error, Step};

/// The kind of failure of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A missing capability, a seccomp profile or a user limit forbids the operation.
    PermissionDenied,
    /// No interface or queue has the given name or number.
    NotFound,
    /// The interface, the reactor or the executor no longer exists.
    Gone,
    /// The interface is down.
    LinkDown,
    /// The kernel, the driver or the card does not support the operation.
    Unsupported,
    /// The resource is in use by others: a queue, an attached program or an entry of a map.
    Busy,
    /// Not enough memory or room.
    NoRoom,
    /// An invalid option, filter, frame or call.
    Invalid,
    /// A capture file cannot be read or written.
    File,
    /// A shard or a thread panicked.
    Panicked,
    /// Any other error, such as the caller's own.
    Other,
}

impl Error {
    /// Returns the kind of failure. For an error of a shard, this is the kind of its cause.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Os { step, .. } => of_step(*step, self.raw_os_error().unwrap_or(0)),
            Self::NoSuchInterface { .. } | Self::NoSuchQueue { .. } => ErrorKind::NotFound,
            Self::InterfaceGone { .. } | Self::ReactorGone | Self::TaskCancelled => ErrorKind::Gone,
            Self::LinkDown { .. } => ErrorKind::LinkDown,
            Self::IoUringRefused { source } => match source.raw_os_error() {
                Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE) => ErrorKind::NoRoom,
                Some(libc::ENOSYS) => ErrorKind::Unsupported,
                _ => ErrorKind::PermissionDenied,
            },
            Self::HostUnsignalled
            | Self::NoHardwareClock { .. }
            | Self::TagsStripped { .. }
            | Self::Unusable { .. } => ErrorKind::Unsupported,
            Self::ProgramAttached { .. } => ErrorKind::Busy,
            Self::RingTooLarge { .. } | Self::TooManyOps { .. } => ErrorKind::NoRoom,
            Self::Fanout { source, interface_up, .. } => match source.raw_os_error() {
                Some(libc::ENOSPC | libc::ENOMEM) => ErrorKind::NoRoom,
                _ if !interface_up => ErrorKind::LinkDown,
                _ => ErrorKind::Invalid,
            },
            #[cfg(feature = "pcap")]
            Self::File(_) => ErrorKind::File,
            Self::Shard { source, .. } => source.kind(),
            Self::ShardPanicked { .. } => ErrorKind::Panicked,
            Self::Other(_) => ErrorKind::Other,
            Self::InterfaceMissing
            | Self::FrameLength { .. }
            | Self::AlreadyAttached
            | Self::SameInterface { .. }
            | Self::DifferentLinks { .. }
            | Self::OffloadsDisabled
            | Self::FilteredByProgram
            | Self::ChecksumOutside { .. }
            | Self::OtherInterface { .. }
            | Self::Geometry(_)
            | Self::Filter(_)
            | Self::Program(_)
            | Self::NoReactor
            | Self::Forked
            | Self::ShardPlan(_) => ErrorKind::Invalid,
        }
    }

    /// Returns the remedy, if one is known: the part of the message after "; ".
    pub fn remedy(&self) -> Option<String> {
        if let Self::Os { step, source, .. } = self {
            return source.raw_os_error().and_then(|errno| step.remedy(errno)).map(str::to_owned);
        }
        if let Self::Shard { source, .. } = self {
            return source.remedy();
        }
        if matches!(self, Self::Other(_) | Self::ShardPanicked { .. } | Self::Filter(_)) {
            return None; // the text is not this crate's
        }
        let text = self.to_string();
        // Skip parentheses: they explain, and may contain semicolons.
        let mut depth = 0_usize;
        let at = text.char_indices().find(|(at, letter)| {
            match letter {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && text[*at..].starts_with("; ")
        });
        at.map(|(at, _)| text[at + 2..].to_owned())
    }
}

fn of_step(step: Step, errno: i32) -> ErrorKind {
    match errno {
        libc::EPERM | libc::EACCES => ErrorKind::PermissionDenied,
        libc::ENOMEM | libc::ENOBUFS | libc::ENOSPC | libc::EMFILE | libc::ENFILE | libc::E2BIG => {
            ErrorKind::NoRoom
        }
        libc::EBUSY | libc::EEXIST => ErrorKind::Busy,
        libc::ENODEV | libc::ENXIO | libc::ENOENT => ErrorKind::NotFound,
        libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::ENOSYS | libc::EAFNOSUPPORT => {
            ErrorKind::Unsupported
        }
        _ => match step {
            Step::BindMultiBuffer
            | Step::BindZeroCopy
            | Step::KickWithoutProgram
            | Step::LoadProgram
            | Step::RegisterTxMetadata => ErrorKind::Unsupported,
            _ if errno == libc::EINVAL => ErrorKind::Invalid,
            _ => ErrorKind::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn os(step: Step, errno: i32) -> Error {
        Error::os(step, io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn kinds_are_told_by_step_and_errno_and_through_shards() {
        let forbidden = os(Step::OpenSocket, libc::EPERM);
        assert_eq!(forbidden.kind(), ErrorKind::PermissionDenied);
        let shard = Error::Shard { index: 1, source: Box::new(forbidden) };
        assert_eq!(shard.kind(), ErrorKind::PermissionDenied);
        assert!(shard.remedy().unwrap().starts_with("needs CAP_NET_RAW"));
        assert_eq!(os(Step::BindMultiBuffer, libc::EINVAL).kind(), ErrorKind::Unsupported);
        assert_eq!(os(Step::CreateRing, libc::EINVAL).kind(), ErrorKind::Invalid);
        assert_eq!(Error::OffloadsDisabled.kind(), ErrorKind::Invalid);
    }

    #[test]
    fn a_remedy_is_what_stands_behind_the_message() {
        let gone = Error::LinkDown { name: "eth0".to_owned() };
        assert!(gone.remedy().unwrap().starts_with("set it up (`ip link set eth0 up`)"));
        let attached = Error::ProgramAttached { name: "eth0".to_owned(), id: Some(7) };
        assert!(
            attached.remedy().unwrap().starts_with("end its holder"),
            "{:?}",
            attached.remedy()
        );
        assert_eq!(Error::other("a; b").remedy(), None);
        assert_eq!(os(Step::Wait, libc::EIO).remedy(), None);
    }
}
