//! The agent has its builder's uid, and is out of the builder's reach all the same.

use host_agent::request::BuildOutcome;
use protocol::message::Exit;

use crate::attack::{Attacker, ROUNDS, kernel_has_scopes, skipped};
use crate::harness::{Daemon, darling};

/// Numbers of this system's, which are those that the attacker sends.
const SIGNALS: [i32; 5] = [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGUSR1, libc::SIGKILL];

/// Darwin has another number for one of them.
fn as_guest_has_it(signal: i32) -> i32 {
    if darling() && signal == libc::SIGUSR1 { 30 } else { signal }
}

/// How a script ends as some user's, outside of any slot, where `kill -1` reaches only what that user runs.
fn outside(script: &str) -> Exit {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    let uid = crate::harness::new_uid_base();
    let directory = tempfile::Builder::new().prefix("dba").tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let attacker = directory.path().join("attacker");
    crate::harness::copy_program(&crate::attack::program(), &attacker);
    // Nothing ignored that whoever started these tests ignores, as in a build.
    let mut command = std::process::Command::new("env");
    command
        .args(["--default-signal", "/bin/sh", "-c", script])
        .env("attacker", attacker)
        .env("out", "/dev/null")
        .uid(uid)
        .gid(uid);
    let status = command.stdout(std::process::Stdio::null()).status().unwrap();
    status.signal().map_or_else(|| Exit::Code(status.code().unwrap()), Exit::Signal)
}

#[test]
fn a_signal_to_everyone_ends_a_build_as_it_does_outside_and_not_its_agent() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0\nmax-jobs = 1");
    let attacker = Attacker::new(&daemon);
    for _ in 0..if darling() { 1 } else { ROUNDS / SIGNALS.len() } {
        // Darling's shell is another: one that goes on if it was interrupted and what it waited for was not.
        for signal in SIGNALS.into_iter().filter(|signal| !(darling() && *signal == libc::SIGINT)) {
            let script = format!("sleep 60 & $attacker agent everyone {signal}; sleep 1; echo > $out");
            let told = attacker.run(&script);
            assert_eq!(outside(&script), Exit::Signal(signal));
            let wanted = Exit::Signal(as_guest_has_it(signal));
            assert_eq!(told.done.report.outcome, BuildOutcome::BuilderFailed(wanted), "{}", told.log());
        }
    }
}

#[test]
fn a_build_that_ignores_a_signal_to_everyone_goes_on_as_it_does_outside() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0\nmax-jobs = 1");
    let attacker = Attacker::new(&daemon);
    for signal in &SIGNALS[..4] {
        let script = format!(
            "trap '' TERM HUP INT USR1; $attacker agent everyone {signal}; $attacker agent everyone 0; echo on; echo > $out"
        );
        let told = attacker.run(&script);
        assert_eq!(outside(&script), Exit::Code(0));
        assert!(told.is_built(), "{:?} {}", told.done.report, told.log());
        assert_eq!(told.came_of(&format!("everyone-{signal}")), "done");
        assert!(told.log().ends_with("on\n"), "{}", told.log());
    }
}

#[test]
fn no_signal_of_a_builder_reaches_its_agent() {
    if skipped() {
        return;
    }
    if !kernel_has_scopes() {
        eprintln!("skipped: Landlock of this kernel knows no scopes (Linux 6.12)");
        return;
    }
    let daemon = Daemon::start("warm-slots = 0\nmax-jobs = 1");
    let told = Attacker::new(&daemon).run("$attacker agent signals; echo on; echo > $out");
    for way in ["kill", "tkill", "tgkill", "pidfd"] {
        assert_eq!(told.came_of(&format!("signals-by-{way}")), "EPERM", "{}", told.log());
    }
    for way in ["queue", "group"] {
        assert!(!told.came_of(&format!("signals-by-{way}")).contains("sent"), "{}", told.log());
    }
    assert_eq!(told.came_of("agent"), "there");
    assert!(told.is_built(), "{:?} {}", told.done.report, told.log());
}

#[test]
fn an_agent_that_is_killed_or_stopped_is_named_and_the_next_build_works() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0\nmax-jobs = 1\nretry-stalled = false");
    let attacker = Attacker::new(&daemon);
    for signal in [libc::SIGKILL, libc::SIGSTOP] {
        let told = attacker.run(&format!("$attacker agent one-signal {signal}; echo > $out"));
        if kernel_has_scopes() {
            assert_eq!(told.came_of("one-signal"), "EPERM");
            assert!(told.is_built(), "{:?}", told.done.report);
        } else {
            let BuildOutcome::Infrastructure(reason) = &told.done.report.outcome else {
                panic!("{:?}", told.done.report)
            };
            assert!(reason.contains("agent") || reason.contains("time stands still"), "{reason}");
        }
        assert!(attacker.run("echo > $out").is_built());
    }
}

#[test]
fn a_builder_neither_reads_nor_writes_nor_traces_its_agent() {
    if skipped() {
        return;
    }
    if darling() && !kernel_has_scopes() {
        eprintln!(
            "skipped: inside Darling it is Landlock's scopes alone that keep it from that (Linux 6.12)"
        );
        return;
    }
    let daemon = Daemon::start("warm-slots = 0\nmax-jobs = 1");
    let told = Attacker::new(&daemon).run("$attacker agent memory; echo > $out");
    // How many descriptors it has is seen inside Darling, where it is dumpable; not what they are, nor is any to be had.
    told.none_was_done_but(if darling() { &["fd"] } else { &[] }, 20);
    for what in ["attach", "seize", "readv", "writev", "getfd-3", "enter"] {
        assert_eq!(told.came_of(what), "EPERM", "{what}: {}", told.log());
    }
    assert_eq!(told.came_of("mem"), "EACCES", "{}", told.log());
    assert!(told.is_built(), "{:?}", told.done.report);
}

#[test]
fn a_builder_sets_no_limits_of_its_agent() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0\nmax-jobs = 1");
    let told = Attacker::new(&daemon).run("$attacker agent limits; ulimit -n 64; ulimit -n; echo > $out");
    for what in ["processor", "descriptors", "memory", "high"] {
        assert_eq!(told.came_of(&format!("limit-{what}")), "EPERM", "{}", told.log());
    }
    // Its own it sets as everywhere.
    assert!(told.log().lines().any(|line| line == "64"), "{}", told.log());
    assert!(told.is_built(), "{:?}", told.done.report);
}

#[test]
fn nobody_else_becomes_the_agent() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0\nmax-jobs = 1");
    let told = Attacker::new(&daemon).run("$attacker agent connect; echo > $out");
    told.none_was_done_but(&[], 11);
    assert_eq!(told.came_of("connect-/run/db"), "ENOENT");
    assert_eq!(told.came_of("bind-/run/db"), "EACCES");
    assert!(told.is_built(), "{:?}", told.done.report);
}
