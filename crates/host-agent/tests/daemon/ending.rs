//! Nothing outlives a build: not when the front end goes, not when the daemon is killed.

use std::time::Duration;

use host_agent::control::client::BuildEvent;
use host_agent::request::{BuildOutcome, BuildPhase};

use crate::harness::{Daemon, finish, skipped};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_front_end_that_goes_away_takes_its_build_with_it_within_a_second() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let mut client = daemon.submit(
        &daemon.request("trap '' TERM INT HUP; sleep 100 & (setsid sleep 100 || sleep 100) & sleep 100"),
    );
    while client.next_event().unwrap() != BuildEvent::Phase(BuildPhase::Building) {}
    daemon.eventually(crate::harness::LIMIT, "builder running", || daemon.sleepers() >= 3);
    drop(client);
    daemon.eventually(SECOND, "processes dead", || daemon.sleepers() == 0);
    daemon.eventually(SECOND, "slot gone", || daemon.status().slots.iter().all(|slot| slot.state != "busy"));
    daemon.eventually(SECOND, "counted", || daemon.status().cancelled == 1);
    let done = daemon.build(&daemon.request("echo > $out"));
    assert!(matches!(done.report.outcome, BuildOutcome::Built(_)));
}

#[test]
fn a_front_end_that_goes_away_while_outputs_are_published_is_rid_of_at_once() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let mut client = daemon.submit(&daemon.request("head -c 300000000 /dev/zero > $out"));
    while client.next_event().unwrap() != BuildEvent::Phase(BuildPhase::Publishing) {}
    drop(client);
    daemon.eventually(SECOND, "build gone", || daemon.status().builds.is_empty());
    daemon.eventually(10 * SECOND, "directories gone", || {
        let count = |name| std::fs::read_dir(daemon.state().join(name)).unwrap().count();
        count("results") == 0 && count("slots") <= 1
    });
}

#[test]
fn a_background_process_neither_holds_up_a_build_nor_outlives_it() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let started = std::time::Instant::now();
    let done = daemon.build(
        &daemon.request("(setsid sleep 1000 2>/dev/null || sleep 1000) & echo > $out; echo last words"),
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(done.log.ends_with(b"last words\n"));
    assert!(matches!(done.report.outcome, BuildOutcome::Built(_)));
    assert_eq!(daemon.sleepers(), 0);
}

#[test]
fn a_killed_daemon_leaves_no_process_and_its_successor_cleans_up() {
    if skipped() {
        return;
    }
    let mut daemon = Daemon::start("");
    let mut client = daemon.submit(&daemon.request("sleep 100"));
    while client.next_event().unwrap() != BuildEvent::Phase(BuildPhase::Building) {}
    daemon.child.kill().unwrap();
    daemon.eventually(SECOND, "all processes dead", || daemon.slot_processes().is_empty());
    assert!(client.next_event().is_err());
    assert!(std::fs::read_dir(daemon.state().join("slots")).unwrap().count() > 0);
    daemon.restart();
    let done = daemon.build(&daemon.request("echo > $out"));
    assert!(matches!(done.report.outcome, BuildOutcome::Built(_)));
    drop(done);
    let spare = daemon.status().max_jobs.min(2) as usize;
    daemon.eventually(5 * SECOND, "old slots removed", || {
        std::fs::read_dir(daemon.state().join("slots")).unwrap().count() <= spare
    });
}

#[test]
fn a_stopped_daemon_says_so_to_its_builds_and_leaves_nothing() {
    if skipped() {
        return;
    }
    let mut daemon = Daemon::start("");
    let mut client = daemon.submit(&daemon.request("sleep 100"));
    while client.next_event().unwrap() != BuildEvent::Phase(BuildPhase::Building) {}
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.child.id() as i32), nix::sys::signal::SIGTERM)
        .unwrap();
    let BuildOutcome::Infrastructure(reason) = finish(client).report.outcome else { panic!() };
    assert!(reason.contains("stopped"), "{reason}");
    assert!(daemon.child.wait().unwrap().success());
    assert!(daemon.slot_processes().is_empty());
    assert!(!daemon.socket().exists());
    for directory in ["slots", "results"] {
        assert_eq!(std::fs::read_dir(daemon.state().join(directory)).unwrap().count(), 0);
    }
}

#[test]
fn a_draining_daemon_finishes_what_runs_and_takes_nothing_new() {
    if skipped() {
        return;
    }
    let mut daemon = Daemon::start("");
    let mut client = daemon.submit(&daemon.request("sleep 1; echo > $out"));
    while client.next_event().unwrap() != BuildEvent::Phase(BuildPhase::Building) {}
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.child.id() as i32), nix::sys::signal::SIGUSR1)
        .unwrap();
    daemon.eventually(SECOND, "draining", || daemon.status().draining);
    assert!(matches!(daemon.connect().reserve().unwrap(), host_agent::control::client::Place::Full(_)));
    let done = finish(client);
    assert!(matches!(done.report.outcome, BuildOutcome::Built(_)));
    drop(done);
    assert!(daemon.child.wait().unwrap().success());
}

#[test]
fn a_killed_agent_or_slot_is_told_as_what_it_is_and_the_next_build_works() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let mut client = daemon.submit(&daemon.request("sleep 100"));
    while client.next_event().unwrap() != BuildEvent::Phase(BuildPhase::Building) {}
    // The spare slot's agent may die as well; it is not to be noticed.
    for (pid, command) in daemon.slot_processes() {
        if command.contains("/run/db/darwin-agent") {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
        }
    }
    let BuildOutcome::Infrastructure(reason) = finish(client).report.outcome else { panic!() };
    assert!(reason.contains("agent"), "{reason}");
    let done = daemon.build(&daemon.request("echo > $out"));
    assert!(matches!(done.report.outcome, BuildOutcome::Built(_)));
}

#[test]
fn a_spare_slot_whose_agent_has_died_ends_and_is_given_to_no_build() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("max-jobs = 1\nwarm-slots = 1");
    let is_warm = || daemon.status().slots.iter().any(|slot| slot.state == "warm");
    daemon.eventually(crate::harness::LIMIT, "spare slot", is_warm);
    for (pid, command) in daemon.slot_processes() {
        if command.contains("/run/db/darwin-agent") {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
        }
    }
    // The first process too, which nobody waits for yet: what is left of it is its number.
    let daemons = daemon.child.id().to_string();
    let runs = |entry: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        fields.get(1) == Some(&&*daemons) && fields[0] != "Z"
    };
    daemon.eventually(SECOND * 5, "end of the slot", || {
        !std::fs::read_dir("/proc").unwrap().flatten().any(runs)
    });
    let done = daemon.build(&daemon.request("echo > $out"));
    assert!(matches!(done.report.outcome, BuildOutcome::Built(_)), "{:?}", done.report);
}

#[test]
fn builds_beyond_jobs_wait_and_beyond_the_queue_are_refused() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("max-jobs = 1\nqueue-limit = 1");
    let request = daemon.request("sleep 0.3; echo > $out");
    let first = daemon.submit(&request);
    let second = daemon.submit(&request);
    assert!(matches!(daemon.connect().reserve().unwrap(), host_agent::control::client::Place::Full(_)));
    for client in [first, second] {
        assert!(matches!(finish(client).report.outcome, BuildOutcome::Built(_)));
    }
    daemon.eventually(SECOND, "places free", || {
        matches!(daemon.connect().reserve().unwrap(), host_agent::control::client::Place::Reserved { .. })
    });
}
