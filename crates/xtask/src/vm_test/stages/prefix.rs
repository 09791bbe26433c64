//! 3: Darling boots, says that it is Darwin, and sees the slot's root and nothing else.

use anyhow::{Result, ensure};

use crate::vm_test::machine::Machine;
use crate::vm_test::stage::{Need, Sabotage, Stage};

/// The stage.
pub const STAGE: Stage = Stage {
    number: 3,
    name: "prefix",
    purpose: "Darling boots, uname says Darwin, /Volumes/SystemRoot is the slot's root",
    needs: &[Need::Darling],
    limit: 120,
    run,
    across_reset: None,
    sabotage: Sabotage {
        what: "the configuration names a program that is not Darling as its launcher",
        act: sabotage,
    },
};

/// What a slot's root may hold.
const ROOT: &[&str] = &[
    "Volumes", "bin", "build", "dev", "etc", "lib", "lib32", "lib64", "libx32", "nix", "proc", "run", "sbin",
    "tmp", "usr", "var",
];

fn run(machine: &mut Machine) -> Result<()> {
    let finished =
        machine.run(&mut machine.host_agent(&["shell", "--", "uname", "-srm"]), 60)?.must_succeed()?;
    let system = String::from_utf8_lossy(&finished.stdout).trim().to_owned();
    machine.say(format!("uname: {system}"));
    ensure!(system.starts_with("Darwin ") && system.ends_with(" x86_64"), "uname says {system:?}");

    let list =
        machine.run(&mut machine.host_agent(&["shell", "--", "ls", "-1", "/Volumes/SystemRoot"]), 60)?;
    let list = String::from_utf8(list.must_succeed()?.stdout)?;
    let foreign: Vec<_> = list.lines().filter(|name| !ROOT.contains(name)).collect();
    ensure!(foreign.is_empty(), "/Volumes/SystemRoot shows {foreign:?}");
    for name in ["nix", "build"] {
        ensure!(list.lines().any(|line| line == name), "/Volumes/SystemRoot has no {name}: {list}");
    }
    machine.say(format!("/Volumes/SystemRoot: {}", list.split_whitespace().collect::<Vec<_>>().join(" ")));

    let mut booted = Vec::new();
    machine.wait(60, "a spare slot has booted", || {
        booted =
            machine.status()?["slots"].as_array().into_iter().flatten().filter_map(milliseconds).collect();
        Ok(!booted.is_empty())
    })?;
    machine.say(format!("slots booted in {booted:?} ms"));
    Ok(())
}

/// How long a slot took to boot.
fn milliseconds(slot: &serde_json::Value) -> Option<u64> {
    let boot = &slot["boot"];
    Some(boot["secs"].as_u64()? * 1000 + boot["nanos"].as_u64()? / 1_000_000)
}

fn sabotage(machine: &mut Machine) -> Result<()> {
    machine.configure_wrongly("darling", "launcher", "/bin/false")
}
