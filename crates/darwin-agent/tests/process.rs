//! What the process sees, and how its end is reported.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod host;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use host::{Agent, Process};
use protocol::message::{Exit, FromAgent, Streams, ToAgent};

#[test]
fn reports_every_exit_code() {
    for code in [0, 1, 2, 42, 127, 128, 143, 255] {
        assert_eq!(Process::shell(&format!("exit {code}")).run().exit, Exit::Code(code));
    }
}

#[test]
fn reports_death_by_signal_as_a_signal() {
    for signal in [1, 2, 6, 9, 11, 13, 15] {
        assert_eq!(Process::shell(&format!("kill -{signal} $$")).run().exit, Exit::Signal(signal));
    }
}

#[test]
fn takes_argv_0_as_given() {
    let outcome = Process::new("/bin/sh", &["-my own name", "-c", "echo $0; cat /proc/$$/cmdline"]).run();
    assert_eq!(outcome.exit, Exit::Code(0), "{outcome:?}");
    assert_eq!(outcome.stdout(), "-my own name\n-my own name\0-c\0echo $0; cat /proc/$$/cmdline\0");
}

#[test]
fn gives_exactly_the_environment_it_was_given() {
    let mut process = Process::new("/bin/cat", &["cat", "/proc/self/environ"]);
    process.env = vec![
        ("B".into(), "2".into()),
        ("A".into(), b"\xff\xfe=\n\x01".into()),
        ("EMPTY".into(), "".into()),
        (b"\xe9".into(), "latin".into()),
    ];
    assert_eq!(process.run().stdout, b"B=2\0A=\xff\xfe=\n\x01\0EMPTY=\0\xe9=latin\0");
    let mut process = Process::new("/bin/cat", &["cat", "/proc/self/environ"]);
    process.env = Vec::new();
    assert_eq!(process.run().stdout, b"");
}

#[test]
fn starts_in_the_directory_with_the_mask_it_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::shell("pwd; umask; echo > file");
    process.directory = directory.path().into();
    process.umask = 0o027;
    let outcome = process.run();
    let expected = format!("{}\n0027\n", directory.path().display());
    assert_eq!(outcome.stdout(), expected);
    let mode = fs::metadata(directory.path().join("file")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn sets_limits_below_the_hard_ones() {
    let mut process = Process::shell("ulimit -Sc; ulimit -Hc");
    let hard = Process::shell("ulimit -Hc").run().stdout();
    assert_eq!(process.run().stdout(), format!("0\n{hard}"));
    process = Process::shell("head -c 5000 /dev/zero > big; echo $?; wc -c < big");
    let directory = tempfile::tempdir().unwrap();
    process.directory = directory.path().into();
    process.limits.file_size = Some(4096);
    let lines = process.run().stdout();
    let mut lines = lines.lines();
    assert_ne!(lines.next(), Some("0"));
    assert_eq!(lines.next(), Some("4096"));
}

#[test]
fn leaves_only_the_standard_descriptors_open() {
    for process in [Process::shell("ls -1 /proc/$$/fd"), Process::shell("ls -1 /proc/$$/fd").pty()] {
        let mut agent = Agent::start_with(|command| {
            // Descriptors that whoever starts the agent has left open must not reach the build.
            let agent = command.get_program().to_owned();
            *command = Command::new("/bin/sh");
            command.args(["-c", "exec 7</ 9</; exec \"$@\"", "sh"]).arg(agent);
        });
        agent.send_start(process);
        let outcome = agent.outcome();
        assert_eq!([outcome.stdout, outcome.pty].concat(), b"0\n1\n2\n");
    }
}

#[test]
fn leads_a_session_without_a_terminal_with_default_signals() {
    for kind in [Streams::Pipes, Streams::Pty] {
        let mut agent = Agent::start_with(|command| {
            // As under `nohup`, and with SIGCHLD ignored.
            let agent = command.get_program().to_owned();
            *command = Command::new("/bin/sh");
            command.args(["-c", "trap '' HUP CHLD TERM; exec \"$@\"", "sh"]).arg(agent);
        });
        let mut process = Process::new("/bin/cat", &["cat", "/proc/self/status", "/proc/self/stat"]);
        process.streams = kind;
        agent.send_start(process);
        let outcome = agent.outcome();
        let pid = outcome.pid.unwrap();
        let text = String::from_utf8([outcome.stdout, outcome.pty].concat()).unwrap();
        for line in ["SigBlk", "SigIgn", "SigCgt"] {
            assert!(text.contains(&format!("{line}:\t0000000000000000\n")), "{text}");
        }
        // Process group, session, controlling terminal.
        let stat = text.lines().last().unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        assert_eq!(fields[2..5], [&pid.to_string(), &pid.to_string(), "0"], "{stat}");
    }
}

fn failure(process: Process) -> (String, i32) {
    let outcome = process.run();
    assert_eq!(outcome.pid, None);
    match outcome.exit {
        Exit::SpawnFailed { step, errno } => (step, errno),
        other => panic!("expected a failed start, got {other:?}"),
    }
}

#[test]
fn names_the_step_that_failed_and_why() {
    let directory = tempfile::tempdir().unwrap();
    let name = |file: &str| directory.path().join(file).to_str().unwrap().to_owned();
    fs::write(name("plain"), "#!/bin/sh\n").unwrap();
    fs::write(name("orphan"), "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(name("orphan"), fs::Permissions::from_mode(0o755)).unwrap();

    let missing = Process::new("/no/such/builder", &["builder"]);
    assert_eq!(failure(missing), ("execve /no/such/builder".into(), libc::ENOENT));
    let plain = Process::new(&name("plain"), &["plain"]);
    assert_eq!(failure(plain), (format!("execve {}", name("plain")), libc::EACCES));
    let orphan = Process::new(&name("orphan"), &["orphan"]);
    let reason = format!("execve {}: the file is there, its interpreter or loader is not", name("orphan"));
    assert_eq!(failure(orphan), (reason, libc::ENOENT));
    let mut elsewhere = Process::shell("true");
    elsewhere.directory = "/no/such/directory".into();
    assert_eq!(failure(elsewhere), ("chdir /no/such/directory".into(), libc::ENOENT));
    let relative = Process::new("sh", &["sh"]);
    assert_eq!(failure(relative), ("execve sh".into(), libc::ENOENT));
}

#[test]
fn explains_strings_that_are_too_long_for_the_kernel() {
    let mut process = Process::new("/bin/true", &["true", "x"]);
    process.argv[1] = vec![b'x'; 200_000].into();
    process.env = Vec::new();
    let (step, errno) = failure(process);
    assert_eq!(errno, libc::E2BIG);
    assert_eq!(
        step,
        "execve /bin/true: arguments and environment have 200006 bytes, the longest string 200001 \
         (Linux allows 131072 a string, and a quarter of the stack limit, at most 6 MiB, in all)"
    );
}

#[test]
fn accounts_for_time_and_memory() {
    let outcome = Process::shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 0.2").run();
    let usage = outcome.usage;
    assert!(usage.user_micros + usage.system_micros > 10_000, "{usage:?}");
    assert!(usage.wall_micros > 200_000 && usage.wall_micros < 30_000_000, "{usage:?}");
    assert!(usage.max_rss_bytes > 300_000 && usage.max_rss_bytes < 100_000_000, "{usage:?}");
}

#[test]
fn passes_signals_to_the_whole_group() {
    let mut agent = Agent::start(&[]);
    agent.send_start(Process::shell("trap 'wait; echo over; exit 3' TERM; sleep 1000 & echo $!; wait"));
    let sleep: i32 = agent.output_with("\n").trim().parse().unwrap();
    // Before it has executed sleep, the child still has the shell's handler.
    host::wait_for("sleep", || {
        fs::read(format!("/proc/{sleep}/cmdline")).is_ok_and(|line| line == b"sleep\x001000\0")
    });
    agent.send(&ToAgent::Signal(libc::SIGTERM));
    let outcome = agent.outcome();
    assert_eq!((outcome.exit, outcome.stdout), (Exit::Code(3), b"over\n".to_vec()));
    assert!(!host::is_alive(sleep));
}

#[test]
fn reports_what_runs_below_it() {
    let mut agent = Agent::start(&[]);
    agent.send_start(Process::shell("setsid sleep 1000 & echo up; wait"));
    agent.output_with("up");
    // The child may not have executed its program yet.
    let start = Instant::now();
    loop {
        agent.send(&ToAgent::Diagnose);
        let FromAgent::Diagnostics { system, processes, agent_rss_bytes } = agent.receive() else {
            panic!("expected diagnostics");
        };
        assert!(system.starts_with("Linux "), "{system}");
        assert!(agent_rss_bytes > 0);
        if processes.iter().any(|process| &process.command[..] == b"sleep 1000") {
            assert!(processes.len() >= 2, "{processes:?}");
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{processes:?}");
    }
    agent.send(&ToAgent::Signal(libc::SIGKILL));
    assert_eq!(agent.outcome().exit, Exit::Signal(libc::SIGKILL));
}

#[test]
fn misreports_none_of_a_thousand_short_commands() {
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            std::thread::spawn(move || {
                for number in 0..250 {
                    let code = (worker * 250 + number) % 256;
                    let process = Process::shell(&format!("echo {number}; exit {code}"));
                    let outcome = if number % 2 == 0 { process.pty().run() } else { process.run() };
                    assert_eq!(outcome.exit, Exit::Code(code));
                    let text = [&outcome.stdout[..], &outcome.pty].concat();
                    assert_eq!(text, format!("{number}\n").as_bytes());
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
}

#[test]
fn kills_all_of_its_user_only_when_the_user_is_its_own() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/usr/bin/setpriv").exists() {
        eprintln!("skipped: needs root and setpriv");
        return;
    }
    // A user nobody else has: what may be killed is this test's alone.
    let uid = format!("--reuid={}", 1_900_000_000 + std::process::id());
    let mut stranger =
        Command::new("/usr/bin/setpriv").args([&uid, "--clear-groups", "sleep", "1000"]).spawn().unwrap();
    for exclusive in [false, true] {
        let mut agent = Agent::start_with(|command| {
            *command = Command::new("/usr/bin/setpriv");
            command.args([&uid, "--clear-groups"]).arg(host::public_agent());
            if exclusive {
                command.arg("--exclusive-uid");
            }
        });
        agent.send_start(Process::shell("setsid sleep 1000 >/dev/null 2>&1 & echo $!"));
        let outcome = agent.outcome();
        assert_eq!(outcome.exit, Exit::Code(0));
        assert!(!host::is_alive(outcome.stdout().trim().parse().unwrap()));
        assert_eq!(stranger.try_wait().unwrap().is_none(), !exclusive);
    }
    stranger.wait().unwrap();
    fs::remove_file(host::public_agent()).unwrap();
}
