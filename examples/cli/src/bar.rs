//! A bar for long work on a recording, where there is a terminal.

use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ringtap::record::{Archive, Progress};

/// How often it is drawn.
const EVERY: Duration = Duration::from_millis(200);

/// A bar on standard error that is drawn until this is dropped, and then removed. Nothing where it is no terminal.
pub(crate) struct Bar {
    running: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Bar {
    /// Begins a bar of the bytes of an archive that are gone through once.
    pub(crate) fn of(archive: &Archive, what: &'static str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { running: None };
        }
        let (total, progress) = (archive.bytes(), archive.progress());
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name("bar".to_owned());
        let thread = thread.spawn(move || draw(what, total, &progress, &receiver));
        // Without a thread there is no bar.
        Self { running: thread.ok().map(|thread| (sender, thread)) }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.running.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

fn draw(what: &'static str, total: u64, progress: &Progress, ended: &mpsc::Receiver<()>) {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let style =
        "{msg} {bar:24} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_message(what);
    // Work that ends at once shows no bar.
    while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        bar.set_position(progress.bytes().min(total));
    }
    bar.finish_and_clear();
}
