//! Wakes several tasks. A waker may do anything: turn the reactor, drop a socket, panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;

/// The outcome of [`wake_all`]: the first panic, if any.
#[derive(Default)]
#[must_use = "a panic goes on from here"]
pub(super) struct Woken(Option<Box<dyn Any + Send>>);

/// Wakes all tasks, including those after one that panics. Nothing may be borrowed.
pub(super) fn wake_all(wakers: &mut Vec<Waker>) -> Woken {
    let mut panic = None;
    for waker in wakers.drain(..) {
        // Safe to continue: waking consumes the waker.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
            panic.get_or_insert(payload);
        }
    }
    Woken(panic)
}

impl Woken {
    /// Returns the first panic of both.
    pub(super) fn or(self, later: Self) -> Self {
        Self(self.0.or(later.0))
    }

    /// Resumes the first panic, if there was one. By then all tasks are woken and the state is consistent.
    pub(super) fn go_on(self) {
        if let Some(payload) = self.0 {
            resume_unwind(payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    struct Counting(AtomicU32);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Panicking;

    impl Wake for Panicking {
        fn wake(self: Arc<Self>) {
            resume_unwind(Box::new("a waker's"));
        }
    }

    #[test]
    fn a_waker_that_panics_keeps_nobody_from_being_woken_and_its_panic_goes_on() {
        let counting = Arc::new(Counting(AtomicU32::new(0)));
        let good = || Waker::from(Arc::clone(&counting));
        let bad = || Waker::from(Arc::new(Panicking));
        let mut wakers = vec![good(), bad(), good(), bad(), good()];
        let woken = wake_all(&mut wakers);
        assert_eq!((wakers.len(), counting.0.load(Ordering::Relaxed)), (0, 3));
        let panic = catch_unwind(AssertUnwindSafe(|| woken.go_on())).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"a waker's"));
        wake_all(&mut vec![good()]).go_on();
    }
}
