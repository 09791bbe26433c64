//! Format, lints and unit tests, each test counted as one.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::report::{Outcome, Report, Verdict};
use crate::progress;
use crate::workspace::{Workspace, cargo};

/// Runs them all.
pub fn run(workspace: &Workspace, report: &mut Report) -> Result<()> {
    progress("format, lints and unit tests …");
    check(report, "format", cargo(&workspace.project).args(["fmt", "--all", "--check"]))?;
    let lints = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    check(report, "lints", cargo(&workspace.project).args(lints))?;
    tests(report, "rust", cargo(&workspace.project).args(["test", "--workspace"]))
}

/// Runs what a hostile builder does inside Darling as well.
pub fn run_hostile_in_darling(workspace: &Workspace, group: &str, report: &mut Report) -> Result<()> {
    progress("hostile builds inside Darling …");
    let built = cargo(&workspace.project)
        .args(["build", "--quiet", "-p", "darwin-agent"])
        .status()
        .context("failed to run cargo")?;
    ensure!(built.success(), "cargo build failed");
    let mut command = cargo(&workspace.project);
    command.args(["test", "-p", "host-agent", "--test", "hostile"]);
    command.env("DARLING_BUILDER_TEST_AGENT", workspace.target.join("darwin/darwin-agent"));
    tests(report, group, &mut command)
}

fn check(report: &mut Report, name: &str, command: &mut Command) -> Result<()> {
    let started = Instant::now();
    let output = command.output().context("failed to run cargo")?;
    let verdict = match output.status.success() {
        true => Verdict::Passed,
        false => Verdict::Failed(
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat(),
        ),
    };
    report.add("rust", Outcome { name: name.into(), seconds: started.elapsed().as_secs_f64(), verdict });
    Ok(())
}

/// What a test that can't run here prints before it returns.
const SKIPPED: &str = "skipped: ";

/// Reads what the test harness prints; its lines carry no times. A test can't tell the harness that it was skipped, so it
/// says so in its output, which the harness shows at the end of each program's tests.
fn tests(report: &mut Report, group: &str, command: &mut Command) -> Result<()> {
    let mut child = command
        .args(["--no-fail-fast", "--color=never", "--", "--show-output"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to run cargo test")?;
    let stderr = child.stderr.take().context("no standard error")?;
    let stderr = std::thread::spawn(move || {
        let lines = BufReader::new(stderr).lines().map_while(Result::ok);
        lines.filter(|line| !line.trim_start().starts_with("Compiling")).collect::<Vec<_>>().join("\n")
    });
    let mut failures = String::new();
    let mut in_failures = false;
    let mut failed = 0;
    let mut finished: Vec<Outcome> = Vec::new();
    let mut speaking = String::new();
    let mut last = Instant::now();
    for line in BufReader::new(child.stdout.take().context("no standard output")?).lines() {
        let line = String::from_utf8_lossy(line?.as_bytes()).into_owned();
        in_failures = (in_failures || line == "failures:") && !line.starts_with("test result:");
        if in_failures {
            failures.push_str(&line);
            failures.push('\n');
        }
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            name.clone_into(&mut speaking);
        }
        if let Some(reason) = line.strip_prefix(SKIPPED)
            && let Some(test) = finished.iter_mut().find(|test| test.name == speaking)
            && matches!(test.verdict, Verdict::Passed)
        {
            test.verdict = Verdict::Skipped(reason.to_owned());
        }
        if line.starts_with("test result:") {
            finished.drain(..).for_each(|outcome| report.add(group, outcome));
        }
        let Some((name, result)) = line.strip_prefix("test ").and_then(|line| line.rsplit_once(" ... "))
        else {
            continue;
        };
        let verdict = match result {
            "ok" => Verdict::Passed,
            result if result.starts_with("ignored") => Verdict::Skipped("marked as ignored".into()),
            _ => {
                failed += 1;
                Verdict::Failed("see the harness's output below".into())
            }
        };
        finished.push(Outcome { name: name.into(), seconds: last.elapsed().as_secs_f64(), verdict });
        last = Instant::now();
    }
    // Those of a program that died before its last line.
    finished.into_iter().for_each(|outcome| report.add(group, outcome));
    let succeeded = child.wait()?.success();
    let stderr = stderr.join().unwrap_or_default();
    if !succeeded {
        let text = if failed > 0 { failures } else { stderr };
        report
            .add(group, Outcome { name: "cargo test".into(), seconds: 0.0, verdict: Verdict::Failed(text) });
    }
    Ok(())
}
