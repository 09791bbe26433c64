//! An agent that lies. A builder that has got hold of its agent could do no more than this one does: the daemon says what is wrong, stays
//! small and on time, and the next build works.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use host_agent::request::{BuildLimits, BuildOutcome};
use protocol::message::Exit;

use crate::attack::{self, program};
use crate::harness::{Daemon, Done, UIDS, copy_program, darling, finish, guest, new_uid_base};

/// Resident memory that a daemon may have more than before, bytes.
const GROWTH: u64 = 24 << 20;

/// An agent's words are judged outside of the slot, the same whatever guest it is in; this one is a Linux program.
fn skipped() -> bool {
    if darling() {
        eprintln!(
            "skipped: what an agent says is judged the same with every guest, and the liar is the stand-in's"
        );
        return true;
    }
    attack::skipped()
}

/// The lying agent, telling this lie with its greeting.
struct Liar {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Liar {
    fn new(lie: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent");
        copy_program(&program(), &path);
        // In two steps: whoever forks meanwhile must not have it open to write when it is executed.
        let tail = directory.path().join("tail");
        std::fs::write(&tail, format!("\nLIE={lie}")).unwrap();
        let append = format!("cat {} >> {}", tail.display(), path.display());
        assert!(Command::new("sh").args(["-c", &append]).status().unwrap().success());
        Self { _directory: directory, path }
    }

    fn daemon(&self, extra: &str) -> Daemon {
        Daemon::start_as(
            &format!("warm-slots = 0\nmax-jobs = 1\nretry-stalled = false\n{extra}"),
            Some(&self.path),
            |_| {},
        )
    }
}

/// A build of which the agent tells this lie. With a limit of time, since some lies have no other end.
fn told(daemon: &Daemon, lie: &str, limits: BuildLimits) -> (Done, Duration) {
    let mut request = daemon.request("not executed");
    request.env.push(("LIE".into(), lie.into()));
    request.limits = limits;
    let started = Instant::now();
    let mut client = daemon.submit(&request);
    client.set_patience(Duration::from_secs(60)).unwrap();
    let done = finish(client);
    (done, started.elapsed())
}

fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

fn is_honest(daemon: &Daemon, after: &str) {
    let (done, _) = told(daemon, "", BuildLimits::default());
    let BuildOutcome::Built(outputs) = &done.report.outcome else {
        panic!("after {after}: {:?}", done.report)
    };
    assert_eq!(std::fs::read(outputs[0].staged.as_path()).unwrap(), b"honest", "after {after}");
    assert_eq!(done.log, b"hello\n", "after {after}");
}

/// One line that a terminal shows and does nothing else with, of a bearable length.
fn is_text(text: &str) -> bool {
    text.len() <= 4096 && text.chars().all(|char| char == ' ' || (char.is_ascii_graphic()))
}

const SHORT: BuildLimits =
    BuildLimits { wall: Some(Duration::from_secs(5)), silence: None, log_bytes: None, output_bytes: None };

#[test]
fn what_no_agent_may_say_is_named_as_the_agents_and_the_next_build_works() {
    if skipped() {
        return;
    }
    let liar = Liar::new("");
    let daemon = liar.daemon("");
    is_honest(&daemon, "nothing");
    let before = resident(&daemon);
    let lies = [
        ("early", "agent"),
        ("unstarted", "agent"),
        ("started-twice", "agent"),
        ("code-high", "agent"),
        ("code-negative", "agent"),
        ("code-beyond", "agent"),
        ("signal-none", "agent"),
        ("signal-negative", "agent"),
        ("signal-high", "agent"),
        ("timed-out", "agent"),
        ("was-silent", "agent"),
        ("log-limit", "agent"),
        ("killed", "agent"),
        ("output-large", "agent"),
        ("pong", "agent"),
        ("pong-flood", "agent"),
        ("empty-flood", "agent"),
        ("input-taken", "agent"),
        ("diagnostics", "agent"),
        ("frame-huge", "exceeds the limit"),
        ("frame-garbage", "nonsense"),
        ("frame-cut", "agent"),
        ("gone", "agent"),
        ("tick-flood", "agent"),
    ];
    for (lie, reason) in lies {
        let (done, took) = told(&daemon, lie, SHORT);
        let BuildOutcome::Infrastructure(told) = &done.report.outcome else {
            panic!("{lie}: {:?}", done.report)
        };
        assert!(told.contains(reason) && is_text(told), "{lie}: {told:?}");
        assert!(took < Duration::from_secs(4), "{lie}: {took:?}");
        is_honest(&daemon, lie);
    }
    let grown = resident(&daemon).saturating_sub(before);
    assert!(grown < GROWTH, "the daemon grew by {grown} bytes");
}

#[test]
fn what_an_agent_says_beside_the_truth_changes_nothing() {
    if skipped() {
        return;
    }
    let liar = Liar::new("");
    let daemon = liar.daemon("");
    for lie in ["twice", "usage", "output-late"] {
        let (done, _) = told(&daemon, lie, SHORT);
        assert!(matches!(done.report.outcome, BuildOutcome::Built(_)), "{lie}: {:?}", done.report);
        is_honest(&daemon, lie);
    }
}

#[test]
fn an_output_that_an_agent_only_claims_is_missing() {
    if skipped() {
        return;
    }
    let liar = Liar::new("");
    let daemon = liar.daemon("");
    let (done, _) = told(&daemon, "claims", SHORT);
    assert_eq!(done.report.outcome, BuildOutcome::MissingOutputs(vec!["out".into()]));
    is_honest(&daemon, "claims");
}

#[test]
fn why_a_builder_did_not_start_is_told_in_one_line_of_plain_text() {
    if skipped() {
        return;
    }
    let liar = Liar::new("");
    let daemon = liar.daemon("");
    let (done, _) = told(&daemon, "spawn-text", SHORT);
    let BuildOutcome::BuilderFailed(Exit::SpawnFailed { step, .. }) = &done.report.outcome else {
        panic!("{:?}", done.report)
    };
    assert!(is_text(step), "{} bytes: {:?}", step.len(), &step[..step.len().min(200)]);
    is_honest(&daemon, "spawn-text");
}

#[test]
fn limits_of_time_hold_whatever_an_agent_says_and_how_fast() {
    if skipped() {
        return;
    }
    let liar = Liar::new("");
    let daemon = liar.daemon("");
    let second = Some(Duration::from_secs(1));
    let before = resident(&daemon);
    let wall = BuildLimits { wall: second, ..BuildLimits::default() };
    let silence = BuildLimits { silence: second, ..BuildLimits::default() };
    for (lie, limits, ends) in [
        ("output-flood", wall, Exit::TimedOut),
        ("mute", wall, Exit::TimedOut),
        ("mute", silence, Exit::Silent),
    ] {
        let (done, took) = told(&daemon, lie, limits);
        assert_eq!(done.report.outcome, BuildOutcome::BuilderFailed(ends), "{lie}");
        assert!(took < Duration::from_secs(5), "{lie}: {took:?}");
        is_honest(&daemon, lie);
    }
    let grown = resident(&daemon).saturating_sub(before);
    assert!(grown < GROWTH, "the daemon grew by {grown} bytes");
}

#[test]
fn an_agent_that_says_nothing_at_all_is_a_stall() {
    if skipped() {
        return;
    }
    let liar = Liar::new("");
    let daemon = liar.daemon("");
    let (done, took) = told(&daemon, "silent", BuildLimits::default());
    let BuildOutcome::Infrastructure(reason) = &done.report.outcome else { panic!("{:?}", done.report) };
    assert!(reason.contains("time stands still"), "{reason}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    is_honest(&daemon, "silence");
}

#[test]
fn an_agent_that_does_not_read_holds_up_neither_limits_nor_whoever_gives_up() {
    if skipped() {
        return;
    }
    let liar = Liar::new("deaf");
    let daemon = liar.daemon("");
    let mut request = daemon.request("not executed");
    // More than a socket holds.
    request
        .env
        .extend((0..40).map(|number| (format!("v{number}").as_str().into(), vec![b'x'; 100_000].into())));
    request.limits.wall = Some(Duration::from_secs(2));
    let mut client = daemon.submit(&request);
    client.set_patience(Duration::from_secs(20)).unwrap();
    let done = finish(client);
    assert_eq!(done.report.outcome, BuildOutcome::BuilderFailed(Exit::TimedOut));
    request.limits.wall = None;
    let client = daemon.submit(&request);
    daemon.eventually(crate::harness::LIMIT, "builds", || {
        daemon.status().builds.iter().any(|build| build.phase.contains("building"))
    });
    drop(client);
    daemon.eventually(Duration::from_secs(2), "given up", || daemon.status().builds.is_empty());
}

#[test]
fn a_slot_whose_agent_floods_its_tick_ends_with_its_daemon() {
    if skipped() {
        return;
    }
    let liar = Liar::new("");
    let mut daemon = liar.daemon("");
    let mut request = daemon.request("not executed");
    request.env.push(("LIE".into(), "tick-flood-quiet".into()));
    let mut client = daemon.submit(&request);
    while client.next_event().unwrap()
        != host_agent::control::client::BuildEvent::Phase(host_agent::request::BuildPhase::Building)
    {}
    std::thread::sleep(Duration::from_millis(200));
    daemon.child.kill().unwrap();
    daemon.eventually(Duration::from_secs(2), "all processes dead", || daemon.slot_processes().is_empty());
}

/// What a daemon says that does not come up with this agent.
fn refusal(agent: &Path) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    let config = directory.path().join("config.toml");
    let uid_base = new_uid_base();
    let text = format!(
        "socket = \"{path}/s\"\n{}state-directory = \"{path}/state\"\nstore-directory = \"{path}\"\n\
         uid-base = {uid_base}\nuid-count = {UIDS}\n",
        guest(Some(agent))
    );
    std::fs::write(&config, text).unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_host-agent"));
    let daemon =
        daemon.arg("--config").arg(&config).arg("daemon").env("RUST_LOG", "off").stderr(Stdio::piped());
    let mut child = daemon.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(90);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() >= deadline {
            child.kill().unwrap();
            panic!("the daemon does not give up");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    let left = std::fs::read_dir(directory.path().join("state/slots")).unwrap().count();
    assert_eq!(left, 0);
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_agent_that_does_not_greet_as_it_should_is_named_and_not_waited_for_long() {
    if skipped() {
        return;
    }
    for (lie, reason) in [
        ("greeting-garbage", "failed to shake hands with the agent"),
        ("greeting-huge", "failed to shake hands with the agent"),
        ("greeting-version", "failed to shake hands with the agent"),
        ("greeting-identity", "failed to shake hands with the agent"),
        ("greeting-silent", "agent"),
        ("greeting-dripping", "agent"),
        ("greeting-many", "agent"),
    ] {
        let liar = Liar::new(lie);
        let started = Instant::now();
        let told = refusal(&liar.path);
        let _ = writeln!(std::io::stderr(), "{lie}: {:?}: {told}", started.elapsed());
        assert!(told.contains(reason) && is_text(told.trim_end()), "{lie}: {told:?}");
        assert!(started.elapsed() < Duration::from_secs(35), "{lie}: {:?}", started.elapsed());
    }
}
