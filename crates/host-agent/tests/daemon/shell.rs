//! `host-agent shell`: the program itself, on pipes and on a terminal, against the real daemon.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use host_agent::control::client::{Client, Place, ShellEvent};
use host_agent::control::shell::{ShellEnd, ShellRequest};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Daemon, LIMIT, darling, skipped};
use crate::terminal::OnTerminal;

const SECOND: Duration = Duration::from_secs(1);

fn command(daemon: &Daemon, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_host-agent"));
    command.arg("--config").arg(daemon.directory.path().join("config.toml")).arg("shell");
    if !words.is_empty() {
        command.arg("--").args(words);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(daemon: &Daemon, words: &[&str]) -> Output {
    command(daemon, words).output().unwrap()
}

fn busy(daemon: &Daemon) -> bool {
    daemon.status().slots.iter().any(|slot| slot.state == "busy")
}

#[test]
fn a_command_runs_in_a_slot_with_its_streams_and_status() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let output = run(&daemon, &["/bin/sh", "-c", "echo out; echo err >&2; pwd; exit 7"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n/build\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "err\n");
    assert_eq!(output.status.code(), Some(7));
    let output = run(&daemon, &["uname", "-sm"]);
    let system = if darling() { "Darwin x86_64\n" } else { "Linux x86_64\n" };
    assert_eq!(String::from_utf8_lossy(&output.stdout), system);
    assert!(output.status.success());
    assert_eq!(daemon.status().succeeded, 0, "a shell is no build");
}

#[test]
fn what_could_not_run_and_what_a_signal_ended_have_the_statuses_of_shells() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let status = |words: &[&str]| run(&daemon, words).status.code();
    assert_eq!(status(&["/no/such/program"]), Some(127));
    assert_eq!(status(&["no-such-program"]), Some(127));
    assert_eq!(status(&["/build"]), Some(126));
    assert_eq!(status(&["/bin/sh", "-c", "kill -KILL $$"]), Some(137));
}

#[test]
fn stdin_reaches_the_command_whole() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut child = command(&daemon, &["/bin/cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.stdout == sent, "{} bytes of {}", output.stdout.len(), sent.len());
    assert!(output.status.success());
}

#[test]
fn without_a_command_the_guests_shell_reads_its_commands_from_stdin() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let mut child = command(&daemon, &[]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"cd /; pwd\nexit 4\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/\n");
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn an_interactive_shell_has_a_terminal_of_that_size_and_returns_its_status() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let mut shell = OnTerminal::start(&mut command(&daemon, &[]));
    shell.types("stty size; echo term=$TERM; (: < /dev/tty) && echo its ow''n\r");
    shell.shows("40 100\r\n");
    shell.shows("term=vt100\r\n");
    shell.shows("its own\r\n");
    assert!(shell.is_raw());
    shell.resize(50, 132);
    daemon.eventually(LIMIT, "busy", || busy(&daemon));
    shell.types("sleep 0.2; stty size\r");
    shell.shows("50 132\r\n");
    shell.types("exit 5\r");
    assert_eq!(shell.ends().code(), Some(5));
    assert!(!shell.is_raw(), "the terminal was not given back");
    daemon.eventually(SECOND, "slot gone", || !busy(&daemon));
}

#[test]
fn control_c_goes_to_what_runs_in_the_shell_and_not_to_us() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let mut shell = OnTerminal::start(&mut command(&daemon, &[]));
    shell.types("sleep 100; echo not re''ached\r");
    daemon.eventually(LIMIT, "sleeping", || daemon.sleepers() == 1);
    shell.types("\x03");
    daemon.eventually(LIMIT, "interrupted", || daemon.sleepers() == 0);
    shell.types("echo still he''re; exit 0\r");
    shell.shows("still here\r\n");
    assert!(!String::from_utf8_lossy(&shell.seen).contains("not reached"));
    assert_eq!(shell.ends().code(), Some(0));
}

#[test]
fn a_killed_shell_takes_its_slot_with_it() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let mut shell = OnTerminal::start(&mut command(&daemon, &[]));
    shell.types("trap '' HUP TERM; sleep 100 & (setsid sleep 100 || sleep 100)\r");
    daemon.eventually(LIMIT, "sleeping", || daemon.sleepers() >= 2);
    shell.child.kill().unwrap();
    daemon.eventually(SECOND, "processes dead", || daemon.sleepers() == 0);
    daemon.eventually(SECOND, "slot gone", || !busy(&daemon));
    // Asked to end, it gives the terminal back as well.
    let mut shell = OnTerminal::start(&mut command(&daemon, &[]));
    shell.types("sleep 100\r");
    daemon.eventually(LIMIT, "sleeping", || daemon.sleepers() == 1);
    kill(Pid::from_raw(shell.child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(shell.ends().code(), Some(128 + 15));
    assert!(!shell.is_raw());
    daemon.eventually(SECOND, "processes dead", || daemon.sleepers() == 0);
}

#[test]
fn a_stopped_daemon_ends_the_shell_with_the_reason() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let mut shell = OnTerminal::start(&mut command(&daemon, &["/bin/sh", "-c", "echo ready; sleep 100"]));
    shell.shows("ready");
    kill(Pid::from_raw(daemon.child.id() as i32), Signal::SIGTERM).unwrap();
    shell.shows("host-agent: the shell was lost: the daemon was stopped");
    assert_eq!(shell.ends().code(), Some(125));
    assert!(!shell.is_raw());
}

#[test]
fn a_shell_takes_a_place_and_is_refused_when_there_is_none() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("max-jobs = 1\nqueue-limit = 0");
    let mut first = OnTerminal::start(&mut command(&daemon, &["/bin/sh", "-c", "echo ready; sleep 100"]));
    first.shows("ready");
    let second = run(&daemon, &["/bin/sh", "-c", "echo no"]);
    assert_eq!(second.status.code(), Some(125));
    assert_eq!(
        String::from_utf8_lossy(&second.stderr),
        "host-agent: failed to get a place for a shell: 1 builds run and 0 wait already\n"
    );
}

#[test]
fn whoever_may_build_may_have_a_shell_and_nobody_else() {
    if skipped() {
        return;
    }
    const UID: u32 = 1_234_567;
    let daemon = Daemon::start(&format!("allowed-uids = [{UID}]"));
    let as_uid = |uid| daemon.program_as(uid).args(["shell", "--", "/bin/echo", "hello"]).output().unwrap();
    assert_eq!(as_uid(UID).stdout, b"hello\n");
    let refused = as_uid(UID + 1);
    assert_eq!(refused.status.code(), Some(125));
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(reason.contains("neither root nor a member"), "{reason}");
}

#[test]
fn a_front_end_that_does_not_wait_for_its_input_to_be_taken_loses_the_shell() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let mut client: Client = daemon.connect();
    assert!(matches!(client.reserve().unwrap(), Place::Reserved { .. }));
    let command = ["/bin/sleep", "100"].map(|word| word.into()).into();
    client.shell(ShellRequest { command, env: Vec::new(), terminal: None }).unwrap();
    while !matches!(
        client.next_shell_event().unwrap(),
        ShellEvent::Phase(host_agent::request::BuildPhase::Building)
    ) {}
    // A pipe holds 64 KiB and nobody reads it: the second piece is not taken.
    for _ in 0..3 {
        client.shell_input(&[0; 60_000]).unwrap();
    }
    let end = loop {
        match client.next_shell_event().unwrap() {
            ShellEvent::Ended(end) => break end,
            ShellEvent::InputTaken => {}
            other => panic!("unexpected {other:?}"),
        }
    };
    let ShellEnd::Lost(reason) = end else { panic!("{end:?}") };
    assert!(reason.contains("makes no sense"), "{reason}");
    assert_eq!(daemon.sleepers(), 0);
}
