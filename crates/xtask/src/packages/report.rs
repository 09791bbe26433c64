//! The table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::log::{Category, DONE, Log, Phase, Tests};

/// What became of a derivation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether it was built.
    pub built: bool,
    /// Whether it works as the input of another derivation; not tried if it was not built.
    pub used: bool,
    /// Seconds that nix-build took for it.
    pub seconds: u64,
    /// Its phases.
    pub phases: Vec<Phase>,
    /// Its tests.
    pub tests: Option<Tests>,
    /// System calls that Darling said it lacks.
    pub unimplemented: usize,
    /// What went wrong first.
    pub error: Option<(String, Category)>,
    /// The log's file name.
    pub log: String,
}

impl Outcome {
    /// From a log and how nix-build ended.
    pub fn new(log: &Log, built: bool, seconds: u64, file: String) -> Self {
        Self {
            built,
            used: false,
            seconds,
            phases: log.phases.clone(),
            tests: log.tests.clone(),
            unimplemented: log.unimplemented,
            error: (!built).then(|| log.first_error()),
            log: file,
        }
    }

    fn row(&self, name: &str) -> String {
        let result = match (self.built, self.used) {
            (true, true) => "pass",
            (true, false) => "built, unusable",
            _ => "fail",
        };
        let phase = self.phases.last().map_or("start", |phase| phase.name.as_str());
        let times: Vec<_> = self
            .phases
            .windows(2)
            .map(|pair| format!("{} {}", pair[0].name, pair[1].at.saturating_sub(pair[0].at)))
            .collect();
        let tests = match &self.tests {
            None => "not run".to_owned(),
            Some(tests) => {
                let mut text = format!("{} pass, {} skipped", tests.passed, tests.skipped);
                if !tests.failed.is_empty() {
                    let _ = write!(text, ", {} fail: {}", tests.failed.len(), tests.failed.join(" "));
                }
                text
            }
        };
        let (error, category) = match &self.error {
            None => (String::new(), String::new()),
            Some((error, category)) => (error.replace('|', "\\|"), category.to_string()),
        };
        format!(
            "| {name} | {result} | {phase} | {} s | {} | {tests} | {error} | {category} | logs/{} |\n",
            self.seconds,
            times.join(", "),
            self.log
        )
    }
}

/// Outcomes of this and earlier runs, by derivation, kept in a file.
#[derive(Debug)]
pub struct Outcomes {
    file: PathBuf,
    by_derivation: BTreeMap<PathBuf, Outcome>,
}

impl Outcomes {
    /// Reads the file, if there is one.
    pub fn load(file: PathBuf) -> Self {
        let text = fs::read(&file).unwrap_or_default();
        let by_derivation = serde_json::from_slice(&text).unwrap_or_default();
        Self { file, by_derivation }
    }

    /// The outcome of this derivation, if it was built before.
    pub fn get(&self, derivation: &Path) -> Option<&Outcome> {
        self.by_derivation.get(derivation)
    }

    /// Remembers an outcome.
    pub fn put(&mut self, derivation: &Path, outcome: Outcome) -> Result<()> {
        self.by_derivation.insert(derivation.to_owned(), outcome);
        let text = serde_json::to_vec_pretty(&self.by_derivation)?;
        fs::write(&self.file, text).with_context(|| format!("failed to write {}", self.file.display()))
    }
}

/// The table in Markdown; logs are named as seen from it.
pub fn table(rows: &[(String, Outcome)]) -> String {
    let mut text = String::from(
        "| package | result | last phase | time | phases, s | make check | first error | category | log |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (name, outcome) in rows {
        text.push_str(&outcome.row(name));
    }
    let passed = rows.iter().filter(|(_, outcome)| outcome.built && outcome.used).count();
    let _ = writeln!(text, "\n{passed} of {} pass.", rows.len());
    text
}

/// Whether every phase came to its end.
pub fn complete(outcome: &Outcome) -> bool {
    outcome.built && outcome.used && outcome.phases.last().is_some_and(|phase| phase.name == DONE)
}
