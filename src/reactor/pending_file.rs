//! Operations on files that were handed to a reactor.

use std::io;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use super::Reactor;
use super::file_op::FileOp;
use super::ops::Kind;
use super::state::State;
use super::token::Token;
use super::turn::Inner;
use crate::error::{Error, Result};

impl State {
    /// Takes an operation on a file, or returns it if there is no room, or nothing to work with.
    pub(super) fn register_file(
        &mut self,
        op: FileOp,
    ) -> std::result::Result<Token, (Error, FileOp)> {
        if let Err(error) = self.check() {
            return Err((error, op));
        }
        if self.ops.len() >= self.ops.limit() {
            return Err((Error::TooManyOps { limit: self.ops.limit() - 1 }, op));
        }
        Ok(self.ops.insert(-1, Kind::File(op)).expect("there is room"))
    }

    /// Returns the result of an operation on a file, once.
    pub(super) fn take_done(&mut self, token: Token) -> Option<io::Result<u32>> {
        match &mut self.ops.get(token)?.kind {
            Kind::Done(done) => done.take(),
            _ => None,
        }
    }

    /// Gives up operations on files that are in flight when their ring is left.
    pub(super) fn lose_files(&mut self) {
        for token in self.ops.in_flight() {
            let Some(entry) = self.ops.get(token) else { continue };
            if !matches!(entry.kind, Kind::File(_)) {
                continue;
            }
            entry.lose_file();
            self.wakers.extend(entry.waker.take());
            if entry.op.forget() {
                self.free(token);
            }
        }
    }
}

/// An operation that was handed to the reactor. If this is dropped, an operation that was submitted goes on by itself, and one
/// that was not is dropped with it.
#[derive(Debug)]
pub(crate) struct PendingFile {
    reactor: Weak<Inner>,
    token: Token,
}

impl PendingFile {
    /// Hands an operation over. It is submitted in the next turn; if that cannot be, it is returned.
    pub(crate) fn start(
        reactor: &Reactor,
        op: FileOp,
    ) -> std::result::Result<Self, (Error, FileOp)> {
        let shared = &reactor.shared;
        let token = shared.change(|state| {
            let token = state.register_file(op)?;
            state.want(token);
            Ok(token)
        })?;
        Ok(Self { reactor: Rc::downgrade(shared), token })
    }

    /// Returns ready when the operation has ended, with the result of its system call; it says so once. What it owned is
    /// released by then.
    ///
    /// # Errors
    /// [`Error::ReactorGone`] or the reactor's error, if it will not be heard of any more.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<io::Result<u32>>> {
        let Some(shared) = self.reactor.upgrade() else {
            return Poll::Ready(Err(Error::ReactorGone));
        };
        let mut state = shared.state.borrow_mut();
        if let Some(done) = state.take_done(self.token) {
            return Poll::Ready(Ok(done));
        }
        if let Err(error) = state.check() {
            return Poll::Ready(Err(error));
        }
        if !state.wakes(self.token, cx.waker()) {
            let replaced = state.set_waker(self.token, cx.waker().clone());
            drop(state);
            drop(replaced);
        }
        Poll::Pending
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if let Some(shared) = self.reactor.upgrade() {
            let waker = shared.change(|state| state.release(self.token));
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::path::PathBuf;
    use std::task::Waker;
    use std::time::Duration;

    use super::super::enter::Wait;
    use super::*;
    use crate::options::ReactorOptions;
    use crate::reactor::Backend;

    fn reactor() -> Reactor {
        Reactor { shared: Rc::new(Inner::new(&ReactorOptions::default(), None).unwrap()) }
    }

    /// A file that is not there yet. The lab makes directories for all other tests; it is not in the published package.
    fn path(name: &str) -> PathBuf {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        std::env::temp_dir().join(format!("ringtap-file-{now:x}-{name}"))
    }

    fn create(path: &std::path::Path) -> FileOp {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        FileOp::Create { path, is_direct: false }
    }

    /// Turns the reactor until the operation has ended.
    fn end(reactor: &Reactor, pending: &mut PendingFile) -> io::Result<u32> {
        loop {
            match pending.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(done) => return done.unwrap(),
                Poll::Pending => {
                    reactor.shared.cycle(Wait::AtMost(Some(Duration::from_millis(100))));
                }
            }
        }
    }

    fn ops(reactor: &Reactor) -> usize {
        reactor.shared.state.borrow().ops.len()
    }

    #[test]
    #[cfg_attr(miri, ignore = "enters an io_uring")]
    fn an_operation_dropped_before_its_turn_is_not_done_and_one_dropped_after_it_is() {
        let (reactor, path) = (reactor(), path("dropped"));
        let before = ops(&reactor);
        drop(PendingFile::start(&reactor, create(&path)).unwrap());
        reactor.turn();
        assert!(!path.exists() && ops(&reactor) == before);

        let pending = PendingFile::start(&reactor, create(&path)).unwrap();
        reactor.turn();
        drop(pending);
        let start = std::time::Instant::now();
        while ops(&reactor) > before && start.elapsed() < Duration::from_secs(20) {
            reactor.shared.cycle(Wait::AtMost(Some(Duration::from_millis(100))));
        }
        assert!(path.exists() && ops(&reactor) == before, "its slot is free, and its file closed");
        std::fs::remove_file(path).unwrap();
        reactor.shared.shut_down();
    }

    #[test]
    #[cfg_attr(miri, ignore = "enters an io_uring")]
    fn results_are_those_of_the_system_calls() {
        let (reactor, path) = (reactor(), path("results"));
        let c_path = CString::new(path.to_str().unwrap()).unwrap();
        let run = |op| {
            let mut pending = PendingFile::start(&reactor, op).unwrap();
            end(&reactor, &mut pending)
        };
        let file = crate::sys::file::adopt(run(create(&path)).unwrap() as i32);
        assert_eq!(run(create(&path)).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let file = Rc::new(file);
        let mut bytes = crate::sys::aligned::AlignedBuf::new(4096).unwrap();
        bytes.push(b"some bytes");
        let buffer = crate::ring::disk::DiskBuffer::Own(bytes);
        assert_eq!(run(FileOp::Write { file: Rc::clone(&file), offset: 5, buffer }).unwrap(), 10);
        assert_eq!(run(FileOp::Reserve { file: Rc::clone(&file), len: 1 << 16 }).unwrap(), 0);
        assert_eq!(run(FileOp::Sync { file: Rc::clone(&file) }).unwrap(), 0);
        assert_eq!(std::fs::read(&path).unwrap(), b"\0\0\0\0\0some bytes");
        assert_eq!(run(FileOp::Close { file: Rc::into_inner(file) }).unwrap(), 0);
        let closed = run(FileOp::Close { file: None }).unwrap_err();
        assert_eq!(closed.raw_os_error(), Some(libc::EBADF));
        assert_eq!(run(FileOp::Remove { path: c_path.clone() }).unwrap(), 0);
        assert!(!path.exists());
        let gone = run(FileOp::Remove { path: c_path }).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        reactor.shared.shut_down();
    }

    #[test]
    #[cfg_attr(miri, ignore = "enters an io_uring")]
    fn a_slab_that_is_full_gives_the_operation_back_and_an_ended_reactor_too() {
        let options = ReactorOptions::default().max_ops(1);
        let reactor = Reactor { shared: Rc::new(Inner::new(&options, None).unwrap()) };
        assert!(matches!(reactor.backend(), Ok(Backend::IoUring | Backend::Poll)));
        let held = PendingFile::start(&reactor, create(&path("held"))).unwrap();
        let refused = PendingFile::start(&reactor, create(&path("refused")));
        let Err((Error::TooManyOps { limit: 1 }, FileOp::Create { .. })) = refused else {
            panic!("{refused:?}");
        };
        drop(held);
        reactor.shared.shut_down();
        let refused = PendingFile::start(&reactor, create(&path("ended")));
        assert!(matches!(refused, Err((Error::ReactorGone, FileOp::Create { .. }))));
    }
}
