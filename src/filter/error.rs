//! Faults of filters: of their text or of their program.

use std::fmt;

/// The reason why a text is not a valid filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// The text; empty if the fault has no position in it.
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

    /// Returns the byte offset of the fault in the text; `None` if it has no position.
    pub fn position(&self) -> Option<usize> {
        (!self.text.is_empty()).then_some(self.position)
    }

    /// Returns what was expected there, or what is not allowed there (`no …`).
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
        // Show only the line at fault, as far as it fits into a terminal.
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

/// The reason why a classic BPF program is refused. The kernel reports EINVAL for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgramFault {
    /// The program is empty or has more than 4096 instructions.
    Length {
        /// Number of its instructions.
        instructions: usize,
    },
    /// An instruction does not exist.
    Unknown {
        /// Index of the instruction.
        at: usize,
        /// Code of the instruction.
        code: u16,
    },
    /// A jump leads out of the program.
    JumpOut {
        /// Index of the instruction.
        at: usize,
    },
    /// An instruction divides by the constant 0.
    DivisionByZero {
        /// Index of the instruction.
        at: usize,
    },
    /// An instruction shifts by 32 bits or more.
    Shift {
        /// Index of the instruction.
        at: usize,
    },
    /// An instruction uses a cell beyond the 16 cells of scratch memory.
    NoSuchCell {
        /// Index of the instruction.
        at: usize,
    },
    /// An instruction reads a cell that not every path to it has written.
    UnsetCell {
        /// Index of the instruction.
        at: usize,
    },
    /// An instruction loads metadata by a number that the kernel does not know.
    UnknownAncillary {
        /// Index of the instruction.
        at: usize,
    },
    /// The last instruction does not return.
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
                    "instruction {at} reads a cell of scratch memory that may not have been written yet"
                )
            }
            Self::UnknownAncillary { at } => {
                write!(f, "instruction {at} loads from an offset that has no meaning")
            }
            Self::NoReturn => f.write_str("the last instruction is not a `ret`"),
        }
    }
}

impl std::error::Error for ProgramFault {}

/// The reason why a listing of a program is not a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListingError {
    /// The text is not such a listing.
    Text(FilterError),
    /// The kernel would refuse the program.
    Program(ProgramFault),
}

impl fmt::Display for ListingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(error) => error.fmt(f),
            Self::Program(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for ListingError {}
