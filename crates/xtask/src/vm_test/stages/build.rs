//! 8: a derivation is built by the builder; its outputs are valid and refer to what they should. Then the guide's own commands.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::vm_test::machine::Machine;
use crate::vm_test::stage::{Sabotage, Stage};

/// The stage.
pub const STAGE: Stage = Stage {
    number: 8,
    name: "build",
    purpose: "a derivation is built by the builder, its outputs are valid, their references right; the guide's commands work",
    needs: &[],
    limit: 300,
    run,
    across_reset: None,
    sabotage: Sabotage { what: "the builder leaves out a reference", act: sabotage },
};

fn run(machine: &mut Machine) -> Result<()> {
    let build = machine.fixture("trivial");
    let derivation = machine.instantiate(&build)?;
    machine.build(&build, 120)?.succeeds()?;
    let fate = machine.fate("trivial")?;
    ensure!(fate == "succeeded", "the builder says: {fate}");

    let outputs = machine.nix_store(&["--query", "--outputs"], &derivation)?;
    let named = |end: &str| {
        let found = outputs.iter().find(|path| path.ends_with(end));
        found.with_context(|| format!("no output {end} among {outputs:?}"))
    };
    let (out, doc) = (named(&machine.token)?, named("-doc")?);
    for output in [out, doc] {
        // Reads all of it again, and compares it with what was registered.
        machine.run(machine.root("nix-store").arg("--verify-path").arg(output), 60)?.must_succeed()?;
        let deriver = machine.nix_store(&["--query", "--deriver"], Path::new(output))?;
        ensure!(
            deriver.iter().any(|path| Path::new(path) == derivation),
            "{output} says it is from {deriver:?}"
        );
    }
    machine.say(format!("valid: {out}, {doc}"));

    let input = machine.fixture("input");
    let input = machine.nix_store(&["--query", "--outputs"], &machine.instantiate(&input)?)?;
    let references = |path: &str| -> Result<BTreeSet<String>> {
        Ok(machine.nix_store(&["--query", "--references"], Path::new(path))?.into_iter().collect())
    };
    let (of_out, of_doc) = (references(out)?, references(doc)?);
    ensure!(of_out.iter().eq(&input), "{out} should refer to {input:?}, and refers to {of_out:?}");
    ensure!(of_doc.iter().eq([out]), "{doc} should refer to {out}, and refers to {of_doc:?}");
    machine.say("references are right");
    machine.follow_the_guide()
}

fn sabotage(machine: &mut Machine) -> Result<()> {
    machine.fault = "reference";
    Ok(())
}
