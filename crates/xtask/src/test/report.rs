//! What ran, what came of it: a line a test, failures and a table at the end.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// One test's result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Full name.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// The result.
    pub verdict: Verdict,
}

/// A result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Verdict {
    /// As expected.
    Passed,
    /// Not as expected; what was seen.
    Failed(String),
    /// Not run; why.
    Skipped(String),
}

/// All results.
#[derive(Debug, Default)]
pub struct Report {
    started: Option<Instant>,
    groups: Vec<String>,
    tallies: BTreeMap<String, Tally>,
    failures: Vec<Outcome>,
    skips: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    seconds: f64,
}

impl Outcome {
    /// Its line.
    pub fn line(&self) -> String {
        let word = match &self.verdict {
            Verdict::Passed => "PASS",
            Verdict::Failed(_) => "FAIL",
            Verdict::Skipped(_) => "SKIP",
        };
        let line = format!("{word:>12} [{:>8.3}s] {}", self.seconds, self.name);
        match &self.verdict {
            Verdict::Skipped(reason) => format!("{line} ({reason})"),
            _ => line,
        }
    }
}

impl Report {
    fn tally(&mut self, group: &str) -> &mut Tally {
        self.started.get_or_insert_with(Instant::now);
        if !self.groups.iter().any(|known| known == group) {
            self.groups.push(group.to_owned());
        }
        self.tallies.entry(group.to_owned()).or_default()
    }

    /// Adds a result and prints its line.
    pub fn add(&mut self, group: &str, outcome: Outcome) {
        println!("{}", outcome.line());
        self.count(group, outcome);
    }

    /// Adds results whose lines have been printed.
    pub fn add_group(&mut self, group: &str, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            self.count(group, outcome);
        }
    }

    /// Adds one result that stands for tests that can't run here.
    pub fn skip_group(&mut self, group: &str, reason: &str) {
        self.add(
            group,
            Outcome { name: group.into(), seconds: 0.0, verdict: Verdict::Skipped(reason.into()) },
        );
    }

    fn count(&mut self, group: &str, outcome: Outcome) {
        let tally = self.tally(group);
        tally.seconds += outcome.seconds;
        match &outcome.verdict {
            Verdict::Passed => tally.passed += 1,
            Verdict::Failed(_) => {
                tally.failed += 1;
                self.failures.push(outcome);
            }
            Verdict::Skipped(reason) => {
                tally.skipped += 1;
                self.skips.entry(reason.clone()).or_default().push(outcome.name);
            }
        }
    }

    fn total(&self) -> Tally {
        self.tallies.values().fold(Tally::default(), |sum, tally| Tally {
            passed: sum.passed + tally.passed,
            failed: sum.failed + tally.failed,
            skipped: sum.skipped + tally.skipped,
            seconds: sum.seconds + tally.seconds,
        })
    }

    /// Whether nothing failed and something passed.
    pub fn succeeded(&self) -> bool {
        let total = self.total();
        total.failed == 0 && total.passed > 0
    }

    /// Prints failures with their output, the table and the last line.
    pub fn finish(&self) {
        for failure in &self.failures {
            if let Verdict::Failed(text) = &failure.verdict {
                println!("\n──── {}\n{text}", failure.name);
            }
        }
        println!("\n{:<40} {:>7} {:>7} {:>8} {:>9}", "where", "passed", "failed", "skipped", "time");
        for group in &self.groups {
            let tally = self.tallies.get(group).copied().unwrap_or_default();
            println!(
                "{group:<40} {:>7} {:>7} {:>8} {:>8.1}s",
                tally.passed, tally.failed, tally.skipped, tally.seconds
            );
        }
        if !self.skips.is_empty() {
            println!("\nskipped:");
        }
        for (reason, names) in &self.skips {
            match names.as_slice() {
                [name] => println!("  {name}: {reason}"),
                names => println!("  {} tests: {reason}", names.len()),
            }
        }
        let total = self.total();
        println!("\n{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    }
}
