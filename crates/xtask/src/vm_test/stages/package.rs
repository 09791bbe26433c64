//! 12: a package is built from source, runs, and comes out the same when it is built again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::packages::{add, sources};
use crate::vm_test::machine::Machine;
use crate::vm_test::stage::{Need, Sabotage, Stage};
use crate::world::session::Build;

/// The stage.
pub const STAGE: Stage = Stage {
    number: 12,
    name: "package",
    purpose: "a package is built from source, runs, and is the same when it is built again",
    needs: &[Need::Darling, Need::PackageSources],
    limit: 480,
    run,
    across_reset: None,
    sabotage: Sabotage { what: "the package holds the time at which it was built", act: sabotage },
};

fn run(machine: &mut Machine) -> Result<()> {
    let toolchain = add_inputs(machine)?;
    let of = |machine: &Machine, attribute: &str| {
        machine.fixture(attribute).with(&["--argstr", "toolchain", &toolchain])
    };
    let package = of(machine, "package");
    let derivation = machine.instantiate(&package)?;
    machine.say("GNU make, then GNU which …");
    let built = machine.build(&package, 420)?.succeeds()?;
    let output = built.output()?.to_owned();
    machine.say(format!("{} after {:.0} s", output.display(), built.finished.wall.as_secs_f64()));

    let used = machine.build(&of(machine, "use-of-package"), 60)?.succeeds()?;
    let log = String::from_utf8_lossy(&used.finished.stderr).into_owned();
    let version = log.lines().find(|line| line.starts_with("GNU which"));
    machine.say(format!(
        "as an input of another build it runs: {}",
        version.context("it does not say its version")?
    ));
    compare(machine, &package, &derivation, &output, used.output()?)
}

/// Builds it again and compares: by `oracle` where this Nix can, else by deleting it first.
fn compare(
    machine: &mut Machine,
    package: &Build,
    derivation: &Path,
    output: &Path,
    used: &Path,
) -> Result<()> {
    let mut oracle = machine.host_agent(&["oracle", "--json"]);
    let judged = machine.run(oracle.arg(derivation), 300)?;
    let verdicts: Value = serde_json::from_slice(&judged.stdout)
        .with_context(|| format!("no verdict: {}", judged.describe()))?;
    let verdict = verdicts[0]["verdict"].as_str().unwrap_or_default();
    match verdict {
        "match" => {
            machine.say("oracle: built again, the same");
            return Ok(());
        }
        "not-compared" => machine.say("oracle can't compare with this Nix: deleted, and built once more"),
        other => anyhow::bail!("oracle says {other}: {verdicts:#}"),
    }
    let first = hash(machine, output)?;
    for path in [used, output] {
        machine.must(machine.user("nix-store")?.arg("--delete").arg(path))?;
    }
    ensure!(!output.exists(), "{} is still there", output.display());
    machine.build(package, 420)?.succeeds()?;
    let second = hash(machine, output)?;
    ensure!(first == second, "built again, {} is not the same: {first}, then {second}", output.display());
    machine.say(format!("the same: {second}"));
    Ok(())
}

fn hash(machine: &Machine, path: &Path) -> Result<String> {
    Ok(machine.nix_store(&["--query", "--hash"], path)?.join(""))
}

/// Adds compiler and sources to the store; returns the compiler's path.
fn add_inputs(machine: &Machine) -> Result<String> {
    let payload = machine.plan.payload.clone();
    let wanted = sources::wanted(&payload)?;
    for name in ["make", "which"] {
        let source = wanted.get(name).with_context(|| format!("sources.json has no {name}"))?;
        let file = payload.join("sources").join(&source.file);
        add(machine.root("nix-store"), &["--add-fixed", "sha256"], &file)?;
    }
    let compiler: PathBuf = payload.join("toolchain");
    let path = add(machine.root("nix-store"), &["--add"], &compiler)?;
    machine.say(format!("compiler: {path}"));
    Ok(path)
}

fn sabotage(machine: &mut Machine) -> Result<()> {
    machine.fault = "unfaithful";
    Ok(())
}
