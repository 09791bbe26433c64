//! 9: what a builder prints arrives while it runs, with its phases, and is stored whole.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::vm_test::machine::Machine;
use crate::vm_test::stage::{Sabotage, Stage};

/// The stage.
pub const STAGE: Stage = Stage {
    number: 9,
    name: "log",
    purpose: "lines arrive while the builder runs, phases are known, the stored log is whole",
    needs: &[],
    limit: 180,
    run,
    across_reset: None,
    sabotage: Sabotage { what: "the builder prints nothing", act: sabotage },
};

/// The builder sleeps for three seconds after its first lines: this long before its end they must be there.
const AHEAD: Duration = Duration::from_secs(2);
/// Lines after the sleep.
const LINES: usize = 500;

fn run(machine: &mut Machine) -> Result<()> {
    let build = machine.fixture("log").with(&["--log-format", "internal-json", "-v"]);
    let derivation = machine.instantiate(&machine.fixture("log"))?;
    let mut running = machine.start_build(&build)?;
    machine.wait_for(&mut running, "first line", 60)?;
    let first = Instant::now();
    let limit = machine.bound(90);
    let finished = running.finish(limit)?.must_succeed()?;
    let ahead = first.elapsed();
    ensure!(ahead >= AHEAD, "the first line came {ahead:.1?} before the end, {AHEAD:?} were expected");
    machine.say(format!("the first line arrived {ahead:.1?} before the end"));

    let stderr = String::from_utf8_lossy(&finished.stderr).into_owned();
    for phase in ["unpackPhase", "buildPhase"] {
        // Nix's own words for a phase: a result of type 104.
        let told = stderr.lines().any(|line| line.contains("\"type\":104") && line.contains(phase));
        ensure!(told, "Nix does not tell of the phase {phase}: {}", finished.describe());
    }
    machine.say("Nix tells the phases");

    let log = machine.stored_log(&derivation)?;
    let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with("@nix ")).collect();
    let mut expected = vec!["first line".to_owned(), "to stderr".to_owned()];
    expected.extend((0..LINES).map(|number| format!("line {number} of {LINES}")));
    expected.push("last line, without newline".to_owned());
    let differing = (0..expected.len().max(lines.len()))
        .find(|&n| lines.get(n).copied() != expected.get(n).map(String::as_str));
    if let Some(n) = differing {
        let [got, wanted] = [lines.get(n).copied(), expected.get(n).map(String::as_str)];
        anyhow::bail!("line {} of the stored log is {got:?}, expected {wanted:?}", n + 1);
    }
    machine.say(format!("the stored log has all {} lines", lines.len()));
    let mut nix_log = machine.user("nix")?;
    nix_log.args(["--extra-experimental-features", "nix-command", "log"]).arg(&derivation);
    let shown = machine.must(&mut nix_log)?;
    ensure!(shown.stdout == log.as_bytes(), "`nix log` shows something else: {}", shown.describe());
    Ok(())
}

fn sabotage(machine: &mut Machine) -> Result<()> {
    machine.fault = "quiet";
    Ok(())
}
