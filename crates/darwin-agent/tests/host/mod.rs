//! The host's side of an agent, for tests: listens, greets, sends a request, collects what comes back.
#![allow(dead_code, reason = "each test file uses its part")]

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use protocol::ByteString;
use protocol::frame;
use protocol::hello::{Channel, Hello};
use protocol::message::{Exit, FromAgent, ResourceLimits, Stream, Streams, ToAgent, Usage};
use tempfile::TempDir;

/// A test that waits longer than this has failed.
pub const LIMIT: Duration = Duration::from_secs(30);

/// What to run.
pub struct Process {
    pub program: ByteString,
    pub directory: ByteString,
    pub streams: Streams,
    pub umask: u32,
    pub argv: Vec<ByteString>,
    pub env: Vec<(ByteString, ByteString)>,
    pub limits: ResourceLimits,
}

impl Process {
    /// A shell script, streams as pipes, `PATH` as the only variable.
    pub fn shell(script: &str) -> Self {
        Self::new("/bin/sh", &["sh", "-c", script])
    }

    pub fn new(program: &str, argv: &[&str]) -> Self {
        Self {
            program: program.into(),
            directory: "/".into(),
            streams: Streams::Pipes,
            umask: 0o022,
            argv: argv.iter().map(|argument| (*argument).into()).collect(),
            env: vec![("PATH".into(), "/usr/bin:/bin:/usr/sbin:/sbin".into())],
            limits: ResourceLimits { core: 0, file_size: None },
        }
    }

    pub fn pty(mut self) -> Self {
        self.streams = Streams::Pty;
        self
    }

    pub fn run(self) -> Outcome {
        let mut agent = Agent::start(&[]);
        agent.send_start(self);
        agent.outcome()
    }
}

/// What came back.
#[derive(Debug)]
pub struct Outcome {
    pub pid: Option<i32>,
    pub exit: Exit,
    pub usage: Usage,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub pty: Vec<u8>,
    pub pongs: Vec<u64>,
    /// When the end was reported.
    pub reported: Instant,
}

impl Outcome {
    pub fn stdout(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }
}

/// A running agent, greeted on both channels.
pub struct Agent {
    pub child: Child,
    pub control: UnixStream,
    pub tick: UnixStream,
    pub directory: TempDir,
    pub greeting: Hello,
}

impl Agent {
    pub fn start(flags: &[&str]) -> Self {
        let flags: Vec<OsString> = flags.iter().map(OsString::from).collect();
        Self::start_with(|command| {
            command.args(&flags);
        })
    }

    /// `prepare` may change how the agent is started.
    pub fn start_with(prepare: impl FnOnce(&mut Command)) -> Self {
        Self::launch(|path| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_darwin-agent"));
            prepare(&mut command);
            command.arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            command
        })
    }

    /// Any agent that is told to connect to this path.
    pub fn launch(command: impl FnOnce(&Path) -> Command) -> Self {
        let (directory, path, listener) = listen();
        let child = command(&path).spawn().unwrap();
        let (control, greeting) = greet(&listener, Channel::Control);
        let (tick, _) = greet(&listener, Channel::Tick);
        Self { child, control, tick, directory, greeting }
    }

    pub fn send(&mut self, message: &ToAgent) {
        frame::write(&mut self.control, message).unwrap();
    }

    pub fn send_start(&mut self, process: Process) {
        self.send(&ToAgent::Prepare {
            program: process.program,
            directory: process.directory,
            streams: process.streams,
            umask: process.umask,
        });
        for argument in process.argv {
            self.send(&ToAgent::Arguments(vec![argument]));
        }
        for variable in process.env {
            self.send(&ToAgent::Environment(vec![variable]));
        }
        self.send(&ToAgent::Limits(process.limits));
        self.send(&ToAgent::Start);
    }

    pub fn receive(&mut self) -> FromAgent {
        frame::read(&mut self.control).unwrap().expect("the agent hung up")
    }

    /// Reads until `Started`.
    pub fn started(&mut self) -> i32 {
        match self.receive() {
            FromAgent::Started { pid } => pid,
            other => panic!("expected Started, got {other:?}"),
        }
    }

    /// Reads output until `text` has come.
    pub fn output_with(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.receive() {
                FromAgent::Output { bytes, .. } => seen.extend_from_slice(&bytes),
                FromAgent::Started { .. } => {}
                other => panic!("expected output, got {other:?}"),
            }
            let so_far = String::from_utf8_lossy(&seen).into_owned();
            if so_far.contains(text) {
                return so_far;
            }
        }
    }

    /// Reads to the end, hangs up, and waits for the agent.
    pub fn outcome(self) -> Outcome {
        let (outcome, status) = self.outcome_and_status();
        assert!(status.success(), "the agent ended with {status}");
        outcome
    }

    pub fn outcome_and_status(mut self) -> (Outcome, ExitStatus) {
        let mut outcome = Outcome {
            pid: None,
            exit: Exit::Killed,
            usage: Usage::default(),
            stdout: Vec::new(),
            stderr: Vec::new(),
            pty: Vec::new(),
            pongs: Vec::new(),
            reported: Instant::now(),
        };
        let mut last = 0;
        loop {
            match self.receive() {
                FromAgent::Started { pid } => outcome.pid = Some(pid),
                FromAgent::Output { stream, at_micros, bytes } => {
                    assert!(at_micros >= last, "timestamps go backwards");
                    assert!(!bytes.is_empty() && bytes.len() <= protocol::limits::CHUNK_MAX);
                    last = at_micros;
                    match stream {
                        Stream::Stdout => outcome.stdout.extend_from_slice(&bytes),
                        Stream::Stderr => outcome.stderr.extend_from_slice(&bytes),
                        Stream::Pty => outcome.pty.extend_from_slice(&bytes),
                    }
                }
                FromAgent::Exited { exit, usage } => {
                    outcome.exit = exit;
                    outcome.usage = usage;
                    outcome.reported = Instant::now();
                    break;
                }
                FromAgent::Pong(number) => outcome.pongs.push(number),
                other @ (FromAgent::Diagnostics { .. } | FromAgent::InputTaken) => {
                    panic!("unexpected {other:?}")
                }
            }
        }
        let status = self.hang_up();
        (outcome, status)
    }

    /// Closes both connections and waits for the agent.
    pub fn hang_up(self) -> ExitStatus {
        let Self { mut child, control, tick, .. } = self;
        drop((control, tick));
        wait(&mut child)
    }

    /// One round of the tick.
    pub fn tick(&mut self, byte: u8) -> Duration {
        let start = Instant::now();
        self.tick.write_all(&[byte]).unwrap();
        let mut back = [0];
        self.tick.read_exact(&mut back).unwrap();
        assert_eq!(back, [byte]);
        start.elapsed()
    }
}

/// A listening socket in a directory of its own.
pub fn listen() -> (TempDir, PathBuf, UnixListener) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    // For agents that run as another user.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
    (directory, path, listener)
}

/// The agent where every user can execute it, which a build directory below a home need not be.
pub fn public_agent() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("darwin-agent-test-{}", std::process::id()));
        // By another process: a thread that forks meanwhile would keep our descriptor open for writing, and such a file can't be
        // executed.
        let mut copy = Command::new("install");
        copy.args(["-m", "755", env!("CARGO_BIN_EXE_darwin-agent")]).arg(&path);
        assert!(copy.status().unwrap().success());
        path
    });
    made.clone()
}

/// Accepts one connection and exchanges greetings.
pub fn greet(listener: &UnixListener, channel: Channel) -> (UnixStream, Hello) {
    let mut stream = accept(listener);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    frame::write(&mut stream, &Hello::ours(channel, "test host")).unwrap();
    let theirs: Hello = frame::read(&mut stream).unwrap().unwrap();
    assert_eq!(theirs.channel, channel);
    theirs.agree(&Hello::ours(channel, "test host")).unwrap();
    (stream, theirs)
}

/// Accepts one connection, with a limit.
pub fn accept(listener: &UnixListener) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                assert!(start.elapsed() < LIMIT, "the agent does not connect");
                thread::sleep(Duration::from_micros(200));
            }
        }
    }
}

/// Waits for the agent's end, with a limit.
pub fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("the agent does not end");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a process exists and has not ended.
pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

/// Waits until a process is gone.
pub fn wait_until_gone(pid: i32) {
    wait_for("the end of a process", || !is_alive(pid));
}

/// Waits until something holds, with a limit.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
