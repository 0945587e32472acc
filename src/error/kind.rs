//! What kind of error it is, for programs that decide by it.

use super::{Error, Step};

/// What kind of failure an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A capability, a seccomp profile or a limit of the user's forbids it.
    PermissionDenied,
    /// No interface or queue has that name or number.
    NotFound,
    /// The interface, the reactor or the executor no longer exists.
    Gone,
    /// The interface is down.
    LinkDown,
    /// This kernel, driver or card cannot do it.
    Unsupported,
    /// Somebody else has it: a queue, a program's place, a map's entry.
    Busy,
    /// There is no memory or no room for it.
    NoRoom,
    /// An option, a filter, a frame or a call that cannot be.
    Invalid,
    /// A capture file that cannot be read or written.
    File,
    /// A shard or a thread failed by itself.
    Panicked,
    /// Anything else, such as an error of the caller's own.
    Other,
}

impl Error {
    /// Returns the kind of failure; of a shard's error, that of its cause.
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
            Self::HostUnsignalled | Self::NoHardwareClock { .. } | Self::TagsStripped { .. } => {
                ErrorKind::Unsupported
            }
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
            | Self::ChecksumOutside { .. }
            | Self::OtherInterface { .. }
            | Self::NotReceiving
            | Self::NotSending
            | Self::Geometry(_)
            | Self::Filter(_)
            | Self::Program(_)
            | Self::NoReactor
            | Self::Forked
            | Self::ShardPlan(_) => ErrorKind::Invalid,
        }
    }

    /// Returns what to do about it, if that is known: the part of the message behind "; ".
    pub fn remedy(&self) -> Option<String> {
        if let Self::Os { step, source, .. } = self {
            return source.raw_os_error().and_then(|errno| step.remedy(errno)).map(str::to_owned);
        }
        if let Self::Shard { source, .. } = self {
            return source.remedy();
        }
        if matches!(self, Self::Other(_) | Self::ShardPanicked { .. } | Self::Filter(_)) {
            return None; // whose words are not ours
        }
        let text = self.to_string();
        // What stands in parentheses explains, and may have semicolons of its own.
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
        assert_eq!(Error::NotSending.kind(), ErrorKind::Invalid);
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
