//! 11: agent, Darling's server, the daemon or the whole machine dies during a build: it is told, nothing is left, and the
//! next build works.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::vm_test::machine::{Machine, SERVICE};
use crate::vm_test::stage::{AcrossReset, Sabotage, Stage};
use crate::world::Guest;
use crate::world::limited::{Finished, Running};

/// The stage.
pub const STAGE: Stage = Stage {
    number: 11,
    name: "recovery",
    purpose: "agent, Darling's server, daemon or machine die during a build: it is told, and the next build works",
    needs: &[],
    limit: 300,
    run,
    across_reset: Some(AcrossReset { before, after }),
    sabotage: Sabotage { what: "the daemon can't start again", act: sabotage },
};

fn run(machine: &mut Machine) -> Result<()> {
    slot_dies(machine, "agent", "darwin-agent", "the agent")?;
    match machine.plan.guest {
        Guest::Darling => {
            slot_dies(machine, "server", "darlingserver", "Darling's server")?;
            slot_dies(machine, "launchd", "launchd", "Darling's launchd")?;
        }
        Guest::Linux => machine.note("Darling's server is not killed: the stand-in guest has none"),
    }
    daemon_dies(machine)
}

/// Begins a build, and returns when its builder runs.
fn begin(machine: &Machine, victim: &str) -> Result<Running> {
    let build = machine.fixture("long").with(&["--argstr", "after", victim]);
    let mut running = machine.start_build(&build)?;
    machine.wait_for(&mut running, "the builder runs", 60)?;
    Ok(running)
}

/// Kills a process of the slot that builds. Spare slots have the same processes, and no builder.
fn slot_dies(machine: &mut Machine, victim: &str, program: &str, reason: &str) -> Result<()> {
    let running = begin(machine, victim)?;
    let slots = machine.slots_of("sleep 7377")?;
    let [uid] = slots[..] else { bail!("one slot should run `sleep 7377`, not {slots:?}") };
    let processes = machine.slot_processes()?;
    let named = |line: &str| {
        line.split(' ')
            .next()
            .is_some_and(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with(program)))
    };
    let found: Vec<_> =
        processes.iter().filter(|process| process.uid == uid && named(&process.line)).collect();
    // The stand-in's agent may be two: itself and what it has forked.
    let process = found.first().with_context(|| format!("no {program} among {processes:#?}"))?;
    kill(Pid::from_raw(process.pid), Signal::SIGKILL)?;
    let finished = running.finish(machine.bound(60))?;
    told(machine, victim, &finished, reason)?;
    machine.nothing_runs(20)?;
    machine.next_build_works(victim)
}

/// SIGKILL of the daemon takes every slot along; systemd starts another one.
fn daemon_dies(machine: &mut Machine) -> Result<()> {
    let Some(mut show) = machine.systemctl(&["show", "--property=MainPID", "--value", SERVICE]) else {
        machine.note("the daemon is not killed: no systemd would start it again");
        return Ok(());
    };
    let running = begin(machine, "service")?;
    let pid = String::from_utf8(machine.must(&mut show)?.stdout)?;
    let pid: i32 = pid.trim().parse().with_context(|| format!("{SERVICE} has no process: {pid}"))?;
    ensure!(pid > 1, "{SERVICE} does not run");
    let before: Vec<_> = machine.slot_processes()?.iter().map(|process| process.pid).collect();
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    let gone = || Ok(!machine.slot_processes()?.iter().any(|process| before.contains(&process.pid)));
    machine.wait(20, "every process of the slots is gone with the daemon", gone)?;
    let finished = running.finish(machine.bound(120))?;
    told(machine, "service", &finished, "daemon")?;
    machine.daemon_answers(60)?;
    machine.nothing_runs(20)?;
    machine.next_build_works("service")
}

/// An error unless the build failed and said so.
fn told(machine: &Machine, victim: &str, finished: &Finished, reason: &str) -> Result<()> {
    let failed = !finished.timed_out && !finished.status.success();
    ensure!(failed, "the build should fail when the {victim} dies: {}", finished.describe());
    let stderr = String::from_utf8_lossy(&finished.stderr);
    let line = stderr.lines().find(|line| line.contains(reason));
    let line = line.with_context(|| format!("no word of {reason:?}: {}", finished.describe()))?;
    machine.say(format!("{victim} killed: {}", line.trim()));
    Ok(())
}

/// Begins a build that does not end before the machine does.
fn before(machine: &mut Machine) -> Result<String> {
    let build = machine.fixture("interrupted");
    let derivation = machine.instantiate(&build)?;
    let mut running = machine.start_build(&build)?;
    machine.wait_for(&mut running, "the builder runs", 60)?;
    // It is to outlive this process, not to be killed with it.
    std::mem::forget(running);
    machine.say("a build runs; the machine is reset");
    Ok(derivation.display().to_string())
}

fn after(machine: &mut Machine, derivation: &str) -> Result<()> {
    machine.daemon_answers(120)?;
    let outputs = machine.nix_store(&["--query", "--outputs"], Path::new(derivation))?;
    for output in &outputs {
        let valid = machine.run(machine.user("nix-store")?.args(["--check-validity", output]), 60)?;
        ensure!(
            !valid.status.success(),
            "{output} is valid, although the machine was reset while it was built"
        );
    }
    machine.nothing_runs(20)?;
    // The same one, in whose way something could be.
    let built = machine.build(&machine.fixture("interrupted"), 120)?.succeeds()?;
    let text = fs::read_to_string(built.output()?.join("file"))?;
    ensure!(text == "whole\n", "{} holds {text:?}", built.output()?.display());
    machine.say("after the reset the daemon answers, and the interrupted build works");
    Ok(())
}

fn sabotage(machine: &mut Machine) -> Result<()> {
    let directory = Path::new("/run/systemd/system").join(format!("{SERVICE}.d"));
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("broken.conf"), "[Service]\nExecStartPre=/bin/false\n")?;
    let mut reload = machine.systemctl(&["daemon-reload"]).context("there is no systemd")?;
    machine.must(&mut reload)?;
    Ok(())
}
