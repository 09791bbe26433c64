//! Measures guests from next to the agent: `guest_figures ROUNDS SPAWNS MIB CONFIG…`, as root; each configuration names a guest, a
//! state directory and uids that no daemon uses. The rounds go through all guests in turn, and through bare Linux.
//!
//! Prints one JSON object: for each guest, and for `bare`, the samples of each figure, milliseconds. `boot`: from nothing
//! to the agent's handshake. `ping`: to the agent and back. `executed`: from a booted slot to the builder's exec.
//! `first-byte`: to the first byte that it prints. `end`: from the builder's end, until what it left behind was
//! looked for and its output drained, to its report. `spawns`: SPAWNS programs run by a shell, one after the other. `log`:
//! MIB MiB printed into the pseudo-terminal and read.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use host_agent::config::Config;
use host_agent::guest::GuestPlan;
use host_agent::request::BUILD_DIR;
use host_agent::slot::Slot;
use host_agent::slot::directory::{self, StateDirectory};
use host_agent::slot::outside_network::NetworkLease;
use host_agent::slot::uids::Uids;
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use protocol::message::{Exit, FromAgent, ResourceLimits, Streams, ToAgent};
use protocol::{ByteString, frame};

const PINGS: u64 = 20;
/// A spare slot has been idle for a while when a build takes it: what a guest still does after the handshake is over.
const SETTLE: Duration = Duration::from_secs(1);
/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);
/// Printed when the shell runs; no guest's remarks have such bytes.
const RUNS: u8 = 1;
/// Printed when it has spawned all.
const SPAWNED: u8 = 2;
const PATH: &str = "/usr/bin:/bin";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    // A slot's first process is the program that makes the slot.
    if std::env::args().nth(1).is_some_and(|argument| argument == "slot-init") {
        return host_agent::cli::run();
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest_figures: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = || {
        Ok::<u32, Box<dyn Error>>(
            arguments.next().ok_or("usage: guest_figures ROUNDS SPAWNS MIB CONFIG…")?.parse()?,
        )
    };
    let rounds = number()?;
    let work = Work { spawns: number()?, log_mib: number()? };
    let mut guests = Vec::new();
    for path in arguments {
        guests.push(Guest::new(&PathBuf::from(path))?);
    }
    let mut figures = BTreeMap::new();
    // The first round brings programs into memory and does not count.
    for round in 0..=rounds {
        for guest in &mut guests {
            let name = guest.config.guest.as_str();
            let samples = guest.round(work).map_err(|error| format!("{name}: {error}"))?;
            add(&mut figures, name, samples, round > 0);
        }
        add(&mut figures, "bare", bare(work)?, round > 0);
    }
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

type Samples = Vec<(&'static str, Duration)>;

fn add(
    figures: &mut BTreeMap<&'static str, BTreeMap<&'static str, Vec<f64>>>,
    name: &'static str,
    samples: Samples,
    counts: bool,
) {
    for (figure, time) in samples.into_iter().filter(|_| counts) {
        figures.entry(name).or_default().entry(figure).or_default().push(time.as_secs_f64() * 1e3);
    }
}

/// What a shell does in each round.
#[derive(Debug, Clone, Copy)]
struct Work {
    spawns: u32,
    log_mib: u32,
}

impl Work {
    fn script(self) -> [ByteString; 3] {
        let text = format!(
            "printf '\\00{RUNS}'; i=0; while [ $i -lt {} ]; do /usr/bin/true; i=$((i+1)); done; printf '\\00{SPAWNED}'; \
             exec dd if=/dev/zero bs=65536 count={} 2>/dev/null",
            self.spawns,
            self.log_mib * 16
        );
        ["bash", "-c", &text].map(ByteString::from)
    }
}

/// When the shell did what.
struct Moments {
    started: Instant,
    runs: Option<Instant>,
    spawned: Option<Instant>,
    bytes: usize,
}

impl Moments {
    fn from_now() -> Self {
        Self { started: Instant::now(), runs: None, spawned: None, bytes: 0 }
    }

    fn printed(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        if self.runs.is_none() && bytes.contains(&RUNS) {
            self.runs = Some(Instant::now());
        }
        if self.spawned.is_none() && bytes.contains(&SPAWNED) {
            self.spawned = Some(Instant::now());
        }
    }

    fn ended(self, work: Work) -> Result<Samples> {
        let (Some(runs), Some(spawned)) = (self.runs, self.spawned) else {
            return Err(format!("the shell printed {} bytes and not what it was to", self.bytes).into());
        };
        if self.bytes < (work.log_mib as usize) << 20 {
            return Err(format!("of {} MiB of output only {} bytes came", work.log_mib, self.bytes).into());
        }
        Ok(vec![("first-byte", runs - self.started), ("spawns", spawned - runs), ("log", spawned.elapsed())])
    }
}

struct Guest {
    config: Config,
    plan: GuestPlan,
    state: StateDirectory,
    uids: Uids,
    next: u32,
}

impl Guest {
    fn new(config: &Path) -> Result<Self> {
        let config = Config::load(Some(config))?;
        let plan = GuestPlan::new(&config)?;
        let state = StateDirectory::open(&config.state_directory)?;
        let uids = Uids::of_daemon(&config)?;
        Ok(Self { config, plan, state, uids, next: 0 })
    }

    /// Boots a slot, asks it, runs the shell there, and removes it.
    fn round(&mut self, work: Work) -> Result<Samples> {
        let uid = self.uids.lease()?;
        let mut slot = Slot::boot(
            &self.config,
            &self.state,
            self.plan.clone(),
            self.next,
            uid,
            NetworkLease::Loopback,
            None,
        )?;
        self.next += 1;
        let mut samples = vec![("boot", slot.boot)];
        std::thread::sleep(SETTLE);
        let asked = ask(&mut slot, work, &mut samples);
        let stopped = slot.stop();
        directory::remove(stopped.directory.path())?;
        drop(stopped);
        asked?;
        Ok(samples)
    }
}

fn ask(slot: &mut Slot, work: Work, samples: &mut Samples) -> Result<()> {
    let mut agent = slot.take_agent().ok_or("the slot has no agent")?;
    agent.set_read_timeout(Some(LIMIT))?;
    for number in 0..PINGS {
        let asked = Instant::now();
        frame::write(&mut agent, &ToAgent::Ping(number))?;
        while hear(&mut agent)? != FromAgent::Pong(number) {}
        samples.push(("ping", asked.elapsed()));
    }
    let mut moments = Moments::from_now();
    slot.show(&[])?;
    for message in [
        ToAgent::Prepare {
            program: "/bin/bash".into(),
            directory: BUILD_DIR.into(),
            streams: Streams::Pty,
            umask: 0o022,
        },
        ToAgent::Arguments(work.script().into()),
        ToAgent::Environment(vec![("PATH".into(), PATH.into())]),
        ToAgent::Limits(ResourceLimits { core: 0, file_size: None }),
        ToAgent::Start,
    ] {
        frame::write(&mut agent, &message)?;
    }
    let asked = Instant::now();
    loop {
        match hear(&mut agent)? {
            FromAgent::Started { .. } => samples.push(("executed", moments.started.elapsed())),
            FromAgent::Output { bytes, .. } => moments.printed(&bytes),
            FromAgent::Exited { exit: Exit::Code(0), usage } => {
                samples
                    .push(("end", asked.elapsed().saturating_sub(Duration::from_micros(usage.wall_micros))));
                break;
            }
            FromAgent::Exited { exit, .. } => return Err(format!("the shell ended with {exit:?}").into()),
            _ => {}
        }
    }
    samples.extend(moments.ended(work)?);
    Ok(())
}

fn hear(agent: &mut UnixStream) -> Result<FromAgent> {
    Ok(frame::read(agent)?.ok_or("the agent hung up")?)
}

/// The same shell with nothing of ours around it, on a pseudo-terminal as well.
fn bare(work: Work) -> Result<Samples> {
    let pty = openpty(None, None)?;
    let mut raw = tcgetattr(&pty.slave)?;
    cfmakeraw(&mut raw);
    tcsetattr(&pty.slave, SetArg::TCSANOW, &raw)?;
    let mut moments = Moments::from_now();
    let [_, dash_c, text] = work.script();
    let mut command = Command::new("/bin/bash");
    command.arg(dash_c.as_path()).arg(text.as_path()).env_clear().env("PATH", PATH);
    let mut child =
        command.stdin(Stdio::null()).stdout(File::from(pty.slave)).stderr(Stdio::null()).spawn()?;
    // It holds our end of the terminal open.
    drop(command);
    let mut terminal = File::from(pty.master);
    let mut bytes = vec![0; 1 << 16];
    loop {
        match terminal.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => moments.printed(&bytes[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Nobody has the other end any more.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let samples = moments.ended(work)?;
    if !child.wait()?.success() {
        return Err("the shell failed on bare Linux".into());
    }
    Ok(samples)
}
