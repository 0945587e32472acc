//! What is wrong with a filter: with its text, or with its program.

use std::fmt;

use super::Error;

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// The text; empty where the fault is of no place in it.
    text: String,
    position: usize,
    expected: String,
}

impl FilterError {
    pub(crate) fn at(text: &str, position: usize, expected: impl Into<String>) -> Self {
        Self { text: text.to_owned(), position, expected: expected.into() }
    }

    pub(crate) fn whole(expected: impl Into<String>) -> Self {
        Self { text: String::new(), position: 0, expected: expected.into() }
    }

    /// Where in the text, in bytes; `None` where the fault is of no place in it.
    pub fn position(&self) -> Option<usize> {
        (!self.text.is_empty()).then_some(self.position)
    }

    /// What was expected there, or what there cannot be (`no …`).
    pub fn expected(&self) -> &str {
        &self.expected
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = if self.expected.starts_with("no ") { "" } else { "expected " };
        write!(f, "filter: {expected}{}", self.expected)?;
        if self.text.is_empty() {
            return Ok(());
        }
        // The line it is in, as far as a terminal shows it.
        let position = self.position.min(self.text.trim_end().len());
        let start = self.text[..position].rfind('\n').map_or(0, |at| at + 1);
        let line = self.text[start..].lines().next().unwrap_or_default();
        let column = self.text[start..position].chars().count();
        let from = column.saturating_sub(60);
        let shown: String = line.chars().skip(from).take(100).collect();
        let moves = |c: char| {
            c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        let shown = shown.replace(moves, " ");
        write!(f, "\n  {shown}\n  {:>width$}", '^', width = column - from + 1)
    }
}

impl std::error::Error for FilterError {}

impl From<FilterError> for Error {
    fn from(error: FilterError) -> Self {
        Self::Filter(Box::new(error))
    }
}

/// Why a program of classic BPF is refused; the kernel says EINVAL of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgramFault {
    /// It has no instruction, or more than 4096.
    Length {
        /// Instructions it has.
        instructions: usize,
    },
    /// There is no such instruction.
    Unknown {
        /// Its place.
        at: usize,
        /// Its code.
        code: u16,
    },
    /// A jump leads out of the program.
    JumpOut {
        /// Its place.
        at: usize,
    },
    /// It divides by the number 0.
    DivisionByZero {
        /// Its place.
        at: usize,
    },
    /// It shifts by 32 bits or more.
    Shift {
        /// Its place.
        at: usize,
    },
    /// There are 16 cells of scratch memory.
    NoSuchCell {
        /// Its place.
        at: usize,
    },
    /// It reads a cell that not every way here has written.
    UnsetCell {
        /// Its place.
        at: usize,
    },
    /// The kernel knows nothing of this number.
    UnknownAncillary {
        /// Its place.
        at: usize,
    },
    /// The last instruction returns nothing.
    NoReturn,
}

impl fmt::Display for ProgramFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { instructions } => {
                write!(f, "a program has 1 to 4096 instructions, and this one {instructions}")
            }
            Self::Unknown { at, code } => {
                write!(f, "instruction {at} has the unknown code {code:#x}")
            }
            Self::JumpOut { at } => write!(f, "instruction {at} jumps out of the program"),
            Self::DivisionByZero { at } => write!(f, "instruction {at} divides by 0"),
            Self::Shift { at } => write!(f, "instruction {at} shifts by 32 bits or more"),
            Self::NoSuchCell { at } => {
                write!(f, "instruction {at} names a cell of scratch memory beyond the 16 there are")
            }
            Self::UnsetCell { at } => {
                write!(
                    f,
                    "instruction {at} reads a cell of scratch memory that may not be written yet"
                )
            }
            Self::UnknownAncillary { at } => {
                write!(f, "instruction {at} loads from an offset that stands for nothing")
            }
            Self::NoReturn => f.write_str("the last instruction is not a `ret`"),
        }
    }
}

impl std::error::Error for ProgramFault {}
