//! A slot to throw away: booted as the daemon boots them, asked, and torn down. Without root one of the daemon's.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::mkdtemp;
use protocol::ByteString;
use protocol::frame;
use protocol::hello::Features;
use protocol::message::{Exit, FromAgent, ResourceLimits, Stream, Streams, ToAgent};

use super::answers::{Answers, SCRIPT};
use super::{Finding, is_root};
use crate::config::Config;
use crate::control::client::{Client, Place, ShellEvent};
use crate::control::shell::{ShellEnd, ShellRequest};
use crate::guest::GuestPlan;
use crate::request::BUILD_DIR;
use crate::slot::directory::{self, StateDirectory};
use crate::slot::outside_network::NetworkLease;
use crate::slot::plan::AgentGreeting;
use crate::slot::uids::Uids;
use crate::slot::{Slot, Stopped};
use crate::store_path::StoreName;

const NAME: &str = "slot";

/// Longest wait for any one message from inside.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A slot that takes longer is not broken, but somebody waits for it.
const BOOT_SLOW: Duration = Duration::from_secs(3);

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    if !is_root() {
        return through_daemon(config);
    }
    let guest = match GuestPlan::new(config) {
        Ok(guest) => guest,
        Err(error) => return vec![Finding::broken(NAME, error, "mend that first")],
    };
    match own_slot(config, guest) {
        Ok(findings) => findings,
        Err(error) => vec![Finding::broken(
            NAME,
            format!("failed to prepare a slot: {error}"),
            "see that the directory for temporary files can be written to (TMPDIR)",
        )],
    }
}

/// A directory that is removed with all that is in it.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn in_temporary() -> io::Result<Self> {
        Ok(Self(mkdtemp(&std::env::temp_dir().join("host-agent-doctor.XXXXXX"))?))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What a guest has left there may need more than a plain removal.
        let _ = directory::remove(&self.0);
    }
}

/// A store of two objects, world-writable, so that nothing but the view keeps a slot from writing or seeing.
struct ExampleStore {
    directory: PathBuf,
    input: StoreName,
    outside: StoreName,
}

impl ExampleStore {
    fn create(directory: PathBuf) -> io::Result<Self> {
        let name = |name: &str| StoreName::parse(name.as_bytes()).map_err(io::Error::other);
        let store = Self {
            input: name("00000000000000000000000000000000-input")?,
            outside: name("11111111111111111111111111111111-outside")?,
            directory,
        };
        DirBuilder::new().mode(0o755).create(&store.directory)?;
        for object in [&store.input, &store.outside] {
            let path = object.in_store(&store.directory);
            fs::create_dir(&path)?;
            fs::write(path.join("file"), b"")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        }
        Ok(store)
    }
}

fn own_slot(config: &Config, guest: GuestPlan) -> io::Result<Vec<Finding>> {
    let scratch = Scratch::in_temporary()?;
    let store = ExampleStore::create(scratch.path().join("store"))?;
    let state = StateDirectory::open(&scratch.path().join("state")).map_err(io::Error::other)?;
    let config = Config { store_directory: store.directory.clone(), ..config.clone() };
    let uid = Uids::of_others(&config).lease().map_err(io::Error::other)?;
    let mut slot = match Slot::boot(&config, &state, guest, 0, uid, NetworkLease::Loopback, None) {
        Ok(slot) => slot,
        Err(error) => {
            return Ok(vec![Finding::broken(
                NAME,
                format!("did not boot: {error}"),
                "mend what is broken above; with Darling, see that `darling shell true` works as root",
            )]);
        }
    };
    let mut findings = vec![booted(slot.boot), handshake(&slot.greeting)];
    match ask(&mut slot, &store) {
        Ok((round_trip, answers)) => {
            findings.push(round_trip);
            findings.extend(answers.findings(&config));
        }
        Err(error) => findings.push(unanswered(&error)),
    }
    findings.push(own_uid(&slot.stop()));
    Ok(findings)
}

fn booted(boot: Duration) -> Finding {
    let detail = format!("a fresh one booted in {} ms, agent connected", boot.as_millis());
    if boot < BOOT_SLOW {
        Finding::fine(NAME, detail)
    } else {
        Finding::warning(NAME, detail, "see what else keeps the machine busy; half a second is usual")
    }
}

fn handshake(greeting: &AgentGreeting) -> Finding {
    const NAME: &str = "agent-handshake";
    let detail = format!("{}, protocol version {}", greeting.identity, greeting.version);
    let same = greeting.identity.starts_with(concat!("darwin-agent ", env!("CARGO_PKG_VERSION"), " "));
    if same && greeting.features.contains(Features::INPUT) {
        Finding::fine(NAME, detail)
    } else {
        Finding::warning(
            NAME,
            format!("{detail}: not of the same release as this program"),
            "install host-agent and darwin-agent from the same release",
        )
    }
}

/// After the slot's end.
fn own_uid(stopped: &Stopped) -> Finding {
    const NAME: &str = "slot-uid";
    let uid = stopped.uid.uid();
    match &stopped.alone {
        Ok(()) => {
            Finding::fine(NAME, format!("{uid}: no process of the machine has it, now that its slot is gone"))
        }
        Err(error) => Finding::broken(NAME, error, "find out what that process is, and end it"),
    }
}

fn unanswered(error: &io::Error) -> Finding {
    Finding::broken(
        "guest-system",
        format!("a script in the slot gave no answer: {error}"),
        "see that /bin/sh works in Darling: `darling shell true`",
    )
}

/// Times the way to the agent and back, shows the input, runs the script.
fn ask(slot: &mut Slot, store: &ExampleStore) -> io::Result<(Finding, Answers)> {
    slot.show(std::slice::from_ref(&store.input)).map_err(io::Error::other)?;
    let mut agent = slot.take_agent().ok_or_else(|| io::Error::other("the slot has no agent"))?;
    agent.set_read_timeout(Some(ANSWER_LIMIT))?;
    let round_trip = round_trip(&mut agent)?;
    let path = |name: &StoreName| ByteString::from(name.in_store(&store.directory).as_path());
    let argv = [script()[..].to_vec(), vec![path(&store.input), path(&store.outside)]].concat();
    let output = run(&mut agent, argv)?;
    Ok((round_trip, Answers::read(&output)))
}

fn round_trip(agent: &mut UnixStream) -> io::Result<Finding> {
    const NAME: &str = "agent-round-trip";
    const ROUNDS: u64 = 9;
    let mut times = Vec::new();
    for number in 0..ROUNDS {
        let start = Instant::now();
        say(agent, &ToAgent::Ping(number))?;
        while hear(agent)? != FromAgent::Pong(number) {}
        times.push(start.elapsed());
    }
    times.sort();
    let median = times[times.len() / 2];
    let detail = format!("{:.2} ms", median.as_secs_f64() * 1000.0);
    Ok(if median < Duration::from_millis(50) {
        Finding::fine(NAME, detail)
    } else {
        Finding::warning(NAME, detail, "see what else keeps the machine busy; a millisecond is usual")
    })
}

fn script() -> [ByteString; 4] {
    ["sh", "-c", SCRIPT, "doctor"].map(ByteString::from)
}

fn environment() -> Vec<(ByteString, ByteString)> {
    vec![("PATH".into(), "/usr/bin:/bin:/usr/sbin:/sbin".into())]
}

/// Runs the script to its end, whatever that is: what it has printed by then counts.
fn run(agent: &mut UnixStream, argv: Vec<ByteString>) -> io::Result<Vec<u8>> {
    for message in [
        ToAgent::Prepare {
            program: "/bin/sh".into(),
            directory: BUILD_DIR.into(),
            streams: Streams::Pipes,
            umask: 0o022,
        },
        ToAgent::Arguments(argv),
        ToAgent::Environment(environment()),
        ToAgent::Limits(ResourceLimits { core: 0, file_size: None }),
        ToAgent::Start,
    ] {
        say(agent, &message)?;
    }
    let mut printed = Vec::new();
    loop {
        match hear(agent)? {
            FromAgent::Output { stream: Stream::Stdout, bytes, .. } => printed.extend_from_slice(&bytes),
            FromAgent::Exited { exit: Exit::SpawnFailed { step, errno }, .. } => {
                let reason = io::Error::from_raw_os_error(errno);
                return Err(io::Error::other(format!("{step}: {reason}")));
            }
            FromAgent::Exited { .. } => return Ok(printed),
            _ => {}
        }
    }
}

fn say(agent: &mut UnixStream, message: &ToAgent) -> io::Result<()> {
    frame::write(agent, message).map_err(io::Error::other)
}

fn hear(agent: &mut UnixStream) -> io::Result<FromAgent> {
    let message = frame::read(agent).map_err(|error| match error {
        frame::FrameError::Io(error) if error.kind() == io::ErrorKind::WouldBlock => {
            io::Error::other(format!("nothing came for {} s", ANSWER_LIMIT.as_secs()))
        }
        error => io::Error::other(error),
    })?;
    message.ok_or_else(|| io::Error::other("the agent hung up"))
}

/// What whoever may build can find out: the script in a slot of the daemon's, without inputs.
fn through_daemon(config: &Config) -> Vec<Finding> {
    match run_in_shell(config) {
        Ok(Some(output)) => {
            let mut findings = vec![Finding::fine(NAME, "one of the daemon's took a program")];
            findings.extend(Answers::read(&output).findings(config));
            findings
        }
        Ok(None) => {
            vec![Finding::warning(NAME, "not tried: all of the daemon's are in use", "try again later")]
        }
        // Why there is no daemon is another finding's matter.
        Err(_) => vec![Finding::untried(NAME)],
    }
}

fn run_in_shell(config: &Config) -> io::Result<Option<Vec<u8>>> {
    let mut client = Client::connect(&config.socket, "doctor").map_err(io::Error::other)?;
    client.set_patience(ANSWER_LIMIT)?;
    match client.reserve().map_err(io::Error::other)? {
        Place::Reserved { ahead: 0 } => {}
        Place::Reserved { .. } | Place::Full(_) => return Ok(None),
    }
    let mut command = script().to_vec();
    command[0] = "/bin/sh".into();
    let request = ShellRequest { command, env: environment(), terminal: None };
    client.shell(request).map_err(io::Error::other)?;
    let mut printed = Vec::new();
    loop {
        match client.next_shell_event().map_err(io::Error::other)? {
            ShellEvent::Output(Stream::Stdout, bytes) => printed.extend(bytes),
            ShellEvent::Ended(ShellEnd::Exit(_)) => return Ok(Some(printed)),
            ShellEvent::Ended(ShellEnd::Lost(reason)) => return Err(io::Error::other(reason)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::hello::Identity;

    use super::*;

    #[test]
    fn a_scratch_directory_goes_with_all_that_is_in_it() {
        let scratch = Scratch::in_temporary().unwrap();
        let path = scratch.path().to_owned();
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b/c"), b"x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn an_agent_of_another_release_is_a_warning() {
        let greeting = |identity: &str, features| {
            let greeting = AgentGreeting { identity: Identity::made_of(identity), version: 1, features };
            handshake(&greeting).severity
        };
        use super::super::Severity::{Fine, Warning};
        let own = concat!("darwin-agent ", env!("CARGO_PKG_VERSION"), " (Darwin 20.6.0 x86_64)");
        assert_eq!(greeting(own, Features::ALL), Fine);
        assert_eq!(greeting(own, Features::PTY), Warning);
        assert_eq!(greeting("darwin-agent 0.0.1 (Darwin 20.6.0 x86_64)", Features::ALL), Warning);
    }
}
