//! Words for people and for pipes.
//!
//! `println!` and `eprintln!` panic where nobody reads, or the disk is full: a sensor goes on.

use std::fmt::{self, Write as _};
use std::io;

/// Prints a line on standard output. An error is the caller's: who read may have gone, or the disk is full.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        writeln!(std::io::stdout(), $($words)*)
    }};
}

/// Prints a line on standard error, as far as anybody reads there: in one piece, as others may write there too.
macro_rules! note {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let line = format!($($words)*) + "\n";
        let _ = std::io::stderr().write_all(line.as_bytes());
    }};
}

pub(crate) use {note, say};

/// Whether an error is that whoever read our output has gone (`ringtap flows eth0 | head`).
pub(crate) fn is_of_gone_reader(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        {
            return true;
        }
        if let Some(ringtap::Error::Other(carried)) = error.downcast_ref::<ringtap::Error>()
            && is_of_gone_reader(carried.as_ref())
        {
            return true;
        }
        at = error.source();
    }
    false
}

/// Text from packets, which may be anything: control characters are shown, and do nothing to a terminal.
pub(crate) struct Plain<'a>(pub(crate) &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| match letter.is_control() || is_invisible(letter) {
            true => write!(f, "{}", letter.escape_unicode()),
            false => f.write_char(letter),
        })
    }
}

/// Whether a character turns the direction of those behind it, or is not seen at all.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_packets_say_does_nothing_to_a_terminal() {
        let said = Plain("a\x1b]0;owned\x07b\u{9b}31m\u{202e}c\nd é").to_string();
        assert_eq!(said, "a\\u{1b}]0;owned\\u{7}b\\u{9b}31m\\u{202e}c\\u{a}d é");
    }

    #[test]
    fn a_reader_that_has_gone_is_found_behind_other_errors() {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_of_gone_reader(&gone()));
        assert!(is_of_gone_reader(&ringtap::Error::Other(Box::new(gone()))));
        assert!(!is_of_gone_reader(&io::Error::from(io::ErrorKind::StorageFull)));
    }
}
