//! The connections: greetings, refusals, and what happens when the host goes away.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod host;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use host::{Agent, Process};
use protocol::frame;
use protocol::hello::{Channel, Features, Hello, VERSION_MAX};
use protocol::message::ToAgent;

/// Starts an agent against a host that answers the first greeting with `answer`; its exit status and stderr.
fn refused(answer: &[u8]) -> (Option<i32>, String) {
    let (_directory, path, listener) = host::listen();
    let mut child = Command::new(env!("CARGO_BIN_EXE_darwin-agent"))
        .arg(&path)
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stream = host::accept(&listener);
    stream.write_all(answer).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let status = host::wait(&mut child);
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stdout, "");
    (status.code(), stderr)
}

#[test]
fn says_who_it_is_and_what_it_can() {
    let agent = Agent::start(&[]);
    assert!(agent.greeting.identity.starts_with("darwin-agent "), "{}", agent.greeting.identity);
    assert!(agent.greeting.features.contains(Features::ALL));
    assert_eq!(agent.greeting.version_max, VERSION_MAX);
    assert!(agent.hang_up().success());
}

#[test]
fn refuses_a_host_that_speaks_another_version() {
    let mut hello = Hello::ours(Channel::Control, "from the future");
    (hello.version_min, hello.version_max) = (90, 99);
    let (code, stderr) = refused(&frame::encode(&hello).unwrap());
    assert_eq!(code, Some(1));
    assert_eq!(
        stderr,
        format!(
            "darwin-agent: failed to agree with the host: peer speaks protocol versions 90 to 99, this side 1 to {VERSION_MAX}: \
             install host-agent and darwin-agent from the same release\n"
        )
    );
}

#[test]
fn refuses_a_host_that_is_something_else() {
    let mut hello = Hello::ours(Channel::Control, "stranger");
    hello.magic = *b"imposter";
    let (code, stderr) = refused(&frame::encode(&hello).unwrap());
    assert_eq!(code, Some(1));
    assert!(stderr.contains("peer does not speak the darling-builder protocol"), "{stderr}");

    let (code, stderr) = refused(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
    assert_eq!(code, Some(1));
    assert!(stderr.contains("peer does not speak the darling-builder protocol"), "{stderr}");

    let (code, stderr) = refused(b"");
    assert_eq!(code, Some(1));
    assert_eq!(
        stderr,
        "darwin-agent: failed to agree with the host: peer closed the connection before its greeting\n"
    );

    let (code, stderr) = refused(&frame::encode(&Hello::ours(Channel::Tick, "confused")).unwrap());
    assert_eq!(code, Some(1));
    assert_eq!(stderr, "darwin-agent: host answered for channel Tick on channel Control\n");
}

#[test]
fn refuses_a_socket_path_that_would_be_cut() {
    let path = format!("/tmp/{}", "x".repeat(99));
    let output = Command::new(env!("CARGO_BIN_EXE_darwin-agent")).arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!(
            "darwin-agent: socket path {path} has 104 bytes, at most 103 fit: \
             put the socket into a shorter directory\n"
        )
    );
}

#[test]
fn names_the_socket_it_can_not_reach() {
    let output = Command::new(env!("CARGO_BIN_EXE_darwin-agent")).arg("/no/such/socket").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "darwin-agent: failed to connect to /no/such/socket: No such file or directory (os error 2)\n"
    );
}

/// Starts something that would run on, with a child in another session; the process ids.
fn long_build(agent: &mut Agent) -> Vec<i32> {
    agent.send_start(Process::shell("echo $$; setsid sleep 1000 & echo $!; echo up; wait"));
    agent.output_with("up\n").lines().filter_map(|line| line.parse().ok()).collect()
}

#[test]
fn kills_the_build_when_either_connection_closes() {
    for close_control in [true, false] {
        let mut agent = Agent::start(&[]);
        let pids = long_build(&mut agent);
        assert_eq!(pids.len(), 2);
        let Agent { mut child, control, tick, .. } = agent;
        let kept = if close_control {
            drop(control);
            tick
        } else {
            drop(tick);
            control
        };
        let status = host::wait(&mut child);
        assert_eq!(status.code(), Some(1));
        for pid in pids {
            assert!(!host::is_alive(pid));
        }
        drop(kept);
    }
}

#[test]
fn kills_the_build_when_the_host_closes_while_output_is_stuck() {
    let mut agent = Agent::start(&[]);
    agent.send_start(Process::new("/usr/bin/yes", &["yes"]));
    let pid = agent.started();
    thread::sleep(Duration::from_millis(200));
    assert_eq!(agent.hang_up().code(), Some(1));
    assert!(!host::is_alive(pid));
}

#[test]
fn refuses_a_second_build() {
    let mut agent = Agent::start(&[]);
    let pids = long_build(&mut agent);
    agent.send(&ToAgent::Start);
    let mut child = agent.child;
    assert_eq!(host::wait(&mut child).code(), Some(1));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(
        stderr,
        "darwin-agent: host sent Start after Start: an agent runs one process, start another agent; \
         what ran was killed\n"
    );
    for pid in pids {
        assert!(!host::is_alive(pid));
    }
}

#[test]
fn ends_with_a_clear_message_when_the_host_sends_rubbish() {
    for (rubbish, message) in [
        (&b"\xff\xff\xff\xff"[..], "frame of 4294967295 bytes exceeds the limit of 1048576 bytes"),
        (b"\x04\0\0\0\xff\0\0\0", "malformed frame: "),
        (b"\x05\0\0\0\x04\0\0\0\0", "frame has 1 bytes after its message"),
        (b"\x05\0", "connection closed in the middle of a frame"),
    ] {
        let mut agent = Agent::start(&[]);
        let pids = long_build(&mut agent);
        agent.control.write_all(rubbish).unwrap();
        agent.control.shutdown(std::net::Shutdown::Write).unwrap();
        let mut child = agent.child;
        assert_eq!(host::wait(&mut child).code(), Some(1));
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert!(stderr.contains(message), "{stderr}");
        for pid in pids {
            assert!(!host::is_alive(pid));
        }
    }
}
