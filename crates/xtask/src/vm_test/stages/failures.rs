//! 10: each way in which a builder fails is told with its true reason, and leaves nothing behind.

use anyhow::{Context, Result, ensure};

use crate::vm_test::machine::Machine;
use crate::vm_test::stage::{Sabotage, Stage};

/// The stage.
pub const STAGE: Stage = Stage {
    number: 10,
    name: "failures",
    purpose: "exit code, signal, silence, wall clock, missing output, wrong hash: each is told as what it is",
    needs: &[],
    limit: 300,
    run,
    across_reset: None,
    sabotage: Sabotage { what: "the builder that should fail succeeds", act: sabotage },
};

/// Attribute, options for Nix, words of the reason.
const FAILURES: &[(&str, &[&str], &str)] = &[
    ("exit-7", &[], "failed with exit code 7"),
    ("killed", &[], "signal 9"),
    ("crashed", &[], "signal 11"),
    ("silent", &["--max-silent-time", "3"], "timed out after 3 seconds of silence"),
    ("endless", &["--timeout", "4"], "timed out after 4 seconds"),
    ("no-output", &[], "failed to produce output path"),
    ("wrong-hash", &[], "hash mismatch in fixed-output derivation"),
];

fn run(machine: &mut Machine) -> Result<()> {
    for (attribute, options, reason) in FAILURES {
        let build = machine.fixture(attribute);
        let built = machine.build(&build.clone().with(options), 90)?;
        let built = built.fails().with_context(|| format!("{attribute} should fail"))?;
        let told = String::from_utf8_lossy(&built.finished.stderr).into_owned();
        // Nix itself words silence without the word.
        let short = reason.trim_end_matches(" of silence");
        ensure!(
            told.contains(short),
            "{attribute} should fail with {reason:?}: {}",
            built.finished.describe()
        );
        let line = told.lines().find(|line| line.contains(short)).unwrap_or_default();
        machine.say(format!("{attribute}: {}", line.trim()));
        for output in machine.nix_store(&["--query", "--outputs"], &machine.instantiate(&build)?)? {
            let valid = machine.run(machine.user("nix-store")?.args(["--check-validity", &output]), 60)?;
            ensure!(!valid.status.success(), "{attribute} failed, and its output {output} is valid");
        }
    }
    machine.nothing_runs(20)?;
    machine.next_build_works("failures")
}

fn sabotage(machine: &mut Machine) -> Result<()> {
    machine.fault = "success";
    Ok(())
}
