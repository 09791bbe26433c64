//! Real Darling for longer: timers under load, thousands of commands, hundreds of builds.
//!
//! The long runs are ignored by default; `DARLING_BUILDER_TEST_SECONDS`, `…_COMMANDS` and `…_BUILDS` set how long they are. A
//! short one of each runs whenever there is Darling.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use host_agent::control::client::BuildEvent;
use host_agent::request::{BuildLimits, BuildOutcome, BuildReport};
use protocol::message::Exit;

use crate::darling::darling_is_missing;
use crate::harness::{Daemon, finish};

/// From the environment, else `default`.
fn amount(name: &str, default: u32) -> u32 {
    std::env::var(format!("DARLING_BUILDER_TEST_{name}")).map_or(default, |amount| amount.parse().unwrap())
}

/// What provokes lost timers: two loops that fork, beside three sleepers that print their letter after each short sleep.
/// `sleep` it must be: select and poll with a timeout are Linux's own in Darling and never lost.
const LOAD: &str = "load() { while :; do ( sleep 0.01 & true | cat >/dev/null; wait ); done; }
sleeper() { while :; do sleep 0.01; echo $1; done; }
load 2>/dev/null & load 2>/dev/null & sleeper a & sleeper b & sleeper c & wait";

/// What came of the sleepers.
struct Sleepers {
    sleeps: u64,
    /// Longest time between two letters of one of them: a sleep, and a process that makes it.
    longest: Duration,
    survived: Duration,
    report: BuildReport,
    notes: Vec<String>,
}

fn run_sleepers(config: &str, time: Duration) -> Sleepers {
    let daemon = Daemon::start(&format!("max-jobs = 1\nwarm-slots = 0\nretry-stalled = false\n{config}"));
    let mut request = daemon.request(LOAD);
    // No word from any of the three: they are as good as dead.
    request.limits =
        BuildLimits { wall: Some(time), silence: Some(Duration::from_secs(15)), ..BuildLimits::default() };
    let mut client = daemon.submit(&request);
    let started = Instant::now();
    let mut last: BTreeMap<u8, Instant> = BTreeMap::new();
    let (mut sleeps, mut longest, mut notes) = (0, Duration::ZERO, Vec::new());
    loop {
        match client.next_event().unwrap() {
            BuildEvent::Output(bytes) => {
                for letter in bytes.into_iter().filter(|byte| matches!(byte, b'a'..=b'c')) {
                    sleeps += 1;
                    if let Some(before) = last.insert(letter, Instant::now()) {
                        longest = longest.max(before.elapsed());
                    }
                }
            }
            BuildEvent::Finished(report) => {
                // The report of a stuck slot took a moment.
                let ended = report.timings.building;
                if !matches!(report.outcome, BuildOutcome::BuilderFailed(Exit::TimedOut)) {
                    longest = longest.max(Duration::from_secs(15));
                }
                eprintln!(
                    "{sleeps} sleeps of 10 ms in {ended:?}, longest {longest:?}; {:?}; tick or not: {config:?}",
                    report.outcome
                );
                return Sleepers { sleeps, longest, survived: started.elapsed(), report: *report, notes };
            }
            BuildEvent::Note(line) => notes.push(line),
            BuildEvent::Phase(_) => {}
        }
    }
}

fn sleepers_survive(seconds: u32) {
    let time = Duration::from_secs(u64::from(seconds));
    let done = run_sleepers("", time);
    assert_eq!(done.report.outcome, BuildOutcome::BuilderFailed(Exit::TimedOut), "{:?}", done.notes);
    assert!(done.survived >= time);
    // Each takes some 30 ms to start on an idle machine, and any number of times that on a busy one.
    assert!(done.sleeps > u64::from(seconds), "{} sleeps", done.sleeps);
    // A lost timer is late by minutes; a loaded machine by less than this.
    let allowed = Duration::from_millis(u64::from(amount("LATE_MILLIS", 5000)));
    assert!(done.longest < allowed, "{:?}", done.longest);
}

#[test]
fn sleepers_survive_load_for_a_moment() {
    if darling_is_missing() {
        return;
    }
    sleepers_survive(15);
}

#[test]
#[ignore = "ten minutes; DARLING_BUILDER_TEST_SECONDS sets how long"]
fn sleepers_survive_load_for_ten_minutes() {
    if !darling_is_missing() {
        sleepers_survive(amount("SECONDS", 600));
    }
}

#[test]
#[ignore = "until timers are lost, ten minutes at most; DARLING_BUILDER_TEST_SECONDS sets how long"]
fn without_the_tick_all_sleepers_are_lost() {
    if darling_is_missing() {
        return;
    }
    let seconds = u64::from(amount("SECONDS", 600));
    let done = run_sleepers("[darling]\ntick = false", Duration::from_secs(seconds));
    eprintln!("{}", done.notes.join("\n"));
    assert_eq!(
        done.report.outcome,
        BuildOutcome::BuilderFailed(Exit::Silent),
        "Darling no longer has this fault, or needs longer to show it"
    );
    assert!(done.notes.iter().any(|line| line.contains("is not armed")), "{:?}", done.notes);
}

fn commands_are_told_apart(count: u32) {
    let daemon = Daemon::start("max-jobs = 1\nwarm-slots = 0");
    let script = format!(
        "i=0; bad=0; while [ $i -lt {count} ]; do /bin/sh -c \"exit $((i % 200))\"; [ $? = $((i % 200)) ] || bad=$((bad+1)); \
         i=$((i+1)); done; echo $i commands, $bad wrong > $out; cat $out"
    );
    let started = Instant::now();
    let done = daemon.build(&daemon.request(&script));
    let log = String::from_utf8_lossy(&done.log).into_owned();
    eprintln!("{} in {:?}", log.trim(), started.elapsed());
    assert!(log.ends_with(&format!("{count} commands, 0 wrong\n")), "{log} {:?}", done.report);
    assert!(matches!(done.report.outcome, BuildOutcome::Built(_)));
}

#[test]
fn hundreds_of_commands_end_as_they_should() {
    if !darling_is_missing() {
        commands_are_told_apart(300);
    }
}

#[test]
#[ignore = "minutes; DARLING_BUILDER_TEST_COMMANDS sets how many"]
fn ten_thousand_commands_end_as_they_should() {
    if !darling_is_missing() {
        commands_are_told_apart(amount("COMMANDS", 10_000));
    }
}

/// What a daemon and its slots hold of the machine.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    processes: usize,
    mounts: usize,
    zombies: usize,
    slot_directories: usize,
    result_directories: usize,
    descriptors: usize,
}

fn holdings(daemon: &Daemon) -> Holdings {
    let pid = daemon.child.id();
    let count = |path: std::path::PathBuf| std::fs::read_dir(path).map_or(0, |entries| entries.count());
    let children = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().flat_map(|task| {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()
    });
    let is_zombie = |pid: &String| {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    };
    Holdings {
        processes: daemon.slot_processes().len(),
        mounts: std::fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .filter(|line| line.contains(daemon.directory.path().to_str().unwrap()))
            .count(),
        zombies: children.filter(is_zombie).count(),
        slot_directories: count(daemon.state().join("slots")),
        result_directories: count(daemon.state().join("results")),
        descriptors: count(format!("/proc/{pid}/fd").into()),
    }
}

fn resident_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn builds_leave_nothing(count: u32, at_once: u32) {
    let daemon = Daemon::start(&format!("max-jobs = {at_once}\nwarm-slots = 1\nidle-timeout-seconds = 3"));
    let gone = || daemon.status().slots.is_empty() && holdings(&daemon).slot_directories == 0;
    let build = |number: u32| {
        let code = number % 3;
        let request = daemon
            .request(&format!("echo build {number}; test {code} != 0 || echo {number} > $out; exit {code}"));
        (daemon.submit(&request), number, code)
    };
    let check = |(client, number, code): (_, u32, u32)| {
        let done = finish(client);
        assert_eq!(done.log, format!("build {number}\n").as_bytes(), "{:?}", done.report);
        match code {
            0 => assert!(matches!(done.report.outcome, BuildOutcome::Built(_)), "{:?}", done.report),
            code => {
                assert_eq!(done.report.outcome, BuildOutcome::BuilderFailed(Exit::Code(code as i32)));
            }
        }
    };
    // What the daemon itself grows to with its first builds is its own.
    (0..at_once).map(build).collect::<Vec<_>>().into_iter().for_each(check);
    daemon.eventually(Duration::from_secs(30), "slots gone", gone);
    let (before, memory_before) = (holdings(&daemon), resident_kib(&daemon));
    let started = Instant::now();
    let mut number = 0;
    while number < count {
        let some: Vec<_> = (number..count.min(number + at_once)).map(build).collect();
        number += some.len() as u32;
        some.into_iter().for_each(check);
    }
    let took = started.elapsed();
    daemon.eventually(Duration::from_secs(30), "slots gone", gone);
    let memory = resident_kib(&daemon);
    eprintln!(
        "{count} builds, {at_once} at once, in {took:?}; daemon {memory_before} KiB, then {memory} KiB"
    );
    assert_eq!(holdings(&daemon), before);
    assert_eq!((before.processes, before.mounts, before.zombies), (0, 0, 0), "{before:?}");
    assert!(memory < memory_before + 8192, "the daemon grew from {memory_before} to {memory} KiB");
}

#[test]
fn some_builds_leave_nothing_behind() {
    if !darling_is_missing() {
        builds_leave_nothing(6, 2);
    }
}

#[test]
#[ignore = "minutes; DARLING_BUILDER_TEST_BUILDS sets how many"]
fn two_hundred_builds_leave_nothing_behind() {
    if !darling_is_missing() {
        builds_leave_nothing(amount("BUILDS", 200), 1);
    }
}

#[test]
#[ignore = "minutes; DARLING_BUILDER_TEST_BUILDS sets how many"]
fn builds_eight_at_a_time_leave_nothing_behind() {
    if !darling_is_missing() {
        builds_leave_nothing(amount("BUILDS", 80), 8);
    }
}
