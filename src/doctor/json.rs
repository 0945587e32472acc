//! Writes a report as JSON (RFC 8259). Only strings need escaping.

use std::fmt::Write;

use super::{Finding, Report, VERDICTS};

pub(super) fn report(report: &Report) -> String {
    let mut json = String::from("{\"findings\":[");
    for (at, finding) in report.findings.iter().enumerate() {
        let Finding { area, subject, verdict, detail, remedy } = finding;
        json.push_str(if at == 0 { "{" } else { ",{" });
        let fields = [("area", area.as_str()), ("subject", subject), ("verdict", verdict.as_str())];
        for (name, value) in fields.into_iter().chain([("detail", detail.as_str())]) {
            let _ = write!(json, "\"{name}\":");
            string(&mut json, value);
            json.push(',');
        }
        json.push_str("\"remedy\":");
        match remedy {
            Some(remedy) => string(&mut json, remedy),
            None => json.push_str("null"),
        }
        json.push('}');
    }
    json.push(']');
    for verdict in VERDICTS {
        let _ = write!(json, ",\"{}\":{}", verdict.as_str(), report.count(verdict));
    }
    json.push('}');
    json
}

fn string(json: &mut String, text: &str) {
    json.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => json.extend(['\\', letter]),
            letter if letter < ' ' => {
                let _ = write!(json, "\\u{:04x}", u32::from(letter));
            }
            letter => json.push(letter),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_backslashes_and_control_characters_are_escaped() {
        let finding = Finding::missing("x", "say \"no\"\n\\", "→ `do`");
        let mut one = Report { findings: Vec::new() };
        one.add("here", vec![finding, Finding::works("y", "")]);
        let expected = r#"{"findings":[{"area":"here","subject":"x","verdict":"missing","detail":"say \"no\"\u000a\\","remedy":"→ `do`"},{"area":"here","subject":"y","verdict":"works","detail":"","remedy":null}],"works":1,"limited":0,"missing":1,"unknown":0}"#;
        assert_eq!(report(&one), expected);
    }
}
