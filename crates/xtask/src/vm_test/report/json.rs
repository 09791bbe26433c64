//! The report for programs.

use serde_json::{Value, json};

use super::{Report, Row, Verdict};
use crate::vm_test::event::Step;

impl Report {
    /// Names stay; new ones may be added.
    pub fn json(&self) -> Value {
        json!({
            "backend": self.backend,
            "chosen-because": self.chosen_because,
            "guest": self.guest,
            "machine": self.machine,
            "seconds": self.seconds,
            "succeeded": self.succeeded(),
            "broken": self.broken,
            "steps": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

fn row(row: &Row) -> Value {
    let number = match row.step {
        Step::Stage(number) => Some(number),
        Step::Install | Step::Uninstall => None,
    };
    let (reason, notes) = match &row.verdict {
        Verdict::Passed(notes) => (None, notes.as_slice()),
        Verdict::Failed(reason) | Verdict::Skipped(reason) => (Some(reason), [].as_slice()),
    };
    json!({
        "number": number,
        "name": row.step.name(),
        "verdict": row.verdict.word(),
        "seconds": row.seconds,
        "reason": reason,
        "notes": notes,
    })
}
