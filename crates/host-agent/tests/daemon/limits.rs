//! Each limit ends a build with its own reason.

use std::time::{Duration, Instant};

use host_agent::control::client::{BuildEvent, Place};
use host_agent::request::{BuildLimits, BuildOutcome, BuildPhase, Network, Publishing};
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

/// A file that takes hours to hash, and no time to make.
const HUGE: &str = "dd if=/dev/zero of=$out bs=1 count=1 seek=15000000000000 2>/dev/null";

#[test]
fn the_wall_clock_goes_on_while_outputs_are_published() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("max-jobs = 1");
    let mut request = daemon.request(&format!("{HUGE}; echo x > kept"));
    request.limits.wall = Some(Duration::from_secs(2));
    request.keep_failed = true;
    let started = Instant::now();
    let done = daemon.build(&request);
    assert_eq!(done.report.outcome, BuildOutcome::BuilderFailed(Exit::TimedOut));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(done.report.timings.publishing > Duration::from_millis(100), "{}", done.report.timings);
    assert!(done.report.kept.unwrap().as_path().join("kept").exists());
    // A copy is read as well.
    request.network = Network::Outside;
    assert_eq!(daemon.build(&request).report.outcome, BuildOutcome::BuilderFailed(Exit::TimedOut));
    // What is handed over is not read, so it is not late.
    request.publishing = Publishing::HandOver;
    request.network = Network::Loopback;
    assert!(matches!(daemon.build(&request).report.outcome, BuildOutcome::HandedOver(_)));
}

#[test]
fn a_build_that_is_cancelled_keeps_its_place_until_nothing_works_for_it_any_more() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("max-jobs = 1\nqueue-limit = 0");
    for network in [Network::Loopback, Network::Outside] {
        let mut request = daemon.request(HUGE);
        request.network = network;
        let mut client = daemon.submit(&request);
        while client.next_event().unwrap() != BuildEvent::Phase(BuildPhase::Publishing) {}
        std::thread::sleep(Duration::from_millis(300));
        assert!(matches!(daemon.connect().reserve().unwrap(), Place::Full(_)));
        drop(client);
        let started = Instant::now();
        let free = || matches!(daemon.connect().reserve().unwrap(), Place::Reserved { .. });
        daemon.eventually(Duration::from_secs(1), "place free", free);
        eprintln!("the place was free after {:?}", started.elapsed());
        // By then nothing of it is left.
        for name in ["results", "slots"] {
            let left = std::fs::read_dir(daemon.state().join(name)).unwrap().flatten();
            let outputs = left
                .filter(|entry| entry.path().join("store").join(request.outputs[0].path.as_str()).exists());
            assert_eq!(outputs.count(), 0, "{name}");
        }
    }
    assert_eq!(daemon.status().cancelled, 2);
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
