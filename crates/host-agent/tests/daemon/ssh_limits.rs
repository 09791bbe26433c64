//! Logging in over ssh when something is in the way: those who never log in, a slot that dies, the daemon's end.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Daemon, LIMIT, darling};
use crate::ssh::{SshDaemon, hang_up, skipped};

fn silent(ssh: &SshDaemon) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", ssh.port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

fn first_line(stream: &TcpStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn twenty_who_never_log_in_do_not_keep_others_out() {
    if skipped() {
        return;
    }
    let ssh = SshDaemon::start("");
    let all: Vec<TcpStream> = (0..20).map(|_| silent(&ssh)).collect();
    let unauthenticated = || ssh.daemon.status().ssh.unwrap().unauthenticated;
    assert!(unauthenticated() <= 10);
    let start = Instant::now();
    while !ssh.ssh(&["builder@127.0.0.1", "true"]).status.success() {
        assert!(start.elapsed() < LIMIT, "nobody gets in");
        std::thread::sleep(Duration::from_millis(200));
    }
    eprintln!("logged in {:?} after them", start.elapsed());
    assert!(unauthenticated() <= 10);
    // Half of them were turned away with the reason.
    let turned_away = all.iter().map(first_line).filter(|line| line.starts_with("darling-builder: too many"));
    assert_eq!(turned_away.count(), 10);
    drop(all);
    ssh.daemon.eventually(LIMIT, "all gone", || unauthenticated() == 0);
}

#[test]
#[ignore = "takes half a minute"]
fn whoever_has_not_logged_in_in_time_is_gone() {
    if skipped() {
        return;
    }
    let ssh = SshDaemon::start("");
    assert_eq!(ssh.says("echo ok"), "ok\n");
    let start = Instant::now();
    let mut stream = silent(&ssh);
    stream.set_read_timeout(Some(2 * LIMIT)).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    assert!((29..33).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    ssh.daemon.eventually(LIMIT, "no sshd", || sshds(&ssh.daemon) == 0);
}

fn sshds(daemon: &Daemon) -> usize {
    daemon.slot_processes().iter().filter(|(_, command)| command.contains("sshd")).count()
}

#[test]
fn sessions_are_limited_and_the_one_too_many_is_told() {
    if skipped() {
        return;
    }
    let ssh = SshDaemon::start("max-sessions = 1");
    let mut held = ssh.hold();
    assert_eq!(first_line(&silent(&ssh)), "darling-builder: too many sessions, end one\r\n");
    hang_up(&mut held);
    ssh.daemon.eventually(LIMIT, "no session", || ssh.daemon.status().ssh.unwrap().sessions.is_empty());
    assert_eq!(ssh.says("echo ok"), "ok\n");
    ssh.daemon.eventually(LIMIT, "no sshd", || sshds(&ssh.daemon) == 0);
}

#[test]
fn a_slot_that_dies_ends_its_sessions_and_the_next_connection_boots_another() {
    if skipped() {
        return;
    }
    let ssh = SshDaemon::start("");
    let held = ssh.hold();
    let first = ssh.daemon.status().ssh.unwrap().slot.unwrap();
    let victim = if darling() { "darlingserver" } else { "/run/db/darwin-agent" };
    for (pid, command) in ssh.daemon.slot_processes() {
        if command.split(' ').next().is_some_and(|program| program.ends_with(victim)) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
    }
    let output = held.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    assert_eq!(ssh.says("echo ok"), "ok\n");
    assert_ne!(ssh.daemon.status().ssh.unwrap().slot.unwrap(), first);
    ssh.daemon.eventually(LIMIT, "the first is gone", || ssh.daemon.sleepers() == 0);
}

#[test]
fn a_stopped_daemon_leaves_the_keys_and_nothing_else() {
    if skipped() {
        return;
    }
    let mut ssh = SshDaemon::start("");
    let held = ssh.hold();
    kill(Pid::from_raw(ssh.daemon.child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(held.wait_with_output().unwrap().status.code(), Some(255));
    assert!(ssh.daemon.child.wait().unwrap().success());
    assert!(ssh.daemon.slot_processes().is_empty());
    TcpStream::connect(("127.0.0.1", ssh.port)).unwrap_err();
    assert_eq!(std::fs::read_dir(ssh.daemon.state().join("slots")).unwrap().count(), 0);
    let keys = ["host_ed25519", "client_ed25519"].map(|name| ssh.file(name));
    let texts = || keys.each_ref().map(|path| std::fs::read(path).unwrap());
    let before = texts();
    ssh.daemon.restart();
    assert_eq!(ssh.says("echo ok"), "ok\n");
    assert_eq!(texts(), before);
    for key in &keys {
        assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o7777, 0o600);
    }
}

#[test]
fn nobody_who_has_logged_in_can_change_who_else_may() {
    if skipped() {
        return;
    }
    let ssh = SshDaemon::start("");
    let tried = ssh.says(
        "cd /Volumes/SystemRoot/run/db/ssh && for file in *; do \
         { echo x >> $file; } 2> /dev/null && echo $file was written; done; \
         { echo x > new; } 2> /dev/null && echo new was written; \
         { mv host_key other; } 2> /dev/null && echo host_key was moved; ls",
    );
    assert_eq!(tried, "authorized_keys\nhost_key\nsshd_config\n");
}

#[test]
fn a_key_that_cannot_be_used_is_said_at_the_start() {
    if crate::harness::skipped() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    std::fs::create_dir_all(directory.path().join("state/ssh")).unwrap();
    std::fs::create_dir(directory.path().join("store")).unwrap();
    let key = directory.path().join("state/ssh/host_ed25519");
    std::fs::write(&key, "precious\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = directory.path().join("config.toml");
    let text = format!(
        "guest = \"linux\"\nwarm-slots = 0\nsocket = \"{path}/s\"\nstate-directory = \"{path}/state\"\n\
         store-directory = \"{path}/store\"\nuid-base = 2100000000\n[ssh]\nenable = true\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut daemon = Command::new("timeout");
    daemon.args(["30", env!("CARGO_BIN_EXE_host-agent"), "--config"]).arg(&config).arg("daemon");
    let output = daemon.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("host_ed25519 as an ed25519 private key"), "{said}");
    assert_eq!(std::fs::read_to_string(&key).unwrap(), "precious\n");
}
