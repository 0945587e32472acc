//! The runtime whose guest a reactor is, as the reactor knows it.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::Waker;
use std::time::Instant;

use crate::error::Result;
use crate::sys::event::EventFd;

/// What a reactor knows of its host.
#[derive(Debug)]
pub(super) struct Host {
    event: EventFd,
    /// The task that turns the reactor, while it waits.
    pub(super) driver: RefCell<Option<Waker>>,
    /// When something last came.
    pub(super) waits_since: Cell<Instant>,
    /// Whether those who wait were woken ahead of the turn that is next.
    pub(super) has_guessed: Cell<bool>,
}

impl Host {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            event: EventFd::blocking()?,
            driver: RefCell::new(None),
            waits_since: Cell::new(Instant::now()),
            has_guessed: Cell::new(false),
        })
    }

    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Has the driver take a turn, if it does not already.
    pub(super) fn wake_driver(&self) {
        let driver = self.driver.take();
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}
