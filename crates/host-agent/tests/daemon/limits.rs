//! Each limit ends a build with its own reason.

use std::time::{Duration, Instant};

use host_agent::request::{BuildLimits, BuildOutcome};
use protocol::message::Exit;

use crate::harness::{Daemon, skipped};

#[test]
fn wall_clock_silence_and_log_size_end_a_build_each_with_its_reason() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let outcome = |script: &str, limits: BuildLimits| {
        let mut request = daemon.request(script);
        request.limits = limits;
        let started = Instant::now();
        let done = daemon.build(&request);
        assert!(started.elapsed() < Duration::from_secs(10));
        done
    };
    let second = Some(Duration::from_secs(1));
    let talkative = "while :; do echo still here; sleep 0.1; done";
    let done = outcome(talkative, BuildLimits { wall: second, ..BuildLimits::default() });
    assert_eq!(done.report.outcome, BuildOutcome::BuilderFailed(Exit::TimedOut));
    let done = outcome("echo once; sleep 100", BuildLimits { silence: second, ..BuildLimits::default() });
    assert_eq!(done.report.outcome, BuildOutcome::BuilderFailed(Exit::Silent));
    let done = outcome("yes", BuildLimits { log_bytes: Some(100_000), ..BuildLimits::default() });
    assert_eq!(done.report.outcome, BuildOutcome::BuilderFailed(Exit::LogLimit));
    assert_eq!(done.log.len(), 100_000);
    assert_eq!(daemon.sleepers(), 0);
}

#[test]
fn the_daemons_limits_apply_when_they_are_stricter() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("[limits]\nwall-seconds = 1");
    let outcome = daemon.build(&daemon.request("sleep 100")).report.outcome;
    assert_eq!(outcome, BuildOutcome::BuilderFailed(Exit::TimedOut));
    // One of its own: how long this takes is not what is asked.
    let daemon = Daemon::start("[limits]\noutput-bytes = 100000");
    let outcome = daemon
        .build(&daemon.request("mkdir $out; for i in 1 2 3; do head -c 60000 /dev/zero > $out/$i; done"));
    let BuildOutcome::OutputRejected { reason, .. } = outcome.report.outcome else { panic!() };
    assert!(reason.contains("100000"), "{reason}");
}

#[test]
fn a_single_file_beyond_the_limit_of_outputs_ends_the_build_and_the_limit_is_named() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("[limits]\noutput-bytes = 100000");
    let write = "head -c 300000 /dev/zero > $out";
    for (script, ends) in [
        (format!("exec {write}"), Exit::Signal(25)),
        (format!("set -e; {write}; echo went on"), Exit::Code(153)),
    ] {
        let done = daemon.build(&daemon.request(&script));
        assert_eq!(done.report.outcome, BuildOutcome::BuilderFailed(ends), "{:?}", done.notes);
        let [note] = &done.notes[..] else { panic!("{:?}", done.notes) };
        assert!(note.contains("100000 bytes") && note.contains("limits.output-bytes"), "{note}");
    }
    let done = daemon.build(&daemon.request("exit 1"));
    assert!(done.notes.is_empty(), "{:?}", done.notes);
}

#[test]
fn temporary_files_are_bounded() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("[limits]\ntmpfs-bytes = 16777216");
    let done = daemon.build(&daemon.request("head -c 20000000 /dev/zero > /tmp/big || echo full > $out"));
    assert!(matches!(done.report.outcome, BuildOutcome::Built(_)), "{:?}", done.report);
}

#[test]
fn a_reader_that_does_not_read_is_not_the_builders_silence() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let mut request = daemon.request("head -c 3000000 /dev/zero; echo done > $out");
    request.limits.silence = Some(Duration::from_secs(1));
    let client = daemon.submit(&request);
    std::thread::sleep(Duration::from_secs(3));
    let done = crate::harness::finish(client);
    assert!(matches!(done.report.outcome, BuildOutcome::Built(_)), "{:?}", done.report);
    assert_eq!(done.log.len(), 3_000_000);
}
