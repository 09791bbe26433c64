//! A daemon on a store and a state directory of its own.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use host_agent::control::client::{BuildEvent, Client, Place};
use host_agent::control::message::StatusReport;
use host_agent::request::{
    BuildDirectory, BuildLimits, BuildReport, BuildRequest, Network, OutputRequest, Publishing,
};
use host_agent::store_path::StoreName;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::ByteString;

/// Longest that any step of a test may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// First uid of these daemons' slots. Each daemon of this process gets a range of its own; Darwin's uids are signed.
const UID_BASE: u32 = 2_010_000_000;

/// Uids of one daemon's slots, and a few more.
pub const UIDS: u32 = 1024;

/// Says why a test is skipped, if it must be.
pub fn skipped() -> bool {
    let reason = if !nix::unistd::geteuid().is_root() {
        "not root"
    } else if !agent().is_file() {
        "no darwin-agent beside host-agent (cargo build -p darwin-agent)"
    } else {
        return false;
    };
    eprintln!("skipped: {reason}");
    true
}

/// The stand-in, unless `DARLING_BUILDER_TEST_AGENT` names a Mach-O agent: then Darling, from `PATH`. With this agent, if one is
/// named.
pub fn guest(agent: Option<&Path>) -> String {
    let macho = std::env::var_os(MACHO_AGENT).map(PathBuf::from);
    let name = if macho.is_some() { "darling" } else { "linux" };
    match agent.or(macho.as_deref()) {
        Some(agent) => format!("guest = \"{name}\"\nagent = \"{}\"\n", agent.display()),
        None => format!("guest = \"{name}\"\n"),
    }
}

const MACHO_AGENT: &str = "DARLING_BUILDER_TEST_AGENT";

/// Whether the guest is Darling.
pub fn darling() -> bool {
    std::env::var_os(MACHO_AGENT).is_some()
}

fn agent() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_host-agent")).with_file_name("darwin-agent")
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    pub directory: tempfile::TempDir,
    pub child: Child,
    pub uid_base: u32,
    log: Arc<Mutex<Vec<String>>>,
}

/// Does something as this user and group. Of a connection the kernel notes whose thread made it (SO_PEERCRED), and whoever has
/// it afterwards does not matter.
#[expect(unsafe_code, reason = "glibc's calls change all threads, and these only the one that does it")]
pub fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    let done = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: plain system calls on the credentials of a thread that ends with its work.
            let changed = unsafe {
                libc::syscall(libc::SYS_setresgid, uid, uid, uid)
                    | libc::syscall(libc::SYS_setresuid, uid, uid, uid)
            };
            assert_eq!(changed, 0);
            work()
        });
        thread.join()
    });
    done.unwrap()
}

/// A finished build.
pub struct Done {
    pub report: BuildReport,
    pub log: Vec<u8>,
    /// What the daemon added to the log.
    pub notes: Vec<String>,
    /// Keeps the staged outputs.
    pub _client: Client,
}

/// A range of uids that no other daemon of this process has: the first.
pub fn new_uid_base() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    UID_BASE + (std::process::id() % 1000) * 130_000 + NEXT.fetch_add(1, Ordering::SeqCst) * UIDS
}

impl Daemon {
    /// Starts one with `extra` lines of configuration.
    pub fn start(extra: &str) -> Self {
        Self::start_as(extra, None, |_| {})
    }

    /// As [`start`](Self::start), with this agent, by a command that is made as it is to be.
    pub fn start_as(extra: &str, agent: Option<&Path>, prepare: impl FnOnce(&mut Command)) -> Self {
        let directory = tempfile::Builder::new().prefix("dbt").tempdir().unwrap();
        std::fs::create_dir(directory.path().join("store")).unwrap();
        let uid_base = new_uid_base();
        let path = directory.path().display();
        std::fs::write(
            directory.path().join("config.toml"),
            format!(
                "socket = \"{path}/s\"\n{}state-directory = \"{path}/state\"\n\
                 store-directory = \"{path}/store\"\nuid-base = {uid_base}\nuid-count = {UIDS}\n{extra}\n",
                guest(agent)
            ),
        )
        .unwrap();
        let log = Arc::default();
        let child = Self::spawn(directory.path(), &log, prepare);
        let daemon = Self { directory, child, uid_base, log };
        daemon.wait_until_ready();
        daemon
    }

    fn spawn(directory: &Path, log: &Arc<Mutex<Vec<String>>>, prepare: impl FnOnce(&mut Command)) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_host-agent"));
        command
            .arg("--config")
            .arg(directory.join("config.toml"))
            .arg("daemon")
            .env("RUST_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::clone(log);
        // Through the test's own output, so that it is shown with the test that fails.
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                eprintln!("daemon: {line}");
                log.lock().unwrap().push(line);
            }
        });
        child
    }

    /// Lets every user reach the socket.
    pub fn let_others_in(&self) {
        std::fs::set_permissions(self.directory.path(), Permissions::from_mode(0o755)).unwrap();
    }

    /// `host-agent` with this daemon's configuration, where every user can execute it, as this user.
    pub fn program_as(&self, uid: u32) -> Command {
        self.let_others_in();
        let directory = self.directory.path();
        let program = directory.join("host-agent");
        if !program.exists() {
            copy_program(Path::new(env!("CARGO_BIN_EXE_host-agent")), &program);
        }
        let mut command = Command::new(program);
        command.arg("--config").arg(directory.join("config.toml")).uid(uid).gid(uid);
        command
    }

    /// Starts it again on the same directories.
    pub fn restart(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.child = Self::spawn(self.directory.path(), &self.log, |_| {});
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + LIMIT;
        while Client::connect(&self.socket(), "test").is_err() {
            assert!(Instant::now() < deadline, "the daemon did not become ready");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What the daemon has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    pub fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.socket(), "test").unwrap()
    }

    pub fn status(&self) -> StatusReport {
        self.connect().status().unwrap()
    }

    /// Starts a build; its events can be awaited.
    pub fn submit(&self, request: &BuildRequest) -> Client {
        let mut client = self.connect();
        assert!(matches!(client.reserve().unwrap(), Place::Reserved { .. }));
        client.submit(request).unwrap();
        client
    }

    /// The same, asked for by another user.
    pub fn submit_as(&self, uid: u32, request: &BuildRequest) -> Client {
        let mut client = as_user(uid, || self.connect());
        assert!(matches!(client.reserve().unwrap(), Place::Reserved { .. }));
        client.submit(request).unwrap();
        client
    }

    /// Runs a build to its end.
    pub fn build(&self, request: &BuildRequest) -> Done {
        finish(self.submit(request))
    }

    /// A build of this script, with one output `out`.
    pub fn request(&self, script: &str) -> BuildRequest {
        let out = name("out");
        let out_path = out.in_store(&self.store());
        let env = [
            ("PATH", "/bin:/usr/bin".to_owned()),
            ("out", out_path.display().to_string()),
            ("NIX_BUILD_TOP", "/build".to_owned()),
        ];
        BuildRequest {
            derivation: name("test.drv"),
            program: "/bin/sh".into(),
            argv: ["sh", "-c", script].map(ByteString::from).into(),
            env: env.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            build_directory: BuildDirectory::Own,
            files: Vec::new(),
            inputs: Vec::new(),
            outputs: vec![OutputRequest { name: "out".into(), path: out, wanted: true, digest: None }],
            network: Network::Loopback,
            limits: BuildLimits::default(),
            keep_failed: false,
            publishing: Publishing::Prepare,
        }
    }

    /// Host processes that any slot of this daemon runs: pid and command line. Their names are of no use, in Darling all are
    /// called after its loader.
    pub fn slot_processes(&self) -> Vec<(i32, String)> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
            let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
            let uid = uid.and_then(|line| line.split_whitespace().next()?.parse::<u32>().ok());
            if uid.is_some_and(|uid| (self.uid_base..self.uid_base + UIDS).contains(&uid)) {
                let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let command = String::from_utf8_lossy(&command).replace('\0', " ");
                found.push((entry.file_name().to_str().unwrap().parse().unwrap(), command));
            }
        }
        found
    }

    /// How many of a script's own processes there are; guests have servers of their own.
    pub fn sleepers(&self) -> usize {
        self.slot_processes().iter().filter(|(_, command)| command.starts_with("sleep ")).count()
    }

    /// Stops the agent of the slot that builds, so that no tick is answered any more. The builder must run a `sleep`.
    pub fn stall(&self) {
        self.eventually(LIMIT, "builder running", || self.sleepers() >= 1);
        let agents: Vec<i32> = self
            .slot_processes()
            .into_iter()
            .filter(|(_, command)| {
                command.contains("/run/db/darwin-agent") && !command.starts_with("/run/db/host")
            })
            .map(|(pid, _)| pid)
            .collect();
        let [agent] = agents[..] else { panic!("{:?}", self.slot_processes()) };
        kill(Pid::from_raw(agent), Signal::SIGSTOP).unwrap();
    }

    /// Waits until `condition` holds.
    pub fn eventually(&self, within: Duration, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + within;
        while !condition() {
            assert!(
                Instant::now() < deadline,
                "{what}: not within {within:?}; processes {:?}",
                self.slot_processes()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies a program that is then executed. By another process: a thread that forks meanwhile would keep our descriptor open
/// for writing, and what is open for writing can't be executed.
pub fn copy_program(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

/// Reads events until the build is over.
pub fn finish(mut client: Client) -> Done {
    let mut log = Vec::new();
    let mut notes = Vec::new();
    loop {
        match client.next_event().unwrap() {
            BuildEvent::Output(bytes) => log.extend(bytes),
            BuildEvent::Finished(report) => return Done { report: *report, log, notes, _client: client },
            BuildEvent::Note(line) => notes.push(line),
            BuildEvent::Phase(_) => {}
        }
    }
}

/// A store name with a hash part that differs by name.
pub fn name(name: &str) -> StoreName {
    use std::hash::{DefaultHasher, Hash, Hasher};
    const BASE32: &[u8] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let mut hash = Vec::new();
    for round in 0..32 {
        let mut hasher = DefaultHasher::new();
        (round, name).hash(&mut hasher);
        hash.push(BASE32[hasher.finish() as usize % 32]);
    }
    StoreName::parse(&[&hash, b"-".as_slice(), name.as_bytes()].concat()).unwrap()
}
