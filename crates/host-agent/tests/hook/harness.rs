//! Nix's side of a hook, and a daemon that does as it is told.
#![expect(unsafe_code, reason = "a hook expects its descriptors under certain numbers")]

use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use host_agent::control::message::{CONTROL_VERSION, FromDaemon, ToDaemon};
use host_agent::nix::question::{Order, Question};
use host_agent::nix::wire;
use host_agent::request::BuildRequest;
use protocol::frame;

/// Longest that any step may take.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Base name of the derivation that [`World::derivation`] writes.
pub const DERIVATION: &str = "00000000000000000000000000000000-t.drv";
/// Base name of its output.
pub const OUTPUT: &str = "11111111111111111111111111111111-t";

/// A store, a configuration and a fake `nix-store`.
pub struct World {
    pub directory: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let world = Self { directory: tempfile::Builder::new().prefix("dbh").tempdir().unwrap() };
        for directory in ["store", "staged", "bin"] {
            std::fs::create_dir(world.path(directory)).unwrap();
        }
        let path = world.directory.path().display();
        let config = format!("socket = \"{path}/s\"\nstore-directory = \"{path}/store\"\n");
        std::fs::write(world.path("config.toml"), config).unwrap();
        world.program("nix-store", "echo \"$@\" > $0.args; cat > $0.stdin\n");
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// A shell script that the hook finds on its `PATH`.
    pub fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Writes a derivation with one output `out`; `output` are its remaining fields, `builder` is quoted.
    pub fn derivation(&self, output: &str, builder: &str) {
        let store = self.path("store");
        let out = if output == r#""","""# { store.join(OUTPUT).display().to_string() } else { String::new() };
        let text = format!(
            r#"Derive([("out","{out}",{output})],[],[],"x86_64-darwin","{builder}",["-c","true"],[("name","t")])"#
        );
        std::fs::write(store.join(DERIVATION), text).unwrap();
    }

    /// Writes a fixed-output derivation.
    pub fn fixed_derivation(&self, hash: &str) {
        let store = self.path("store");
        let text = format!(
            r#"Derive([("out","{}","sha256","{hash}")],[],[],"x86_64-darwin","/bin/sh",[],[])"#,
            store.join(OUTPUT).display()
        );
        std::fs::write(store.join(DERIVATION), text).unwrap();
    }

    pub fn question(&self, system: &str) -> Question {
        Question {
            willing: true,
            system: system.into(),
            derivation: self.path("store").join(DERIVATION).into_os_string().into_encoded_bytes(),
            features: vec![],
        }
    }

    /// Plays the daemon for one connection after another; each `serve` gets one that has been greeted.
    pub fn daemon<T: Send + 'static>(
        &self,
        connections: usize,
        serve: impl Fn(usize, Connection) -> T + Send + 'static,
    ) -> JoinHandle<Vec<T>> {
        let listener = UnixListener::bind(self.path("s")).unwrap();
        std::thread::spawn(move || {
            (0..connections)
                .map(|index| {
                    let (stream, _) = listener.accept().unwrap();
                    stream.set_read_timeout(Some(LIMIT)).unwrap();
                    let mut connection = Connection(stream);
                    assert!(matches!(connection.receive(), Some(ToDaemon::Hello { .. })));
                    connection.send(&FromDaemon::Hello { version: CONTROL_VERSION, program: "test".into() });
                    assert_eq!(connection.receive(), Some(ToDaemon::Reserve));
                    serve(index, connection)
                })
                .collect()
        })
    }

    /// Starts the hook as Nix does, with these settings.
    pub fn hook(&self, settings: &[(&str, &str)]) -> Hook {
        let mut hook = self.silent_hook();
        hook.send(&settings_block(settings));
        hook
    }

    /// Starts the hook and sends nothing.
    pub fn silent_hook(&self) -> Hook {
        let (replies, its_replies) = io::pipe().unwrap();
        let (log, its_log) = io::pipe().unwrap();
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(its_replies.try_clone().unwrap()).stderr(its_replies);
        // Above 5, so that one dup2 can't overwrite the other's source.
        let high = |fd: std::os::fd::BorrowedFd<'_>| {
            nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(10)).unwrap()
        };
        let (write_end, read_end) = (high(its_log.as_fd()), high(log.as_fd()));
        // SAFETY: only dup2 and setsid, which are async-signal-safe, between fork and exec.
        unsafe {
            command.pre_exec(move || {
                if libc::dup2(write_end, 4) < 0 || libc::dup2(read_end, 5) < 0 || libc::setsid() < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap();
        drop(command);
        for fd in [write_end, read_end] {
            nix::unistd::close(fd).unwrap();
        }
        let stdin = child.stdin.take();
        // Like Nix, this side keeps a writing end of the log's pipe until it has seen the end of the replies.
        Hook { child, stdin, replies: lines_of(replies), log, its_log: Some(its_log) }
    }

    /// The hook's command line, without its descriptors.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_host-agent"));
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        command.args(["build-hook", "3"]).env("PATH", path);
        command.env("DARLING_BUILDER_CONFIG", self.path("config.toml")).current_dir("/");
        command
    }

    /// An output as the daemon leaves it.
    pub fn stage(&self, contents: &str) -> PathBuf {
        let staged = self.path("staged").join(OUTPUT);
        std::fs::write(&staged, contents).unwrap();
        staged
    }
}

pub fn settings_block(settings: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [("builders", "")].iter().chain(settings) {
        wire::put_integer(&mut block, 1);
        wire::put_string(&mut block, name.as_bytes());
        wire::put_string(&mut block, value.as_bytes());
    }
    wire::put_integer(&mut block, 0);
    block
}

pub fn order(inputs: &[&Path], wanted: &[&str]) -> Order {
    Order {
        inputs: inputs.iter().map(|path| path.as_os_str().as_encoded_bytes().to_vec()).collect(),
        wanted: wanted.iter().map(|name| name.as_bytes().to_vec()).collect(),
    }
}

/// A greeted connection, seen from the daemon.
pub struct Connection(pub UnixStream);

impl Connection {
    pub fn send(&mut self, message: &FromDaemon) {
        frame::write(&mut self.0, message).unwrap();
    }

    /// The next message, `None` at the end.
    pub fn receive(&mut self) -> Option<ToDaemon> {
        frame::read(&mut self.0).unwrap()
    }

    /// Gives a place and reads the request.
    pub fn accept(&mut self) -> BuildRequest {
        self.send(&FromDaemon::Reserved { ahead: 0 });
        let mut encoded = Vec::new();
        loop {
            match self.receive() {
                Some(ToDaemon::RequestPart(part)) => encoded.extend_from_slice(&part),
                Some(ToDaemon::RequestEnd) => return frame::decode_large(&encoded).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A running hook, seen from Nix.
pub struct Hook {
    pub child: Child,
    stdin: Option<ChildStdin>,
    replies: Receiver<String>,
    log: PipeReader,
    its_log: Option<io::PipeWriter>,
}

/// What was left when a hook had ended.
#[derive(Debug)]
pub struct End {
    pub status: Option<i32>,
    pub messages: Vec<String>,
    pub log: Vec<u8>,
}

impl Hook {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Asks, and returns the lines up to and including the reply (two for an acceptance).
    pub fn ask(&mut self, question: &Question) -> Vec<String> {
        self.send(&question.encode());
        let mut lines = Vec::new();
        loop {
            let line = self.replies.recv_timeout(LIMIT).expect("no reply");
            let done = line.starts_with("# ");
            lines.push(line);
            if lines.last().is_some_and(|line| line == "# accept") {
                lines.push(self.replies.recv_timeout(LIMIT).expect("no name"));
            }
            if done {
                return lines;
            }
        }
    }

    /// Sends inputs and wanted outputs, and nothing more.
    pub fn order(&mut self, order: &Order) {
        let mut bytes = Vec::new();
        wire::put_strings(&mut bytes, &order.inputs);
        wire::put_strings(&mut bytes, &order.wanted);
        self.send(&bytes);
        self.stdin = None;
    }

    /// Waits for the end as Nix does: reads the log, slowly, until the replies end, and then no more of it.
    pub fn end(mut self) -> End {
        self.stdin = None;
        let mut log = Vec::new();
        let mut messages = Vec::new();
        let deadline = Instant::now() + LIMIT;
        let mut buffer = [0; 4096];
        loop {
            match self.replies.recv_timeout(Duration::from_millis(1)) {
                Ok(line) => messages.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            }
            assert!(Instant::now() < deadline, "the hook did not end; it said {messages:?}");
            if readable(&self.log) {
                let count = self.log.read(&mut buffer).unwrap();
                log.extend_from_slice(&buffer[..count]);
            }
        }
        drop(self.its_log.take());
        End { status: self.child.wait().unwrap().code(), messages, log }
    }
}

fn readable(pipe: &PipeReader) -> bool {
    let mut count = 0;
    // SAFETY: FIONREAD writes one int to the pointer, which is to a live int.
    unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &mut count) == 0 && count > 0 }
}

fn lines_of(pipe: PipeReader) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
