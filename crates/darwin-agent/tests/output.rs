//! Output: whole, in order, with back-pressure, and never waited for in vain.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod host;

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use host::{Agent, Process};
use protocol::message::{Exit, FromAgent, ToAgent};

#[test]
fn gives_a_terminal_in_raw_mode() {
    let outcome = Process::shell("test -t 1 && test -t 2 && ! test -t 0 && printf 'a\\nb\\n' && stty -a <&1")
        .pty()
        .run();
    assert_eq!(outcome.exit, Exit::Code(0), "{outcome:?}");
    let text = String::from_utf8(outcome.pty).unwrap();
    assert!(text.starts_with("a\nb\n"), "{text}");
    for mode in ["-opost", "-echo", "-icanon", "-isig"] {
        assert!(text.contains(mode), "{mode}: {text}");
    }
    assert_eq!((outcome.stdout, outcome.stderr), (vec![], vec![]));
}

#[test]
fn keeps_the_pipes_apart() {
    let outcome =
        Process::shell("echo out; echo err >&2; test -t 1 || echo pipe; read x || echo empty").run();
    assert_eq!(outcome.stdout, b"out\npipe\nempty\n");
    assert_eq!(outcome.stderr, b"err\n");
    assert_eq!(outcome.pty, b"");
}

/// About 10 MB that differ in every line.
const NUMBERS: &str = "seq 1000000 2250000";

fn numbers() -> Vec<u8> {
    let mut text = String::new();
    for number in 1_000_000..=2_250_000 {
        text.push_str(&number.to_string());
        text.push('\n');
    }
    text.into_bytes()
}

#[test]
fn loses_nothing_of_ten_megabytes_with_a_slow_reader() {
    for process in [Process::shell(NUMBERS), Process::shell(NUMBERS).pty()] {
        let mut agent = Agent::start(&[]);
        agent.send_start(process);
        // Nobody reads: everything between here and there fills up, and the process has to wait.
        thread::sleep(Duration::from_millis(300));
        let outcome = agent.outcome();
        assert_eq!(outcome.exit, Exit::Code(0));
        let all = [outcome.stdout, outcome.pty].concat();
        assert_eq!(all.len(), numbers().len());
        assert!(all == numbers(), "bytes differ");
    }
}

#[test]
fn keeps_what_was_written_right_before_the_end() {
    for _ in 0..100 {
        let outcome = Process::shell("head -c 3000 /dev/zero; echo end; kill -9 $$").pty().run();
        assert_eq!((outcome.exit, outcome.pty.len()), (Exit::Signal(9), 3004));
    }
}

#[test]
fn holds_no_more_than_a_few_chunks_while_the_host_does_not_read() {
    let mut agent = Agent::start(&[]);
    agent.send_start(Process::new("/usr/bin/yes", &["yes"]));
    agent.started();
    thread::sleep(Duration::from_millis(500));
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.child.id())).unwrap();
    let rss = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
    let kib: u64 = rss.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 10 << 10, "{rss}");
    agent.send(&ToAgent::Signal(libc::SIGKILL));
    assert_eq!(agent.outcome().exit, Exit::Signal(libc::SIGKILL));
}

#[test]
fn answers_the_tick_and_takes_signals_while_output_is_stuck() {
    let mut agent = Agent::start(&[]);
    agent.send_start(Process::new("/usr/bin/yes", &["yes"]).pty());
    agent.started();
    thread::sleep(Duration::from_millis(200));
    for byte in 0..50 {
        let took = agent.tick(byte);
        assert!(took >= Duration::from_micros(500), "{took:?}");
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    // More than the agent keeps: it must go on reading, whatever becomes of the answers.
    for number in 0..1000 {
        agent.send(&ToAgent::Ping(number));
    }
    let yes = child_of(agent.child.id());
    agent.send(&ToAgent::Signal(libc::SIGKILL));
    host::wait_until_gone(yes);
    let outcome = agent.outcome();
    assert_eq!(outcome.exit, Exit::Signal(libc::SIGKILL));
    assert_eq!(outcome.pongs.first(), Some(&0));
}

#[test]
fn answers_as_many_ticks_at_once_as_may_be_under_way() {
    let mut agent = Agent::start(&[]);
    for _ in 0..200 {
        let sent: Vec<u8> = (0..protocol::limits::TICKS_UNDER_WAY as u8).collect();
        agent.tick.write_all(&sent).unwrap();
        let mut back = vec![0; sent.len()];
        agent.tick.read_exact(&mut back).unwrap();
        back.sort_unstable();
        assert_eq!(back, sent);
    }
    // One thread would answer them all as well, and in Darling for ever wait with them for a sleep that is lost.
    let tasks = std::fs::read_dir(format!("/proc/{}/task", agent.child.id())).unwrap();
    let named = tasks.filter(|task| {
        let name = std::fs::read_to_string(task.as_ref().unwrap().path().join("comm"));
        name.is_ok_and(|name| name == "tick\n")
    });
    assert_eq!(named.count(), protocol::limits::TICKS_UNDER_WAY);
}

fn child_of(pid: u32) -> i32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn lets_replies_overtake_output() {
    let mut agent = Agent::start(&[]);
    agent.send_start(Process::shell("seq 1 1000000"));
    agent.send(&ToAgent::Ping(7));
    let mut output = 0;
    loop {
        match agent.receive() {
            FromAgent::Pong(number) => break assert_eq!(number, 7),
            FromAgent::Output { bytes, .. } => output += bytes.len(),
            FromAgent::Started { .. } => {}
            other => panic!("{other:?} before the answer, after {output} bytes"),
        }
    }
    assert_eq!(agent.outcome().exit, Exit::Code(0));
}

/// Runs a script that leaves something behind, and returns that one's process id.
fn left_behind(script: &str) -> i32 {
    for process in [Process::shell(script), Process::shell(script).pty()] {
        let start = Instant::now();
        let outcome = process.run();
        assert_eq!(outcome.exit, Exit::Code(5), "{outcome:?}");
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        let text = String::from_utf8([outcome.stdout, outcome.pty].concat()).unwrap();
        let pid = text.trim().parse().unwrap();
        // Not only soon: by the time the end was reported.
        assert!(!host::is_alive(pid), "{script}");
    }
    0
}

#[test]
fn kills_a_background_process_that_holds_the_streams() {
    left_behind("sleep 1000 & echo $!; exit 5");
}

#[test]
fn kills_a_child_that_made_its_own_session() {
    left_behind("setsid sh -c 'echo $$; trap \"\" TERM HUP; exec sleep 1000' & sleep 0.3; exit 5");
}

#[test]
fn kills_an_orphan_whose_parents_are_gone() {
    left_behind("setsid sh -c 'setsid sleep 1000 & echo $!' & sleep 0.3; exit 5");
}
