//! Slots that hang: what is told of them, and when a build is tried once more.

use std::time::Duration;

use host_agent::control::client::BuildEvent;
use host_agent::request::{BuildLimits, BuildOutcome, BuildPhase};
use protocol::message::Exit;

use crate::harness::{Daemon, darling, finish, skipped};

#[test]
fn a_build_that_hangs_leaves_a_report_of_what_its_processes_were_doing() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let mut request = daemon.request("echo once; sleep 77 | cat; echo > $out");
    request.limits = BuildLimits { silence: Some(Duration::from_secs(1)), ..BuildLimits::default() };
    let done = daemon.build(&request);
    assert_eq!(done.report.outcome, BuildOutcome::BuilderFailed(Exit::Silent));
    assert_eq!(done.log, b"once\n");
    let notes = done.notes.join("\n");
    assert!(notes.starts_with("in the slot when it was given up"), "{notes}");
    assert!(notes.contains("  sleep 77\n"), "{notes}");
    assert!(
        notes.contains(if darling() { "the timer of Darling's server is armed" } else { "nanosleep" }),
        "{notes}"
    );
    assert!(done.notes.len() < 40);
    eprintln!("{notes}");
}

#[test]
fn a_build_that_succeeds_or_fails_by_itself_has_no_report() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    for script in ["echo > $out", "exit 3"] {
        assert_eq!(daemon.build(&daemon.request(script)).notes, Vec::<String>::new());
    }
}

fn stall_first_attempt(daemon: &Daemon, script: &str) -> host_agent::control::client::Client {
    let mut client = daemon.submit(&daemon.request(script));
    while client.next_event().unwrap() != BuildEvent::Phase(BuildPhase::Building) {}
    daemon.stall();
    client
}

#[test]
fn a_stalled_build_is_run_once_more_in_a_fresh_slot_and_its_log_says_so() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("max-jobs = 1\nwarm-slots = 0");
    let script = "test ! -e /build/trace || echo not fresh; touch /build/trace $out; sleep 2";
    let done = finish(stall_first_attempt(&daemon, script));
    assert!(matches!(done.report.outcome, BuildOutcome::Built(_)), "{:?}", done.report);
    assert_eq!(done.log, b"");
    let last = done.notes.last().unwrap();
    assert!(last.contains("time stands still") && last.contains("starts again in a fresh slot"), "{last}");
    assert!(done.notes[0].starts_with("in the slot when it was given up"), "{:?}", done.notes);
}

#[test]
fn a_stalled_build_fails_when_it_is_not_to_be_retried() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("max-jobs = 1\nwarm-slots = 0\nretry-stalled = false");
    let done = finish(stall_first_attempt(&daemon, "sleep 100"));
    let BuildOutcome::Infrastructure(reason) = done.report.outcome else { panic!() };
    assert!(reason.contains("time stands still"), "{reason}");
}

#[test]
fn spare_slots_are_dropped_when_no_build_comes_and_booted_again_after_the_next() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("max-jobs = 1\nwarm-slots = 1\nidle-timeout-seconds = 2");
    let spare = || daemon.status().slots.iter().filter(|slot| slot.state == "warm").count();
    assert_eq!(spare(), 1);
    daemon.eventually(Duration::from_secs(10), "spare slot dropped", || daemon.status().slots.is_empty());
    assert_eq!(daemon.slot_processes(), []);
    let done = daemon.build(&daemon.request("echo > $out"));
    assert!(matches!(done.report.outcome, BuildOutcome::Built(_)), "{:?}", done.report);
    daemon.eventually(crate::harness::LIMIT, "spare slot", || spare() == 1);
}
