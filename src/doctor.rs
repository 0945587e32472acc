//! Checks which features of this crate work on this machine in this process, and suggests remedies for the
//! others.
//!
//! ```
//! let report = ringtap::doctor::examine(Some("lo"));
//! println!("{report}");
//! for finding in report.findings().iter().filter(|finding| finding.verdict.is_bad()) {
//!     eprintln!("{}: {}", finding.subject, finding.detail);
//! }
//! ```
//!
//! The checks try what they can without disturbing anyone: an io_uring; small rings and nine frames of an
//! unused protocol on the loopback; an XDP program that is loaded but not attached. They ask the kernel for
//! everything else, and change nothing.

mod interface;
mod io_uring;
mod json;
mod packets;
mod system;
#[cfg(feature = "af-xdp")]
mod xdp;

use std::fmt;

use crate::error::Error;

/// The verdict on a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It works.
    Works,
    /// It works, but not as well as it could; see the remedy.
    Limited,
    /// It does not work here.
    Missing,
    /// It could not be determined.
    Unknown,
}

impl Verdict {
    /// Returns whether the verdict is [`Limited`](Self::Limited) or [`Missing`](Self::Missing).
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Limited | Self::Missing)
    }

    /// Returns the verdict as one lower-case word.
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

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The area it belongs to: `io_uring`, `packet sockets`, `AF_XDP`, `capabilities`, `limits`, `system`, or
    /// an interface's name.
    pub area: String,
    /// The feature in a word or two, unique in its area.
    pub subject: &'static str,
    /// The verdict on the feature.
    pub verdict: Verdict,
    /// Details of the result.
    pub detail: String,
    /// The remedy, if there is one.
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

    /// Creates a finding from an error, with its remedy separated from the text.
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

/// The result of all checks; as text by `Display`, as JSON by [`to_json`](Self::to_json).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Returns all findings, grouped by area.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Returns the finding about one subject.
    pub fn find(&self, area: &str, subject: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.area == area && finding.subject == subject)
    }

    /// Returns the number of findings with this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// Returns the report as one JSON object. It contains `findings`, a list of objects with the fields of
    /// [`Finding`], and for each verdict the number of its findings, under the verdict's word.
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

/// Examines this machine as the calling thread sees it, in its namespaces and with its capabilities. If
/// `interface` is given, that interface is examined too.
///
/// This takes some milliseconds and needs no capability; features that need one are reported as missing. It
/// briefly opens an io_uring, and sockets on the loopback only.
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
        assert_eq!(finding.remedy.as_deref(), Some("`ip link` lists the interfaces"));
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
