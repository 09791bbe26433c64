//! What ordinary users of the machine, and those who may ask for builds, can't do to the daemon and to each other.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use host_agent::control::message::{CONTROL_VERSION, FromDaemon, ToDaemon};
use host_agent::request::{BuildDirectory, BuildOutcome, BuildPhase, BuildReport, Publishing};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::frame;

use crate::harness::{Daemon, LIMIT, skipped};
use crate::peers::{Peer, connect_as};

/// May not ask.
const STRANGER: u32 = 65534;

/// May ask.
const FIRST: u32 = 31001;
const SECOND: u32 = 31002;

const SECOND_OF_TIME: Duration = Duration::from_secs(1);

fn admitting(extra: &str) -> Daemon {
    Daemon::start(&format!("allowed-uids = [{FIRST}, {SECOND}]\n{extra}"))
}

fn would_block(result: std::io::Result<usize>) -> bool {
    result.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

fn assert_builds(daemon: &Daemon, uid: u32) -> BuildReport {
    let report = Peer::build(daemon, uid, &daemon.request("echo > $out"));
    assert!(matches!(report.outcome, BuildOutcome::Built(_)), "{report:?}");
    report
}

/// Longest that root waits for a build, of some tries, while `uid` makes all the silent
/// connections it can and replaces each that is closed.
fn root_waits_while_hogged_by(daemon: &Daemon, uid: u32) -> Duration {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut held: Vec<UnixStream> = Vec::new();
            let begun = Instant::now();
            while !over.load(Ordering::SeqCst) && begun.elapsed() < LIMIT {
                held.retain(|stream| would_block((&*stream).read(&mut [0; 4096])));
                let more = connect_as(daemon, uid, 3000 - held.len());
                more.iter().for_each(|stream| stream.set_nonblocking(true).unwrap());
                held.extend(more);
            }
        });
        std::thread::sleep(SECOND_OF_TIME);
        let longest = (0..10).map(|_| {
            let asked = Instant::now();
            assert_builds(daemon, 0);
            asked.elapsed()
        });
        let longest = longest.max().unwrap();
        over.store(true, Ordering::SeqCst);
        longest
    })
}

#[test]
fn silent_connections_of_any_user_keep_nobody_waiting() {
    if skipped() {
        return;
    }
    let daemon = admitting("");
    for uid in [STRANGER, FIRST] {
        let longest = root_waits_while_hogged_by(&daemon, uid);
        assert!(longest < 3 * SECOND_OF_TIME, "uid {uid}: {longest:?}");
    }
    // Nor has anybody filled the log with it.
    let refusals = daemon.log().iter().filter(|line| line.contains("refused a connection")).count();
    assert!(refusals < 10, "{refusals}");
}

#[test]
fn a_stranger_is_told_why_whatever_it_says_and_holds_nothing() {
    if skipped() {
        return;
    }
    let daemon = admitting("");
    let mut strangers: Vec<Peer> = connect_as(&daemon, STRANGER, 300).into_iter().map(Peer).collect();
    assert_eq!(strangers.len(), 300);
    let mut told = 0;
    for stranger in &mut strangers {
        stranger.0.set_read_timeout(Some(LIMIT)).unwrap();
        let reason = stranger.refusal();
        told += usize::from(reason.contains("uid 65534 is neither root nor a member of the group 'nixbld'"));
    }
    // Before the first answer was there, some were too many.
    assert!(told > 0);
    let mut stranger = Peer::silent(&daemon, STRANGER);
    stranger.say(&ToDaemon::Status);
    assert!(stranger.refusal().contains("allowed-uids"));
}

#[test]
fn one_uid_can_not_take_the_connections_of_others() {
    if skipped() {
        return;
    }
    let daemon = admitting("max-jobs = 1\nqueue-limit = 0");
    let held: Vec<Peer> = connect_as(&daemon, FIRST, 200).into_iter().map(Peer).collect();
    std::thread::sleep(Duration::from_millis(300));
    let open = held.iter().filter(|peer| peer.is_open()).count();
    // One for its only build, and 64 beside it.
    assert_eq!(open, 65);
    assert!(Peer::silent(&daemon, FIRST).refusal().contains("uid 31001 has too many connections"));
    drop(Peer::new(&daemon, SECOND));
    drop(Peer::new(&daemon, 0));
    // They are let go for saying nothing.
    daemon.eventually(10 * SECOND_OF_TIME, "let go", || held.iter().all(|peer| !peer.is_open()));
    drop(Peer::new(&daemon, FIRST));
}

#[test]
fn nobody_is_waited_for_who_does_not_say_what_has_to_come() {
    if skipped() {
        return;
    }
    let daemon = admitting("");
    let mut silent = Peer::silent(&daemon, FIRST);
    let mut greeted = Peer::new(&daemon, FIRST);
    let mut with_place = Peer::with_place(&daemon, FIRST);
    greeted.say_bytes(b"\x04\0");
    with_place.say_bytes(b"\x04\0\0\0\x01");
    let since = Instant::now();
    assert!(silent.refusal().contains("no greeting came within 5s"));
    for mut half in [greeted, with_place] {
        assert!(half.refusal().contains("the rest of it did not come within 10s"));
    }
    assert!(since.elapsed() < 12 * SECOND_OF_TIME);
    assert_eq!(daemon.status().builds, []);
}

/// Resident memory of the daemon, bytes.
fn memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn requests_need_a_place_and_take_a_bounded_part_of_memory() {
    if skipped() {
        return;
    }
    let daemon = admitting("");
    let before = memory(&daemon);
    let part = ToDaemon::RequestPart(vec![b'x'; 512 << 10].into());
    // Without a place no memory is taken at all.
    let without: Vec<Peer> = (0..20)
        .map(|_| {
            let mut peer = Peer::new(&daemon, FIRST);
            for _ in 0..8 {
                peer.say(&part);
            }
            assert!(peer.refusal().contains("where 1024 are the most"));
            peer
        })
        .collect();
    assert!(memory(&daemon) < before + (16 << 20), "{} to {}", before, memory(&daemon));
    drop(without);
    // With places: two uids that send what they can, each through several. Whoever sends too much loses what it sent.
    let mut holding = Vec::new();
    for uid in [FIRST, SECOND] {
        for _ in 0..4 {
            let mut peer = Peer::with_place(&daemon, uid);
            for _ in 0..60 {
                peer.say(&part);
            }
            peer.say(&ToDaemon::Status);
            let answer = peer.hear();
            assert!(matches!(answer, Some(FromDaemon::Status(_) | FromDaemon::Refused(_))), "{answer:?}");
            holding.push((uid, peer, matches!(answer, Some(FromDaemon::Status(_)))));
        }
    }
    let whole = |of| holding.iter().filter(|(uid, _, whole)| *uid == of && *whole).count();
    // Of 128 MiB the first can hold 64, and the second half of what then is left.
    assert_eq!((whole(FIRST), whole(SECOND)), (2, 1));
    assert!(memory(&daemon) < before + (250 << 20), "{} to {}", before, memory(&daemon));
    drop(holding);
    assert_builds(&daemon, 0);
}

#[test]
fn reservations_in_silence_keep_nobody_from_building_and_are_shown() {
    if skipped() {
        return;
    }
    let daemon = admitting("max-jobs = 1\nqueue-limit = 7");
    let mut hoards = Vec::new();
    for (uid, most) in [(FIRST, 4), (SECOND, 2)] {
        for _ in 0..most {
            hoards.push(Peer::with_place(&daemon, uid));
        }
        let answer = Peer::new(&daemon, uid).reserve();
        let FromDaemon::Full(reason) = answer else { panic!("{answer:?}") };
        assert_eq!(
            reason,
            format!("{most} builds of uid {uid} wait already, which leaves as many for others")
        );
    }
    let shown = daemon.status().builds;
    assert_eq!(shown.iter().filter(|build| build.phase == "reserved" && build.uid == FIRST).count(), 4);
    let asked = Instant::now();
    // One after the other: each finds a place, and its turn at once.
    for _ in 0..3 {
        assert!(assert_builds(&daemon, 0).timings.queued < SECOND_OF_TIME);
    }
    assert!(asked.elapsed() < 10 * SECOND_OF_TIME);
    // And all of its own at once, whatever others hold.
    let clients: Vec<_> = (0..8).map(|_| Peer::submit(&daemon, 0, &daemon.request("echo > $out"))).collect();
    for mut client in clients {
        assert!(matches!(client.report().outcome, BuildOutcome::Built(_)));
    }
    drop(hoards);
    daemon.eventually(SECOND_OF_TIME, "forgotten", || daemon.status().builds.is_empty());
    assert_eq!(daemon.status().cancelled, 0, "what was only reserved is no build");
}

#[test]
fn a_reservation_in_silence_does_not_hold_up_the_end_of_the_daemon() {
    if skipped() {
        return;
    }
    let mut daemon = admitting("");
    let mut silent = Peer::with_place(&daemon, FIRST);
    let asked = Instant::now();
    kill(Pid::from_raw(daemon.child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(silent.refusal(), "the daemon was stopped");
    assert!(daemon.child.wait().unwrap().success());
    assert!(asked.elapsed() < 5 * SECOND_OF_TIME, "{:?}", asked.elapsed());
}

#[test]
fn turns_go_round_the_uids() {
    if skipped() {
        return;
    }
    let daemon = admitting("max-jobs = 1\nqueue-limit = 20");
    let request = daemon.request("sleep 0.2; echo > $out");
    let mut queue: Vec<Peer> = (0..4).map(|_| Peer::submit(&daemon, FIRST, &request)).collect();
    queue[0].hear_until(|message| matches!(message, FromDaemon::Phase(BuildPhase::Building)));
    let mut other = Peer::submit(&daemon, SECOND, &request);
    let told = other.hear_until(|message| matches!(message, FromDaemon::Phase(_)));
    assert_eq!(
        told,
        FromDaemon::Phase(BuildPhase::Queued(1)),
        "the next, though three have reserved before it"
    );
    assert!(matches!(Peer::build(&daemon, 0, &request).outcome, BuildOutcome::Built(_)));
    // Both have had their turn, and two of the four that were there first still wait or have just begun.
    other.report();
    let left = daemon.status().builds.iter().filter(|build| build.uid == FIRST).count();
    assert!(left >= 2, "{left}");
}

#[test]
fn a_front_end_that_does_not_read_keeps_its_place_until_another_build_waits() {
    if skipped() {
        return;
    }
    let daemon = admitting("max-jobs = 1\nqueue-limit = 20");
    let much = "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done";
    let mut unread = Peer::submit(&daemon, FIRST, &daemon.request(much));
    let bytes = || daemon.status().builds.first().map_or(0, |build| build.log_bytes);
    daemon.eventually(LIMIT, "output", || bytes() > 0);
    // Until nothing goes any more.
    let mut last = (bytes(), Instant::now());
    let stuck = loop {
        std::thread::sleep(SECOND_OF_TIME / 2);
        match bytes() {
            now if now == last.0 => break last.1,
            now => last = (now, Instant::now()),
        }
    };
    std::thread::sleep((stuck + Duration::from_secs(63)).saturating_duration_since(Instant::now()));
    assert_eq!(daemon.status().builds[0].phase, "building", "it harms nobody");
    let asked = Instant::now();
    assert_builds(&daemon, 0);
    assert!(asked.elapsed() < 10 * SECOND_OF_TIME, "{:?}", asked.elapsed());
    const REASON: &str = "not read for 60 s while another build waited for its turn";
    let logged = daemon.log();
    let logged = logged.iter().find(|line| line.contains(REASON)).unwrap();
    assert!(logged.contains("uid=31001") && logged.contains("test.drv"), "{logged}");
    // Whoever reads again after all is told.
    let outcome = unread.report().outcome;
    let BuildOutcome::Infrastructure(reason) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains(REASON), "{reason}");
}

#[test]
fn nothing_that_a_peer_says_reaches_a_terminal_as_it_is() {
    if skipped() {
        return;
    }
    let daemon = admitting("");
    let long = "x".repeat(65);
    for name in ["\x1b[2J\x1b]0;owned\x07", "two\nlines", "\u{9b}2J", "", &long] {
        let mut peer = Peer::silent(&daemon, FIRST);
        // The fields of a greeting, with a name that none can have.
        peer.say_bytes(&frame::encode(&(0u32, CONTROL_VERSION, name)).unwrap());
        let reason = peer.refusal();
        assert!(reason.contains("a name "), "{reason}");
    }
    // Where a front end's words are logged, they are on one line and nothing but text.
    let mut request = daemon.request("true");
    request.build_directory = BuildDirectory::Given { path: "/\x1b[2J\nINFO all is well".into() };
    request.outputs[0].name = "\x1b[31m\nout".into();
    Peer::build(&daemon, FIRST, &request);
    daemon.eventually(LIMIT, "logged", || daemon.log().iter().any(|line| line.contains("build failed")));
    for line in daemon.log() {
        assert!(!line.contains(char::is_control) && !line.starts_with("INFO all"), "{line:?}");
    }
}

#[test]
fn what_belongs_to_root_can_not_be_told_from_what_is_not_there() {
    if skipped() {
        return;
    }
    let daemon = admitting("");
    let secret = daemon.state().join("slots");
    std::fs::write(secret.join("file"), "x").unwrap();
    std::os::unix::fs::symlink("/", secret.join("link")).unwrap();
    std::fs::create_dir(secret.join("directory")).unwrap();
    let told = |uid, path: &str| {
        let mut request = daemon.request("true");
        request.build_directory = BuildDirectory::Given { path: path.into() };
        request.publishing = Publishing::HandOver;
        let outcome = Peer::build(&daemon, uid, &request).outcome;
        let BuildOutcome::Infrastructure(reason) = outcome else { panic!("{outcome:?}") };
        reason.replace(path, "PATH")
    };
    let paths = ["file", "link", "link/etc", "directory", "missing", "missing/deep"];
    let paths = paths.map(|name| secret.join(name).to_str().unwrap().to_owned());
    let paths = paths.iter().map(String::as_str).chain(["/", "/tmp", "relative", "/dev/null"]);
    let mut reasons: Vec<String> = paths.clone().map(|path| told(FIRST, path)).collect();
    reasons.dedup();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    // What is wrong is in the log, and told to root.
    assert!(daemon.log().iter().any(|line| line.contains("Not a directory")));
    assert!(told(0, "/dev/null").contains("Not a directory"));
}

#[test]
fn nobody_but_root_can_hold_the_lock_and_whoever_does_is_named() {
    if skipped() {
        return;
    }
    let mut daemon = admitting("");
    let lock = daemon.state().join("lock");
    let mode = || lock.metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode(), 0o600);
    let held_by = |uid: u32| {
        let mut command = Command::new("flock");
        std::os::unix::process::CommandExt::uid(&mut command, uid);
        command.args(["--nonblock", "--shared"]).arg(&lock).arg("true").stderr(Stdio::piped());
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    daemon.let_others_in();
    assert!(held_by(STRANGER).contains("Permission denied"));
    // Of an older release.
    std::fs::set_permissions(&lock, std::fs::Permissions::from_mode(0o644)).unwrap();
    daemon.restart();
    assert_eq!(mode(), 0o600);
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let file = std::fs::File::open(&lock).unwrap();
    let held = Flock::lock(file, FlockArg::LockSharedNonblock).unwrap();
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_host-agent"));
        command.arg("--config").arg(daemon.directory.path().join("config.toml")).arg("daemon");
        String::from_utf8(command.env("RUST_LOG", "off").output().unwrap().stderr).unwrap()
    };
    let said = start();
    let us = format!("process {} ('", std::process::id());
    assert!(said.contains(&us) && said.contains("uid 0) holds it"), "{said}");
    drop(held);
    daemon.restart();
}
