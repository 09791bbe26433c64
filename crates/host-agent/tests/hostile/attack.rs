//! The attacker: in a store, as a builder, and outside as its accomplice.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant, SystemTime};

use host_agent::control::client::{BuildEvent, Client};
use host_agent::request::{BuildOutcome, BuildRequest};
use host_agent::store_path::StoreName;

use crate::harness::{self, Daemon, Done, copy_program, name};

/// How often something is tried that an attacker wins by being fast.
pub const ROUNDS: usize = 20;

/// Longest life of a build that nothing else ends.
const WALL: Duration = Duration::from_secs(60);

/// Says why a test is skipped, if it must be.
pub fn skipped() -> bool {
    if harness::skipped() {
        return true;
    }
    static BUILT: Once = Once::new();
    BUILT.call_once(build);
    false
}

/// `cargo test --test hostile` builds no examples. Whoever runs the tests without cargo has built it before.
fn build() {
    if let Some(cargo) = std::env::var_os("CARGO") {
        let target = program().ancestors().nth(3).unwrap().to_owned();
        let mut command = Command::new(cargo);
        command
            .args(["build", "--quiet", "--package", "host-agent", "--example", "attacker", "--target-dir"])
            .arg(target);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        assert!(command.status().unwrap().success(), "the attacker can't be built");
    }
    let changed = |path: PathBuf| path.metadata().and_then(|metadata| metadata.modified()).unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/attacker");
    let sources = std::fs::read_dir(sources).unwrap().map(|entry| changed(entry.unwrap().path()));
    let newest = sources.max().unwrap_or(SystemTime::UNIX_EPOCH);
    assert!(
        newest <= changed(program()),
        "the attacker is old: cargo build -p host-agent --example attacker"
    );
}

/// Beside the programs that cargo builds for tests.
pub fn program() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_host-agent")).with_file_name("examples").join("attacker")
}

/// Whether a builder can be kept from signalling what has its uid: Landlock knows scopes (landlock(7), ABI 6).
pub fn kernel_has_scopes() -> bool {
    const CREATE_RULESET_VERSION: libc::c_long = 1;
    let none: *const libc::c_void = std::ptr::null();
    // SAFETY: asks for a number.
    #[allow(unsafe_code)]
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, CREATE_RULESET_VERSION) };
    version >= 6
}

/// In the store of a daemon.
pub struct Attacker<'a> {
    pub daemon: &'a Daemon,
    name: StoreName,
}

impl<'a> Attacker<'a> {
    pub fn new(daemon: &'a Daemon) -> Self {
        let name = name("attacker");
        copy_program(&program(), &name.in_store(&daemon.store()));
        Self { daemon, name }
    }

    pub fn path(&self) -> PathBuf {
        self.name.in_store(&self.daemon.store())
    }

    /// A build of this script, which finds the attacker as `$attacker`, with a limit of time.
    pub fn request(&self, script: &str) -> BuildRequest {
        let mut request = self.daemon.request(script);
        request.env.push(("attacker".into(), self.path().as_path().into()));
        request.env.push(("store".into(), self.daemon.store().as_path().into()));
        request.inputs.push(self.name.clone());
        request.limits.wall = Some(WALL);
        request
    }

    /// Runs such a build to its end.
    pub fn run(&self, script: &str) -> Told {
        self.build(&self.request(script))
    }

    /// Runs it to its end.
    pub fn build(&self, request: &BuildRequest) -> Told {
        Told::new(harness::finish(patient(self.daemon.submit(request))))
    }

    /// Runs it until its log has a line that starts so; it goes on while the answer is kept.
    pub fn run_until(&self, request: &BuildRequest, start: &str) -> Running {
        let mut running = Running { client: patient(self.daemon.submit(request)), log: Vec::new() };
        running.read_until(start);
        running
    }
}

fn patient(mut client: Client) -> Client {
    client.set_patience(WALL * 2).unwrap();
    client
}

/// A build that goes on.
pub struct Running {
    client: Client,
    log: Vec<u8>,
}

impl Running {
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log).into_owned()
    }

    fn read_until(&mut self, start: &str) {
        let is_there =
            |log: &str| log.split_inclusive('\n').any(|line| line.starts_with(start) && line.ends_with('\n'));
        while !is_there(&self.log()) {
            match self.client.next_event().unwrap() {
                BuildEvent::Output(bytes) => self.log.extend(bytes),
                BuildEvent::Finished(report) => panic!("no {start:?}: {:?}\n{}", report.outcome, self.log()),
                BuildEvent::Note(_) | BuildEvent::Phase(_) => {}
            }
        }
    }

    /// What was tried until now.
    pub fn told(&self) -> Vec<Attempt> {
        attempts(&self.log())
    }

    /// What came of this one.
    pub fn came_of(&self, what: &str) -> String {
        let told = self.told();
        let found = told.iter().find(|attempt| attempt.what == what);
        found.unwrap_or_else(|| panic!("{what} was not tried: {}", self.log())).came.clone()
    }

    pub fn finish(self) -> Told {
        let mut done = harness::finish(self.client);
        done.log = [self.log, done.log].concat();
        Told::new(done)
    }
}

/// What was tried, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub what: String,
    pub came: String,
}

fn attempts(log: &str) -> Vec<Attempt> {
    log.lines()
        .filter_map(|line| line.strip_prefix("attempt ")?.rsplit_once(' '))
        .map(|(what, came)| Attempt { what: what.into(), came: came.into() })
        .collect()
}

/// A build that is over.
pub struct Told {
    pub done: Done,
    pub attempts: Vec<Attempt>,
}

impl Told {
    fn new(done: Done) -> Self {
        let attempts = attempts(&String::from_utf8_lossy(&done.log));
        Self { done, attempts }
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.done.log).into_owned()
    }

    /// What came of this one.
    pub fn came_of(&self, what: &str) -> &str {
        let found = self.attempts.iter().find(|attempt| attempt.what == what);
        &found.unwrap_or_else(|| panic!("{what} was not tried: {}", self.log())).came
    }

    /// Nothing came of any, but of these; at least so many were tried.
    pub fn none_was_done_but(&self, harmless: &[&str], at_least: usize) {
        assert!(self.attempts.len() >= at_least, "{}", self.log());
        let done: Vec<&str> = self
            .attempts
            .iter()
            .filter(|attempt| attempt.came == "done" && !harmless.contains(&&*attempt.what))
            .map(|attempt| &*attempt.what)
            .collect();
        assert!(done.is_empty(), "possible: {done:?}\n{}", self.log());
    }

    pub fn is_built(&self) -> bool {
        matches!(self.done.report.outcome, BuildOutcome::Built(_))
    }

    /// The output `out`, as it was prepared.
    pub fn output(&self) -> PathBuf {
        match &self.done.report.outcome {
            BuildOutcome::Built(outputs) => outputs[0].staged.as_path().to_owned(),
            other => panic!("{other:?}: {}", self.log()),
        }
    }
}

/// The attacker outside of slots; killed when dropped.
pub struct Outside {
    pub child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Outside {
    /// As this user, once it has said this.
    pub fn start(uid: u32, words: &[&str], until: &str) -> Self {
        use std::os::unix::process::CommandExt;
        // Where every user can execute it.
        let directory = tempfile::Builder::new().prefix("dba").tempdir().unwrap();
        let public = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), public).unwrap();
        let copy = directory.path().join("attacker");
        copy_program(&program(), &copy);
        let mut child = Command::new(copy)
            .args(words)
            .uid(uid)
            .gid(uid)
            .current_dir("/")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut outside = Self { child, stdout };
        outside.says(until);
        outside
    }

    /// Waits until it has said this.
    pub fn says(&mut self, line: &str) {
        let mut said = String::new();
        while said.trim_end() != line {
            said.clear();
            assert!(self.stdout.read_line(&mut said).unwrap() > 0, "it ended before it said {line:?}");
        }
    }

    /// Whether it was killed, waiting a little for it.
    pub fn was_killed(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.signal() == Some(libc::SIGKILL);
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first processes of a daemon's slots.
pub fn first_processes(daemon: &Daemon) -> Vec<i32> {
    let parent = daemon.child.id().to_string();
    let is_one = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        after_name.split(' ').nth(1) == Some(&parent)
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}

/// The root directory as a builder's own processes see it, by one whose command line has this in it.
pub fn builders_root(daemon: &Daemon, mark: &str) -> PathBuf {
    let found = daemon.slot_processes().into_iter().find(|(_, command)| command.contains(mark));
    let (pid, _) = found.unwrap_or_else(|| panic!("{:?}", daemon.slot_processes()));
    PathBuf::from(format!("/proc/{pid}/root"))
}

/// Runs a program of the system's, to its end.
pub fn host(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// A line of proc_pid_mountinfo(5).
#[derive(Debug)]
pub struct Mount {
    pub point: String,
    /// Of the mount, not of its file system.
    pub options: String,
    pub kind: String,
    pub of_file_system: String,
}

/// What the attacker has told of its mounts.
pub fn mounts(log: &str) -> Vec<Mount> {
    log.lines()
        .filter_map(|line| {
            let (mount, file_system) = line.strip_prefix("mount: ")?.split_once(" - ")?;
            let fields: Vec<&str> = mount.split(' ').collect();
            let [kind, _, of_file_system] = file_system.split(' ').collect::<Vec<_>>()[..] else {
                return None;
            };
            let own = |text: &str| text.to_owned();
            Some(Mount {
                point: own(fields[4]),
                options: own(fields[5]),
                kind: own(kind),
                of_file_system: own(of_file_system),
            })
        })
        .collect()
}
