//! Slots that hang: what is told of them, and when a build is tried once more.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use host_agent::control::client::BuildEvent;
use host_agent::request::{BuildLimits, BuildOutcome, BuildPhase};
use protocol::message::Exit;

use crate::darling::darling_is_missing;
use crate::harness::{Daemon, LIMIT, darling, finish, skipped};

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

/// A Perl program for Linux (x86_64) that makes its command line a gigabyte long, as `PR_SET_MM_MAP` allows, and stays.
const LONG_COMMAND_LINE: &str = r#"
my $length = 1 << 30;
my $at = syscall(9, 0, $length, 3, 0x4022, -1, 0);
open my $stat, "<", "/proc/self/stat" or die;
my @field = split / /, <$stat> =~ s/^.*\) //r;
my $map = pack "Q12 L l", @field[23, 24, 42, 43, 44], syscall(12, 0), $field[25], $at, $at + $length,
    @field[47, 48], 0, 0, -1;
syscall(157, 35, 14, $map, length $map, 0) == 0 or die "PR_SET_MM_MAP: $!";
$| = 1;
print "long\n";
sleep 100;
"#;

/// The most memory that a daemon has had, bytes.
fn peak(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

fn perl_is_missing() -> bool {
    let missing = skipped() || darling() || Command::new("perl").arg("-e1").status().is_err();
    if missing {
        eprintln!("skipped: no Perl in a slot of the stand-in");
    }
    missing
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A build of this script that ends by its limit for silence, and by how much it made the daemon's peak grow.
fn silent(daemon: &Daemon, script: &str) -> (crate::harness::Done, u64) {
    let before = peak(daemon);
    let mut request = daemon.request(script);
    // Longer than a loaded machine needs to get to what is tried.
    request.limits = BuildLimits { silence: Some(Duration::from_secs(5)), ..BuildLimits::default() };
    let done = daemon.build(&request);
    assert_eq!(done.report.outcome, BuildOutcome::BuilderFailed(Exit::Silent));
    let grown = peak(daemon) - before;
    eprintln!("the daemon's peak: {before} bytes before, {grown} more after");
    (done, grown)
}

/// What a report of some processes may cost.
const GROWTH_MAX: u64 = 32 << 20;

#[test]
fn a_command_line_of_any_length_is_read_to_its_beginning_only() {
    if perl_is_missing() {
        return;
    }
    let daemon = Daemon::start("");
    let (done, grown) = silent(&daemon, &format!("exec perl -e '{LONG_COMMAND_LINE}'"));
    assert_eq!(done.log, b"long\n");
    assert!(done.notes[0].starts_with("in the slot when it was given up"), "{:?}", done.notes);
    assert!(grown < GROWTH_MAX, "{grown}");
}

#[test]
fn processes_outside_of_the_slot_are_not_read_for_a_report() {
    use std::io::Read;
    if perl_is_missing() {
        return;
    }
    let daemon = Daemon::start("");
    let mut host = Command::new("perl");
    host.args(["-e", LONG_COMMAND_LINE]).stdout(std::process::Stdio::piped());
    let mut host = Killed(host.spawn().unwrap());
    host.0.stdout.take().unwrap().read_exact(&mut [0; 5]).unwrap();
    let (_, grown) = silent(&daemon, "sleep 77");
    assert!(grown < GROWTH_MAX, "{grown}");
}

#[test]
fn a_builder_can_not_make_the_daemon_read_a_file_of_the_hosts_for_a_report() {
    if darling_is_missing() {
        return;
    }
    let daemon = Daemon::start("");
    let hosts = daemon.directory.path().join("hosts");
    std::fs::create_dir(&hosts).unwrap();
    std::fs::write(hosts.join("dserver.log"), "a secret of the host\n").unwrap();
    let script = format!(
        "rm -rf /private/var/log && ln -s {} /private/var/log && echo linked; sleep 77",
        hosts.display()
    );
    let (done, _) = silent(&daemon, &script);
    assert_eq!(done.log, b"linked\n");
    let notes = done.notes.join("\n");
    assert!(notes.contains("  sleep 77\n") && !notes.contains("secret"), "{notes}");
    assert!(notes.contains("Darling's server logged nothing"), "{notes}");
}

/// How long a builder that prints more than anybody reads outlives its limit of a second.
fn outlived(daemon: &Daemon) -> Duration {
    let mut request = daemon.request("yes & sleep 77");
    request.limits = BuildLimits { wall: Some(Duration::from_secs(1)), ..BuildLimits::default() };
    let mut client = daemon.submit(&request);
    while client.next_event().unwrap() != BuildEvent::Phase(BuildPhase::Building) {}
    let started = Instant::now();
    daemon.eventually(LIMIT, "builder running", || daemon.sleepers() == 1);
    // From here on nothing is read.
    daemon.eventually(LIMIT, "slot dead", || daemon.slot_processes().is_empty());
    started.elapsed().saturating_sub(Duration::from_secs(1))
}

#[test]
fn a_front_end_that_does_not_read_does_not_keep_a_stuck_slot_alive() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0");
    // Were the report said first, no time would be shorter than what the daemon waits for that, two seconds.
    let outlived: Vec<Duration> = (0..5).map(|_| outlived(&daemon)).collect();
    assert!(outlived.iter().any(|time| *time < Duration::from_millis(1500)), "{outlived:?}");
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
