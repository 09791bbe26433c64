//! How findings are shown: all of them, only what is not fine, or as JSON.

use std::fmt::Write;

use super::{Finding, Report, Severity};
use crate::plain_text;

/// Every finding, each fix on a line of its own, and a summary.
pub fn text(report: &Report) -> String {
    rendered(report, |_| true)
}

/// What is not fine, and a summary.
pub fn short(report: &Report) -> String {
    rendered(report, |finding| finding.severity != Severity::Fine)
}

/// `{"version", "worst", "findings": [{"name", "severity", "detail", "fix"}]}`; severities are `fine`, `warning` and `broken`,
/// `fix` is null where there is nothing to mend. Later releases may add names and keys, and keep these.
pub fn json(report: &Report) -> String {
    // Strings, enums and lists: nothing that JSON can't say.
    plain_text::json(&serde_json::to_string_pretty(report).unwrap_or_default())
}

fn rendered(report: &Report, shown: impl Fn(&Finding) -> bool) -> String {
    let shown: Vec<&Finding> = report.findings.iter().filter(|finding| shown(finding)).collect();
    let width = shown.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    // Writing to a String can't fail.
    for finding in shown {
        let mark = match finding.severity {
            Severity::Fine => "ok     ",
            Severity::Warning => "warning",
            Severity::Broken => "BROKEN ",
        };
        let indent = mark.len() + width + 4;
        // Users' settings and what a slot says are part of it.
        let detail = plain_text::lines(finding.detail.trim_end()).replace('\n', &format!("\n{:indent$}", ""));
        let _ = writeln!(text, "{mark}  {:width$}  {detail}", finding.name);
        if let Some(fix) = &finding.fix {
            let fix = plain_text::lines(fix);
            let _ = writeln!(text, "{:indent$}→ {}", "", fix.replace('\n', &format!("\n{:indent$}  ", "")));
        }
    }
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let verdict = match report.worst {
        Severity::Fine => "builds work",
        Severity::Warning => "builds work, or could not be tried; see the warnings",
        Severity::Broken => "builds can't work",
    };
    let _ = writeln!(
        text,
        "{} fine, {} warnings, {} broken: {verdict}",
        count(Severity::Fine),
        count(Severity::Warning),
        count(Severity::Broken)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            version: "0.1.0",
            worst: Severity::Broken,
            findings: vec![
                Finding::fine("kernel", "6.18.0"),
                Finding::warning("rights", "not root:\nlittle can be tried", "run this as root"),
                Finding::broken("daemon", "does not answer", "start it:\n  systemctl start darling-builder"),
            ],
        }
    }

    #[test]
    fn text_shows_everything_and_each_fix_on_a_line_of_its_own() {
        insta::assert_snapshot!(text(&report()));
    }

    #[test]
    fn the_short_form_leaves_out_what_is_fine() {
        insta::assert_snapshot!(short(&report()));
    }

    #[test]
    fn what_others_had_a_hand_in_can_do_nothing_to_a_terminal() {
        let finding = Finding::warning("nix", "/home/x/nix.conf:\x1b[2J\rfine", "\u{9b}0m");
        let report = Report { findings: vec![finding], ..report() };
        for shown in [text(&report), short(&report), json(&report)] {
            assert!(!shown.contains(|char: char| char.is_control() && char != '\n'), "{shown:?}");
        }
    }

    #[test]
    fn json_keeps_its_shape() {
        insta::assert_snapshot!(json(&report()));
    }
}
