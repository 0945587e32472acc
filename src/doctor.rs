//! What of this crate works on this machine, in this process, and what to do about what does not.
//!
//! ```
//! let report = ringtap::doctor::examine(Some("lo"));
//! println!("{report}");
//! for finding in report.findings().iter().filter(|finding| finding.verdict.is_bad()) {
//!     eprintln!("{}: {}", finding.subject, finding.detail);
//! }
//! ```
//!
//! It tries what can be tried without disturbing anybody (an io_uring, small rings and nine frames of a protocol that
//! nobody has on the loopback, an XDP program that is loaded and not attached), and asks the kernel for the rest. It
//! changes nothing.

mod interface;
mod io_uring;
mod json;
mod packets;
mod system;
#[cfg(feature = "af-xdp")]
mod xdp;

use std::fmt;

use crate::error::Error;

/// How much of something there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It works.
    Works,
    /// It works, but not as well as it could: see the remedy.
    Limited,
    /// It does not work here.
    Missing,
    /// There was no way to tell.
    Unknown,
}

impl Verdict {
    /// Whether something could be done about it, or is absent.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Limited | Self::Missing)
    }

    /// One lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Limited => "limited",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What it belongs to: `io_uring`, `packet sockets`, `AF_XDP`, `capabilities`, `limits`, `system`, or an
    /// interface's name.
    pub area: String,
    /// What was looked at, in a word or two; unique in its area.
    pub subject: &'static str,
    /// How much of it there is.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do about it, if anything can be.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(subject: &'static str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { area: String::new(), subject, verdict, detail: detail.into(), remedy: None }
    }

    fn works(subject: &'static str, detail: impl Into<String>) -> Self {
        Self::new(subject, Verdict::Works, detail)
    }

    fn limited(subject: &'static str, detail: impl Into<String>, remedy: &str) -> Self {
        Self::new(subject, Verdict::Limited, detail).with_remedy(remedy)
    }

    fn missing(subject: &'static str, detail: impl Into<String>, remedy: &str) -> Self {
        Self::new(subject, Verdict::Missing, detail).with_remedy(remedy)
    }

    fn unknown(subject: &'static str, detail: impl Into<String>) -> Self {
        Self::new(subject, Verdict::Unknown, detail)
    }

    /// What an error says, its remedy apart.
    fn failed(subject: &'static str, error: &Error) -> Self {
        let text = error.to_string();
        match text.split_once("; ") {
            Some((detail, remedy)) => Self::missing(subject, detail, remedy),
            None => Self::new(subject, Verdict::Missing, text),
        }
    }

    fn with_remedy(mut self, remedy: &str) -> Self {
        self.remedy = Some(remedy.to_owned());
        self
    }
}

/// What was found; as text by `Display`, as JSON by [`to_json`](Self::to_json).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Everything that was looked at, area by area.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What was found of one thing.
    pub fn find(&self, area: &str, subject: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.area == area && finding.subject == subject)
    }

    /// How many findings have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// The report as one JSON object: `findings`, a list of objects with the fields of [`Finding`], and how many
    /// there are of each verdict, by its word.
    pub fn to_json(&self) -> String {
        json::report(self)
    }

    fn add(&mut self, area: &str, findings: Vec<Finding>) {
        let area = area.to_owned();
        let named = findings.into_iter().map(|finding| Finding { area: area.clone(), ..finding });
        self.findings.extend(named);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut area = "";
        for finding in &self.findings {
            if finding.area != area {
                area = &finding.area;
                writeln!(f, "{area}")?;
            }
            writeln!(f, "  {:<8} {:<16} {}", finding.verdict, finding.subject, finding.detail)?;
            if let Some(remedy) = &finding.remedy {
                writeln!(f, "{:28}→ {remedy}", "")?;
            }
        }
        let [works, limited, missing, unknown] = VERDICTS.map(|verdict| self.count(verdict));
        write!(f, "{works} work, {limited} limited, {missing} missing, {unknown} unknown")
    }
}

const VERDICTS: [Verdict; 4] =
    [Verdict::Works, Verdict::Limited, Verdict::Missing, Verdict::Unknown];

/// Examines this machine as the calling thread sees it, in its namespaces and with its capabilities, and an
/// interface of it if one is named.
///
/// Takes some milliseconds. Needs no capability: what would need one is found missing. Opens sockets and an
/// io_uring for a moment, on the loopback only.
///
/// # Panics
/// Never.
pub fn examine(interface: Option<&str>) -> Report {
    let mut report = Report { findings: Vec::new() };
    report.add("system", system::look());
    report.add("capabilities", system::capabilities());
    report.add("limits", system::limits());
    report.add("io_uring", io_uring::look());
    report.add("packet sockets", packets::look());
    #[cfg(feature = "af-xdp")]
    report.add("AF_XDP", xdp::look());
    if let Some(name) = interface {
        report.add(name, interface::look(name));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_says_is_told_apart_from_its_remedy() {
        let error = Error::NoSuchInterface { name: "eth7".to_owned() };
        let finding = Finding::failed("link", &error);
        assert_eq!(finding.verdict, Verdict::Missing);
        assert_eq!(finding.detail, "no interface `eth7` in this network namespace");
        assert_eq!(finding.remedy.as_deref(), Some("`ip link` lists those there are"));
    }

    #[test]
    fn text_names_each_area_once_and_ends_with_a_count() {
        let mut report = Report { findings: Vec::new() };
        let findings =
            vec![Finding::works("one", "fine"), Finding::limited("two", "slow", "do it")];
        report.add("here", findings);
        report.add("there", vec![Finding::unknown("three", "no idea")]);
        let text = report.to_string();
        assert_eq!(text.matches("here\n").count(), 2, "here and there: {text}");
        assert!(text.contains("  limited  two              slow\n"), "{text}");
        assert!(text.contains("→ do it\n"), "{text}");
        assert!(text.ends_with("\n1 work, 1 limited, 0 missing, 1 unknown"), "{text}");
        assert_eq!(report.find("there", "three").unwrap().verdict, Verdict::Unknown);
        assert_eq!(report.find("here", "three"), None);
    }
}
