//! Real Darling: its faults, and that they are repaired from outside.

use std::time::{Duration, Instant};

use host_agent::control::client::BuildEvent;
use host_agent::request::{BuildOutcome, BuildPhase};
use protocol::message::Exit;

use crate::harness::{Daemon, darling, finish, skipped};

/// Says why a test of real Darling is skipped, if it must be.
pub fn darling_is_missing() -> bool {
    if skipped() {
        return true;
    }
    if !darling() {
        eprintln!("skipped: no Darling (DARLING_BUILDER_TEST_AGENT names no Mach-O agent)");
    }
    !darling()
}

/// What can kill a child of a script, without killing the script.
const FIVE_DEATHS: &str = "sleep 30 & kill $!; wait $!; echo term $?
bash -c 'kill -SEGV $$'; echo segv $?
bash -c 'kill -TERM $$'; echo term $?
bash -c 'kill -ABRT $$'; echo abort $?
(sleep 30 | cat) & sleep 0.2; kill $!; wait $!; echo pipeline $?
echo > $out; echo went on";

#[test]
fn a_child_killed_by_a_signal_does_not_take_its_script_along() {
    if darling_is_missing() {
        return;
    }
    let daemon = Daemon::start("");
    let done = daemon.build(&daemon.request(FIVE_DEATHS));
    let log = String::from_utf8_lossy(&done.log).into_owned();
    let told: Vec<&str> =
        log.lines().filter(|line| line.split(' ').count() == 2 && !line.contains(':')).collect();
    assert_eq!(told, ["term 143", "segv 139", "term 143", "abort 134", "pipeline 143", "went on"], "{log}");
    assert!(matches!(done.report.outcome, BuildOutcome::Built(_)), "{:?}", done.report);
}

#[test]
fn without_the_signal_repair_the_script_dies_with_its_first_child() {
    if darling_is_missing() {
        return;
    }
    let daemon = Daemon::start("[darling]\nsignal-repair = false");
    let done = daemon.build(&daemon.request(FIVE_DEATHS));
    let log = String::from_utf8_lossy(&done.log).into_owned();
    assert!(!log.contains("went on"), "Darling no longer has this fault: {log}");
    assert!(matches!(done.report.outcome, BuildOutcome::BuilderFailed(_)), "{:?}", done.report);
}

#[test]
fn a_signal_that_is_meant_for_the_group_reaches_the_group() {
    if darling_is_missing() {
        return;
    }
    let daemon = Daemon::start("");
    let done = daemon.build(&daemon.request("sleep 30 & bash -c 'kill -TERM 0; sleep 30'; echo went on"));
    assert_eq!(done.report.outcome, BuildOutcome::BuilderFailed(Exit::Signal(15)));
    assert_eq!(done.log, b"");
    assert!(done.report.timings.building < Duration::from_secs(10));
}

#[test]
fn slots_boot_every_time_and_quickly() {
    if darling_is_missing() {
        return;
    }
    let boots = std::env::var("DARLING_BUILDER_TEST_BOOTS").map_or(5, |boots| boots.parse().unwrap());
    let daemon = Daemon::start("max-jobs = 1\nwarm-slots = 1");
    let mut times: Vec<Duration> = Vec::new();
    while times.len() < boots {
        daemon.eventually(crate::harness::LIMIT, "spare slot", || {
            daemon.status().slots.iter().any(|slot| slot.state == "warm")
        });
        let status = daemon.status();
        let spare = status.slots.iter().find(|slot| slot.state == "warm").unwrap();
        times.push(spare.boot.unwrap());
        let done = daemon.build(&daemon.request("echo > $out"));
        assert!(matches!(done.report.outcome, BuildOutcome::Built(_)), "{:?}", done.report);
        assert!(done.report.timings.booting < Duration::from_millis(20), "{:?}", done.report.timings);
    }
    times.sort_unstable();
    eprintln!(
        "{boots} boots: {:?} median, {:?} fastest, {:?} slowest",
        times[times.len() / 2],
        times[0],
        times[times.len() - 1]
    );
    assert!(times[times.len() - 1] < Duration::from_secs(15));
}

#[test]
fn what_died_is_named_and_the_next_build_works() {
    if darling_is_missing() {
        return;
    }
    let daemon = Daemon::start("max-jobs = 1\nwarm-slots = 0");
    for (victim, reason) in [
        ("darlingserver", "Darling's server"),
        ("launchd", "Darling's launchd"),
        ("darwin-agent", "the agent"),
    ] {
        let mut client = daemon.submit(&daemon.request("sleep 100"));
        while client.next_event().unwrap() != BuildEvent::Phase(BuildPhase::Building) {}
        daemon.eventually(crate::harness::LIMIT, "builder running", || daemon.sleepers() >= 1);
        let found = daemon.slot_processes();
        let found: Vec<_> = found
            .iter()
            .filter(|(_, command)| {
                command
                    .split(' ')
                    .next()
                    .is_some_and(|program| program.rsplit('/').next().unwrap().starts_with(victim))
            })
            .collect();
        let [(pid, _)] = found[..] else { panic!("{victim}: {:?}", daemon.slot_processes()) };
        let killed = Instant::now();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::SIGKILL).unwrap();
        let BuildOutcome::Infrastructure(told) = finish(client).report.outcome else { panic!() };
        assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
        assert!(told.contains(reason), "{victim}: {told}");
        eprintln!("{victim}: {:?}: {}", killed.elapsed(), told.lines().next().unwrap());
        let done = daemon.build(&daemon.request("echo > $out"));
        assert!(matches!(done.report.outcome, BuildOutcome::Built(_)), "{:?}", done.report);
    }
}
