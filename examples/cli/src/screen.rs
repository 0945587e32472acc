//! A terminal that a view is drawn on: its size, and the key that ends it.

use std::io::{self, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The size of a terminal that does not tell it.
const USUAL: (usize, usize) = (80, 24);

/// Standard output, if it is a terminal.
pub(crate) struct Screen {
    /// How the keyboard was before keys were read one by one.
    keyboard: Option<Termios>,
}

impl Screen {
    /// `None` if nobody looks. `end` is called when `q` is pressed.
    pub(crate) fn open(end: impl Fn() + Send + 'static) -> Option<Self> {
        if !io::stdout().is_terminal() {
            return None;
        }
        let keyboard = io::stdin().is_terminal().then(|| tcgetattr(io::stdin()).ok()).flatten();
        if let Some(before) = &keyboard {
            let mut by_keys = before.clone();
            by_keys.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &by_keys);
            // It ends with the process: a read from a terminal cannot be called off.
            let _ = std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
                let mut key = [0];
                while io::stdin().read(&mut key).is_ok_and(|read| read > 0) {
                    if matches!(key, [b'q' | b'Q']) {
                        return end();
                    }
                }
            });
        }
        Some(Self { keyboard })
    }

    /// Returns the columns of the terminal that standard output is, if it is one.
    pub(crate) fn columns() -> Option<usize> {
        io::stdout().is_terminal().then(|| size().0)
    }

    /// Draws a text in place of the one before: as many lines and columns as there is room for.
    pub(crate) fn draw(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        write!(out, "\x1b[H\x1b[J{}", fitted(text, size()))?; // home, and nothing behind it
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(before) = &self.keyboard {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// The columns and rows of the terminal.
fn size() -> (usize, usize) {
    let Ok(size) = tcgetwinsize(io::stdout()) else { return USUAL };
    let or = |known: u16, usual| if known > 0 { known.into() } else { usual };
    (or(size.ws_col, USUAL.0), or(size.ws_row, USUAL.1))
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
