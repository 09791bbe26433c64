//! A process with a stdin: a terminal of its own, or pipes. Shells have it, builds never.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod host;

use std::io::Read;
use std::process::Stdio;

use host::{Agent, Process};
use protocol::limits::CHUNK_MAX;
use protocol::message::{Exit, FromAgent, Streams, TerminalSize, ToAgent};

const SIZE: TerminalSize = TerminalSize { rows: 24, columns: 80 };

fn start(script: &str, streams: Streams) -> Agent {
    let mut agent = Agent::start(&[]);
    agent.control.set_read_timeout(Some(host::LIMIT)).unwrap();
    agent.send_start(Process { streams, ..Process::shell(script) });
    agent.started();
    agent
}

/// Sends a piece and waits until it was taken; what came meanwhile.
fn type_in(agent: &mut Agent, bytes: &[u8]) -> Vec<u8> {
    agent.send(&ToAgent::Input(bytes.into()));
    let mut output = Vec::new();
    loop {
        match agent.receive() {
            FromAgent::InputTaken => return output,
            FromAgent::Output { bytes, .. } => output.extend_from_slice(&bytes),
            other => panic!("expected InputTaken, got {other:?}"),
        }
    }
}

#[test]
fn stdin_through_a_pipe_arrives_whole_and_ends() {
    let mut agent = start("cat", Streams::PipesWithInput);
    let mut sent = Vec::new();
    let mut back = Vec::new();
    for round in 0..40u8 {
        let piece: Vec<u8> = (0..CHUNK_MAX).map(|n| (n as u8).wrapping_mul(31).wrapping_add(round)).collect();
        back.extend(type_in(&mut agent, &piece));
        sent.extend(piece);
    }
    back.extend(type_in(&mut agent, b""));
    let outcome = agent.outcome();
    back.extend(&outcome.stdout);
    assert_eq!(outcome.exit, Exit::Code(0));
    assert!(back == sent, "{} bytes of {} came back", back.len(), sent.len());
}

#[test]
fn input_that_nobody_can_read_any_more_is_thrown_away() {
    let mut agent = start("exec <&-; echo closed; sleep 1", Streams::PipesWithInput);
    agent.output_with("closed");
    for _ in 0..5 {
        type_in(&mut agent, &[b'x'; CHUNK_MAX]);
    }
    assert_eq!(agent.outcome().exit, Exit::Code(0));
}

#[test]
fn a_process_that_does_not_read_holds_up_its_input_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let read = directory.path().join("read");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done; wc -c", read.display());
    let mut agent = start(&script, Streams::PipesWithInput);
    // A pipe holds 64 KiB: the first piece is taken at once, the second only when wc reads.
    type_in(&mut agent, &[b'x'; CHUNK_MAX]);
    agent.send(&ToAgent::Input(vec![b'x'; CHUNK_MAX].into()));
    agent.send(&ToAgent::Ping(5));
    assert_eq!(agent.receive(), FromAgent::Pong(5));
    std::fs::write(&read, "").unwrap();
    assert_eq!(agent.receive(), FromAgent::InputTaken);
    // What wc prints may come before the answer to the end of its input.
    let mut printed = type_in(&mut agent, b"");
    printed.extend(&agent.outcome().stdout);
    assert_eq!(String::from_utf8_lossy(&printed).trim(), (2 * CHUNK_MAX).to_string());
}

#[test]
fn a_terminal_is_the_controlling_one_has_its_size_and_echoes() {
    let mut agent = start(
        "stty size; (: </dev/tty) && echo controlling; read line; echo \"read $line\"; exit 7",
        Streams::Terminal(SIZE),
    );
    assert_eq!(agent.output_with("controlling\r\n"), "24 80\r\ncontrolling\r\n");
    let mut output = type_in(&mut agent, b"some words\n");
    let outcome = agent.outcome();
    output.extend(&outcome.pty);
    assert_eq!(String::from_utf8_lossy(&output), "some words\r\nread some words\r\n");
    assert_eq!(outcome.exit, Exit::Code(7));
}

#[test]
fn a_resized_terminal_tells_the_process() {
    let mut agent = start(
        "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done",
        Streams::Terminal(SIZE),
    );
    agent.output_with("ready");
    agent.send(&ToAgent::Resize(TerminalSize { rows: 50, columns: 132 }));
    agent.output_with("50 132");
    assert_eq!(agent.outcome().exit, Exit::Code(0));
}

#[test]
fn control_c_interrupts_what_runs_in_the_foreground() {
    let script = "trap 'exit 5' INT; echo ready; while :; do sleep 0.05; done";
    let mut agent = start(script, Streams::Terminal(SIZE));
    agent.output_with("ready");
    let _ = type_in(&mut agent, b"\x03");
    assert_eq!(agent.outcome().exit, Exit::Code(5));
}

#[test]
fn input_for_a_build_is_the_hosts_mistake_and_ends_it() {
    for message in [ToAgent::Input("x".into()), ToAgent::Resize(SIZE)] {
        let mut agent = Agent::start_with(|command| {
            command.stderr(Stdio::piped());
        });
        agent.send_start(Process::shell("sleep 100").pty());
        agent.started();
        agent.send(&message);
        let mut stderr = agent.child.stderr.take().unwrap();
        assert_eq!(host::wait(&mut agent.child).code(), Some(1));
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        assert_eq!(
            text,
            "darwin-agent: host sent input for a process that takes none; what ran was killed\n"
        );
    }
}

#[test]
fn input_before_the_last_was_taken_is_the_hosts_mistake() {
    let mut agent = start("sleep 100", Streams::PipesWithInput);
    type_in(&mut agent, &[b'x'; CHUNK_MAX]);
    for _ in 0..2 {
        agent.send(&ToAgent::Input(vec![b'x'; CHUNK_MAX].into()));
    }
    assert_eq!(host::wait(&mut agent.child).code(), Some(1));
}

#[test]
fn input_for_a_process_that_could_not_be_started_is_thrown_away() {
    let mut agent = Agent::start(&[]);
    agent.send_start(Process { streams: Streams::PipesWithInput, ..Process::new("/no/such", &["x"]) });
    agent.send(&ToAgent::Input("x".into()));
    loop {
        match agent.receive() {
            FromAgent::InputTaken => break,
            FromAgent::Exited { exit: Exit::SpawnFailed { .. }, .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(agent.hang_up().success());
}
