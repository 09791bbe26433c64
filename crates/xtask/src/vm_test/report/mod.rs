//! What came of a run: rows of results, as text, JSON and JUnit.

mod json;
mod junit;

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::event::Step;
use super::stage;

/// What came of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be; what of it could not be done here.
    Passed(Vec<String>),
    /// Not as it should be; why.
    Failed(String),
    /// Not done; why.
    Skipped(String),
}

/// One step and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which.
    pub step: Step,
    /// How long it took.
    pub seconds: f64,
    /// What came of it.
    pub verdict: Verdict,
}

/// Everything about a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Where it ran: `container`, …
    pub backend: String,
    /// Why there.
    pub chosen_because: String,
    /// `darling`, or `linux` for the stand-in.
    pub guest: String,
    /// The machine, as it describes itself.
    pub machine: String,
    /// From the start of the machine to its end.
    pub seconds: f64,
    /// The steps, in their order.
    pub rows: Vec<Row>,
    /// The machine, or what was to make it, failed.
    pub broken: Option<String>,
    /// The end of the machine's journal, if something failed.
    pub journal: Option<String>,
}

impl Step {
    /// For people: `7 store`.
    pub fn title(self) -> String {
        match self {
            Step::Install => "install".into(),
            Step::Uninstall => "uninstall".into(),
            Step::Stage(number) => format!("{number} {}", self.name()),
        }
    }

    /// What it shows.
    pub fn purpose(self) -> &'static str {
        match self {
            Step::Install => "host-agent install, on a machine that has nothing of ours",
            Step::Uninstall => "host-agent uninstall leaves the machine's files as they were",
            Step::Stage(number) => stage::by_number(number).map_or("", |stage| stage.purpose),
        }
    }

    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Step::Install => "install",
            Step::Uninstall => "uninstall",
            Step::Stage(number) => stage::by_number(number).map_or("unknown", |stage| stage.name),
        }
    }
}

impl Verdict {
    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Passed(_) => "passed",
            Verdict::Failed(_) => "failed",
            Verdict::Skipped(_) => "skipped",
        }
    }
}

impl Report {
    /// Whether nothing failed and something passed.
    pub fn succeeded(&self) -> bool {
        self.broken.is_none() && self.count("failed") == 0 && self.count("passed") > 0
    }

    fn count(&self, word: &str) -> usize {
        self.rows.iter().filter(|row| row.verdict.word() == word).count()
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let guest = match self.guest.as_str() {
            "linux" => "the stand-in guest: nothing here is a result of Darling",
            _ => "Darling",
        };
        // Writing to a String can't fail.
        let _ = writeln!(text, "{}: {}; {guest}\n", self.backend, self.machine);
        for row in &self.rows {
            let _ =
                writeln!(text, "{:<8} {:<16} {:>7.1} s", row.verdict.word(), row.step.title(), row.seconds);
            match &row.verdict {
                Verdict::Passed(notes) => notes.iter().for_each(|note| {
                    let _ = writeln!(text, "         {}", printable(note));
                }),
                Verdict::Failed(reason) | Verdict::Skipped(reason) => {
                    for line in reason.lines() {
                        let _ = writeln!(text, "         {}", printable(line));
                    }
                }
            }
        }
        if let Some(reason) = &self.broken {
            let _ = writeln!(text, "\n{reason}");
        }
        let [passed, failed, skipped] = ["passed", "failed", "skipped"].map(|word| self.count(word));
        let _ = writeln!(
            text,
            "\n{passed} passed, {failed} failed, {skipped} skipped; {:.0} s in all",
            self.seconds
        );
        text
    }
}

/// What builders and consoles print is not for a terminal.
pub fn printable(line: &str) -> String {
    line.replace(|character: char| character.is_control() && character != '\n' && character != '\t', "·")
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn sample() -> Report {
        Report {
            backend: "container".into(),
            chosen_because: "nixos: no flakes".into(),
            guest: "linux".into(),
            machine: "Debian GNU/Linux 12 (bookworm), Linux 6.1.0, Nix 2.8.0".into(),
            seconds: 93.4,
            rows: vec![
                Row { step: Step::Install, seconds: 4.25, verdict: Verdict::Passed(vec![]) },
                Row {
                    step: Step::Stage(1),
                    seconds: 12.04,
                    verdict: Verdict::Passed(vec!["doctor warns: memory: <2 GiB>".into()]),
                },
                Row { step: Step::Stage(3), seconds: 0.0, verdict: Verdict::Skipped("needs Darling".into()) },
                Row {
                    step: Step::Stage(9),
                    seconds: 7.5,
                    verdict: Verdict::Failed(
                        "line 3 of the log is \"x\" & not \"y\"\nand \u{1b}[31mred\u{1b}[0m".into(),
                    ),
                },
            ],
            broken: None,
            journal: Some("host-agent[7]: ready".into()),
        }
    }

    #[test]
    fn as_text() {
        insta::assert_snapshot!(sample().text());
    }

    #[test]
    fn as_json() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&sample().json()).unwrap());
    }

    #[test]
    fn as_junit() {
        insta::assert_snapshot!(sample().junit().unwrap());
    }

    #[test]
    fn a_machine_that_died_is_an_error_of_its_own() {
        let report = Report { broken: Some("the machine has died".into()), rows: vec![], ..sample() };
        assert!(!report.succeeded());
        insta::assert_snapshot!(format!("{}\n{}", report.text(), report.junit().unwrap()));
    }

    #[test]
    fn a_run_in_which_nothing_passed_is_no_success() {
        let mut report = sample();
        report.rows.retain(|row| matches!(row.verdict, Verdict::Skipped(_)));
        assert!(!report.succeeded());
        report.rows.push(Row { step: Step::Stage(1), seconds: 1.0, verdict: Verdict::Passed(vec![]) });
        assert!(report.succeeded());
    }
}
