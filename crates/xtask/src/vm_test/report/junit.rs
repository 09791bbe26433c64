//! The report as JUnit XML, for continuous integration.

use std::time::Duration;

use anyhow::Result;
use quick_junit::{NonSuccessKind, Report as JUnit, TestCase, TestCaseStatus, TestSuite};

use super::{Report, Verdict};

impl Report {
    /// One suite, a test case a step.
    pub fn junit(&self) -> Result<String> {
        let mut suite = TestSuite::new(format!("vm-test.{}", self.backend));
        suite.set_time(Duration::from_secs_f64(self.seconds));
        suite.add_property(("guest", self.guest.as_str()));
        suite.add_property(("machine", self.machine.as_str()));
        for row in &self.rows {
            let status = match &row.verdict {
                Verdict::Passed(_) => TestCaseStatus::success(),
                Verdict::Failed(reason) => failure(NonSuccessKind::Failure, reason),
                Verdict::Skipped(reason) => {
                    let mut status = TestCaseStatus::skipped();
                    status.set_message(reason.as_str());
                    status
                }
            };
            let mut case = TestCase::new(row.step.title(), status);
            case.set_classname("vm-test").set_time(Duration::from_secs_f64(row.seconds));
            if let Verdict::Passed(notes) = &row.verdict
                && !notes.is_empty()
            {
                case.set_system_out(notes.join("\n"));
            }
            suite.add_test_case(case);
        }
        if let Some(reason) = &self.broken {
            let mut case = TestCase::new("machine", failure(NonSuccessKind::Error, reason));
            case.set_classname("vm-test");
            suite.add_test_case(case);
        }
        if let Some(journal) = &self.journal {
            suite.set_system_err(journal.as_str());
        }
        let mut report = JUnit::new("darling-builder vm-test");
        report.set_time(Duration::from_secs_f64(self.seconds));
        report.add_test_suite(suite);
        Ok(report.to_string()?)
    }
}

fn failure(kind: NonSuccessKind, reason: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(reason.lines().next().unwrap_or_default()).set_description(reason);
    status
}
