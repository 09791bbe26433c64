//! 6: Nix knows of the builder by the chosen way in, and hands it a build of an ordinary user.

use anyhow::{Context, Result, ensure};

use crate::vm_test::machine::Machine;
use crate::vm_test::stage::{Sabotage, Stage};

/// The stage.
pub const STAGE: Stage = Stage {
    number: 6,
    name: "registration",
    purpose: "Nix sees the builder, by the way in that was chosen",
    needs: &[],
    limit: 240,
    run,
    across_reset: None,
    sabotage: Sabotage { what: "the settings are taken away from Nix", act: sabotage },
};

fn run(machine: &mut Machine) -> Result<()> {
    let findings = machine.doctor()?;
    for name in ["nix", "nix-configuration", "nix-build-hook", "nix-external-builders", "nix-front-ends"] {
        let Some(finding) = findings.iter().find(|finding| finding["name"] == name) else { continue };
        let detail = finding["detail"].as_str().unwrap_or_default();
        ensure!(finding["severity"] != "broken", "doctor: {name}: {detail}");
        machine.say(format!("{name}: {detail}"));
    }
    let build = machine.fixture("registered");
    let derivation = machine.instantiate(&build)?;
    let built = machine.build(&build, 120)?.succeeds()?;
    let name = derivation.file_name().context("no name")?.to_string_lossy().into_owned();
    let name = name.trim_end_matches(".drv");
    // A Nix with an external builder names the output, not the derivation.
    let fate = machine.fate("registered")?;
    ensure!(fate == "succeeded", "the builder says of {name}: {fate}");
    machine.say(format!("{} was built through the builder", built.output()?.display()));
    Ok(())
}

fn sabotage(machine: &mut Machine) -> Result<()> {
    machine.run(&mut machine.host_agent(&["nix-conf", "--remove"]), 60)?.must_succeed()?;
    let mut restart = machine.systemctl(&["restart", "nix-daemon.service"]).context("there is no systemd")?;
    machine.run(&mut restart, 60)?.must_succeed()?;
    Ok(())
}
