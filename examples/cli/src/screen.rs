//! A terminal that a view is drawn on: its size, and its keys.

use std::io::{self, IsTerminal, Write};

use crossbeam_channel::{Receiver, Sender};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::terminal::{self, ClearType};
use crossterm::{cursor, queue};
use nix::sys::signal::Signal;

/// The size of a terminal that does not tell it.
const USUAL: (usize, usize) = (80, 24);

/// Standard output, if it is a terminal.
pub(crate) struct Screen {
    /// Whether keys are read one by one.
    has_keys: bool,
    keys: Receiver<KeyCode>,
}

impl Screen {
    /// `None` if nobody looks. `end` is called for Ctrl-C, and `wake` for each other key; Ctrl-Z stops the process.
    pub(crate) fn open(
        end: impl Fn() + Send + 'static,
        wake: impl Fn() + Send + 'static,
    ) -> Option<Self> {
        if !io::stdout().is_terminal() {
            return None;
        }
        let (pressed, keys) = crossbeam_channel::unbounded();
        let has_keys = io::stdin().is_terminal() && terminal::enable_raw_mode().is_ok();
        if has_keys {
            // It ends with the process: a read from a terminal cannot be called off.
            let read = move || read_keys(&pressed, &end, &wake);
            let _ = std::thread::Builder::new().name("keys".to_owned()).spawn(read);
        }
        Some(Self { has_keys, keys })
    }

    /// Whether keys do anything.
    pub(crate) fn has_keys(&self) -> bool {
        self.has_keys
    }

    /// The next key that was pressed.
    pub(crate) fn key(&self) -> Option<KeyCode> {
        self.keys.try_recv().ok()
    }

    /// Returns the columns of the terminal that standard output is, if it is one.
    pub(crate) fn columns() -> Option<usize> {
        io::stdout().is_terminal().then(|| size().0)
    }

    /// Draws a text in place of the one before: as many lines and columns as there is room for.
    pub(crate) fn draw(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        queue!(out, cursor::MoveTo(0, 0), terminal::Clear(ClearType::FromCursorDown))?;
        // A terminal whose keys are read one by one does not go to the first column by itself.
        let text = fitted(text, size());
        out.write_all(if self.has_keys { text.replace('\n', "\r\n") } else { text }.as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.has_keys {
            let _ = terminal::disable_raw_mode();
        }
    }
}

fn read_keys(pressed: &Sender<KeyCode>, end: impl Fn(), wake: impl Fn()) {
    while let Ok(event) = event::read() {
        let Event::Key(KeyEvent { code, modifiers, kind, .. }) = event else { continue };
        if kind == KeyEventKind::Release {
            continue;
        }
        if modifiers.contains(KeyModifiers::CONTROL) {
            match code {
                KeyCode::Char('c') => end(),
                KeyCode::Char('z') => stop(),
                _ => {}
            }
            continue;
        }
        if pressed.send(code).is_err() {
            return;
        }
        wake();
    }
}

/// Gives the terminal back, and stops the process, as Ctrl-Z does where keys are not read one by one. Returns when it goes on.
fn stop() {
    let _ = terminal::disable_raw_mode();
    let _ = nix::sys::signal::raise(Signal::SIGTSTP);
    let _ = terminal::enable_raw_mode();
}

/// The columns and rows of the terminal.
fn size() -> (usize, usize) {
    let Ok((columns, rows)) = terminal::size() else { return USUAL };
    let or = |known: u16, usual| if known > 0 { known.into() } else { usual };
    (or(columns, USUAL.0), or(rows, USUAL.1))
}

/// The part of a text that fits into the given columns and rows; the last row stays free.
fn fitted(text: &str, (columns, rows): (usize, usize)) -> String {
    let mut fitted = String::new();
    for line in text.lines().take(rows.saturating_sub(1).max(1)) {
        fitted.extend(line.chars().take(columns));
        fitted.push('\n');
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_longer_than_the_screen_and_the_first_lines_stay() {
        let text = "a header of many letters\nsecond\nthird µµµµ\n";
        assert_eq!(fitted(text, (8, 3)), "a header\nsecond\n");
        assert_eq!(fitted(text, (40, 24)), text);
        assert_eq!(fitted(text, (8, 1)), "a header\n");
    }
}
