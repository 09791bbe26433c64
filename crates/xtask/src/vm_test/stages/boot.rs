//! 1: the service is up, its socket answers, and `doctor` finds nothing broken.

use anyhow::{Context, Result, ensure};

use crate::vm_test::machine::{Machine, SERVICE, SOCKET};
use crate::vm_test::stage::{Sabotage, Stage};

/// The stage.
pub const STAGE: Stage = Stage {
    number: 1,
    name: "boot",
    purpose: "the service is up, its socket answers, doctor finds nothing broken",
    needs: &[],
    limit: 240,
    run,
    across_reset: None,
    sabotage: Sabotage { what: "service and socket are stopped", act: sabotage },
};

fn run(machine: &mut Machine) -> Result<()> {
    match machine.systemctl(&["is-active", SOCKET]) {
        Some(mut command) => {
            let finished = machine.run(&mut command, 30)?;
            let state = String::from_utf8_lossy(&finished.stdout).trim().to_owned();
            ensure!(state == "active", "{SOCKET} is {state}");
            machine.say(format!("{SOCKET} is active"));
        }
        None => machine.note("no systemd here: units are not looked at"),
    }
    // The socket starts the service, if it does not run yet.
    machine.daemon_answers(120)?;
    if let Some(mut command) = machine.systemctl(&["is-active", SERVICE]) {
        let finished = machine.run(&mut command, 30)?;
        let state = String::from_utf8_lossy(&finished.stdout).trim().to_owned();
        ensure!(state == "active", "{SERVICE} is {state}, although the socket answers");
    }
    let status = machine.status()?;
    let guest = status["guest"].as_str().context("the status names no guest")?;
    ensure!(
        guest == machine.plan.guest.as_str(),
        "the guest is {guest}, not {}",
        machine.plan.guest.as_str()
    );
    machine.say(format!("the daemon answers: guest {guest}, {} jobs", status["max_jobs"]));

    let findings = machine.doctor()?;
    let mut broken = Vec::new();
    for finding in &findings {
        let [name, severity, detail] =
            ["name", "severity", "detail"].map(|key| finding[key].as_str().unwrap_or("?"));
        match severity {
            "fine" => {}
            "warning" => machine.note(format!("doctor warns: {name}: {detail}")),
            _ => broken.push(format!("{name}: {detail}")),
        }
    }
    ensure!(broken.is_empty(), "doctor finds broken:\n  {}", broken.join("\n  "));
    machine.say(format!("doctor has {} findings, none broken", findings.len()));
    Ok(())
}

fn sabotage(machine: &mut Machine) -> Result<()> {
    let mut stop = machine.systemctl(&["stop", SOCKET, SERVICE]).context("there is no systemd")?;
    machine.run(&mut stop, 60)?.must_succeed()?;
    Ok(())
}
