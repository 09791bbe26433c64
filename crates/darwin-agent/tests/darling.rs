//! The Mach-O agent inside Darling. Skipped unless `DARWIN_AGENT_MACHO` names it (`cargo xtask darwin` makes it) and
//! `darling` is on PATH; needs root. One test, because one prefix serves all of it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod host;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use host::{Agent, Outcome, Process};
use protocol::message::{Exit, FromAgent, ToAgent};

struct Darling {
    directory: tempfile::TempDir,
}

impl Darling {
    fn command(&self) -> Command {
        // A collision with a randomised address kills one exec in some thousands.
        let mut command = Command::new("setarch");
        command.args(["-R", "darling"]);
        command.env("DPREFIX", self.directory.path().join("prefix"));
        // No pipe of ours: the server keeps its first caller's streams open for ever.
        let log =
            || File::options().append(true).create(true).open(self.directory.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        command
    }

    fn boot() -> Option<(Self, String)> {
        let agent = std::env::var("DARWIN_AGENT_MACHO").ok()?;
        let found = std::env::split_paths(&std::env::var_os("PATH")?).any(|p| p.join("darling").exists());
        if !found || !nix::unistd::geteuid().is_root() {
            return None;
        }
        let darling = Self { directory: tempfile::tempdir().unwrap() };
        let status = darling.command().args(["shell", "/usr/bin/true"]).status().unwrap();
        assert!(status.success());
        Some((darling, format!("/Volumes/SystemRoot{agent}")))
    }

    fn agent(&self, agent: &str) -> Agent {
        Agent::launch(|socket: &Path| {
            let mut command = self.command();
            command.args(["shell", agent, &format!("/Volumes/SystemRoot{}", socket.display())]);
            command
        })
    }
}

impl Drop for Darling {
    fn drop(&mut self) {
        let _ = self.command().arg("shutdown").status();
        if std::thread::panicking()
            && let Ok(log) = fs::read_to_string(self.directory.path().join("log"))
        {
            eprintln!("{log}");
        }
    }
}

/// Waits for the launcher as well, but believes only the agent.
fn outcome(agent: Agent) -> Outcome {
    agent.outcome_and_status().0
}

#[test]
fn works_inside_darling() {
    let Some((darling, path)) = Darling::boot() else {
        eprintln!("skipped: needs DARWIN_AGENT_MACHO, darling on PATH, and root");
        return;
    };
    let run = |process: Process| {
        let mut agent = darling.agent(&path);
        agent.send_start(process);
        outcome(agent)
    };

    let greeting = darling.agent(&path).greeting;
    assert!(greeting.identity.contains("(Darwin "), "{}", greeting.identity);

    let hello = run(Process::shell("uname -s; test -t 1 || echo pipe; echo err >&2; exit 3"));
    assert_eq!(hello.exit, Exit::Code(3), "{hello:?}");
    assert_eq!((&hello.stdout[..], &hello.stderr[..]), (&b"Darwin\npipe\n"[..], &b"err\n"[..]));
    assert!(hello.usage.max_rss_bytes > 1 << 20 && hello.usage.max_rss_bytes < 1 << 30, "{hello:?}");

    let terminal = run(Process::shell("test -t 1 && test -t 2 && printf 'a\\nb\\n'").pty());
    assert_eq!((terminal.exit, &terminal.pty[..]), (Exit::Code(0), &b"a\nb\n"[..]));

    let mut exact = Process::new("/usr/bin/env", &["env"]);
    exact.env = vec![("B".into(), b"\xff".into()), ("A".into(), "".into())];
    // Darling gives every program one empty entry more, in place of a variable of its own loader.
    assert_eq!(run(exact).stdout, b"\nB=\xff\nA=\n");

    let named = run(Process::new("/bin/sh", &["-my name", "-c", "echo $0; umask; ulimit -c"]));
    assert_eq!(named.stdout(), "-my name\n0022\n0\n");

    let killed = run(Process::shell("kill -9 $$"));
    assert_eq!(killed.exit, Exit::Signal(9));

    let missing = run(Process::new("/no/such/builder", &["builder"]));
    assert_eq!(missing.exit, Exit::SpawnFailed { step: "execve /no/such/builder".into(), errno: 2 });
    let mut long = Process::new("/usr/bin/true", &["true", "x"]);
    long.argv[1] = vec![b'x'; 200_000].into();
    match run(long).exit {
        Exit::SpawnFailed { step, errno: 7 } => assert!(step.contains("131072 a string"), "{step}"),
        other => panic!("{other:?}"),
    }

    let many = run(Process::shell("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done").pty());
    let expected: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    assert!(many.pty == expected.as_bytes(), "{} bytes", many.pty.len());

    for process in ["sleep 1000 & exit 5", "(sleep 1000 &) ; exit 5"] {
        for process in [Process::shell(process), Process::shell(process).pty()] {
            let start = Instant::now();
            assert_eq!(run(process).exit, Exit::Code(5));
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        }
    }

    let mut agent = darling.agent(&path);
    agent.send_start(Process::shell("echo up; while :; do echo line line line line; done").pty());
    agent.output_with("up");
    std::thread::sleep(Duration::from_millis(300));
    for byte in 0..50 {
        assert!(agent.tick(byte) < Duration::from_secs(2));
    }
    agent.send(&ToAgent::Diagnose);
    let stuck_rss = loop {
        if let FromAgent::Diagnostics { agent_rss_bytes, .. } = agent.receive() {
            break agent_rss_bytes;
        }
    };
    assert!(stuck_rss > 0 && stuck_rss < 10 << 20, "{stuck_rss}");
    agent.send(&ToAgent::Signal(9));
    assert_eq!(outcome(agent).exit, Exit::Signal(9));

    let mut agent = darling.agent(&path);
    agent.send_start(Process::shell("sleep 1000 & echo up; wait"));
    agent.output_with("up");
    agent.send(&ToAgent::Diagnose);
    let FromAgent::Diagnostics { system, processes, agent_rss_bytes } = agent.receive() else {
        panic!("expected diagnostics");
    };
    assert!(system.starts_with("Darwin "), "{system}");
    let kib = [agent_rss_bytes / 1024, stuck_rss / 1024];
    eprintln!("resident memory of the agent, idle and with output stuck, KiB: {kib:?}");
    assert!(processes.len() >= 2, "{processes:?}");
    agent.send(&ToAgent::Signal(15));
    assert_eq!(outcome(agent).exit, Exit::Signal(15));

    let (mut walls, mut answers) = (Vec::new(), Vec::new());
    for number in 0..100 {
        let mut agent = darling.agent(&path);
        let start = Instant::now();
        agent.send_start(Process::shell(&format!("echo {number}; exit {number}")).pty());
        let ended = outcome(agent);
        answers.push(ended.reported - start);
        assert_eq!((ended.exit, &ended.pty[..]), (Exit::Code(number), format!("{number}\n").as_bytes()));
        walls.push(Duration::from_micros(ended.usage.wall_micros));
    }
    walls.sort();
    answers.sort();
    eprintln!(
        "a shell that prints a line, median of 100: {:?}; with all from the request to the report: {:?}",
        walls[50], answers[50]
    );
}
