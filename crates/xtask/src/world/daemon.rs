//! `host-agent daemon` in a world.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::limited::{self, wait_until};
use super::{Guest, TARGET, World};

/// The daemon's configuration, for it and for the hook.
pub const CONFIG: &str = "/run/darling-builder/config.toml";
/// Its socket.
pub const SOCKET: &str = "/run/darling-builder/daemon.sock";
/// Its directory.
pub const STATE: &str = "/nix/var/darling-builder";
/// The hook, as Nix is told of it.
pub const HOOK: &str = "/run/darling-builder/darling-builder-hook";
/// What the daemon prints.
pub const LOG: &str = "/run/darling-builder/daemon.log";

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A daemon that runs.
#[derive(Debug)]
pub struct HostDaemon {
    child: Child,
    /// From start to the first connection.
    pub started_in: Duration,
}

/// `host-agent` in this world.
pub fn program(world: &World) -> PathBuf {
    Path::new(TARGET).join(&world.profile).join("host-agent")
}

/// `darwin-agent` for this guest.
pub fn agent(world: &World, guest: Guest) -> PathBuf {
    match guest {
        Guest::Linux => Path::new(TARGET).join(&world.profile).join("darwin-agent"),
        Guest::Darling => Path::new(TARGET).join("darwin/darwin-agent"),
    }
}

/// Writes the configuration, with these lines besides the usual ones, and puts the hook in place.
pub fn configure(world: &World, lines: &str) -> Result<()> {
    let directory = Path::new(CONFIG).parent().context("no directory")?;
    fs::create_dir_all(directory)?;
    let guest = world.guest.as_str();
    let mut text = format!(
        "socket = \"{SOCKET}\"\nguest = \"{guest}\"\nstate-directory = \"{STATE}\"\nagent = \"{}\"\n",
        agent(world, world.guest).display()
    );
    for (key, value) in [("max-jobs", "2"), ("warm-slots", "2"), ("queue-limit", "200")] {
        if !lines.lines().any(|line| line.starts_with(key)) {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    text.push_str(lines);
    fs::write(CONFIG, text)?;
    let hook = Path::new(HOOK);
    if !hook.exists() {
        std::os::unix::fs::symlink(program(world), hook)?;
    }
    Ok(())
}

impl HostDaemon {
    /// Starts it and waits until it listens. It prints into [`LOG`], and with `visible` on our standard error as well.
    pub fn start(world: &World, visible: bool) -> Result<Self> {
        let started = Instant::now();
        let mut command = Command::new(program(world));
        command.args(["daemon", "--config", CONFIG]).stdin(Stdio::null());
        let log = File::options().create(true).append(true).open(LOG)?;
        command.stdout(log.try_clone()?);
        match visible {
            true => command.stderr(Stdio::piped()),
            false => command.stderr(log.try_clone()?),
        };
        let mut child =
            command.spawn().with_context(|| format!("failed to run {}", program(world).display()))?;
        if let Some(stderr) = child.stderr.take() {
            std::thread::spawn(move || show(stderr, log));
        }
        let listening = wait_until(START_LIMIT, || {
            if let Some(status) = child.try_wait()? {
                bail!("the daemon ended at once ({status}):\n{}", log_tail());
            }
            Ok(UnixStream::connect(SOCKET).is_ok())
        });
        match listening {
            Ok(true) => Ok(Self { child, started_in: started.elapsed() }),
            other => {
                let _ = child.kill();
                let _ = child.wait();
                other?;
                bail!("the daemon does not listen at {SOCKET} after {START_LIMIT:?}:\n{}", log_tail())
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// SIGTERM, and how it ended.
    pub fn stop(mut self) -> Result<ExitStatus> {
        kill(self.pid(), Signal::SIGTERM)?;
        let child = &mut self.child;
        if !wait_until(STOP_LIMIT, || Ok(child.try_wait()?.is_some()))? {
            bail!("the daemon has not ended {STOP_LIMIT:?} after SIGTERM:\n{}", log_tail());
        }
        Ok(self.child.wait()?)
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for HostDaemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Copies lines to our standard error, marked as the daemon's, and to its log.
fn show(from: impl Read, mut log: File) {
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        eprintln!("daemon │ {line}");
        let _ = writeln!(log, "{line}");
    }
}

/// The end of what the daemon printed.
pub fn log_tail() -> String {
    let text = fs::read(LOG).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// What `host-agent status --json` says.
pub fn status(world: &World) -> Result<Value> {
    let mut command = Command::new(program(world));
    command.args(["status", "--json", "--config", CONFIG]);
    let finished = limited::run(&mut command, Duration::from_secs(10))?;
    if !finished.status.success() {
        bail!("status failed: {}", String::from_utf8_lossy(&finished.stderr));
    }
    serde_json::from_slice(&finished.stdout).context("failed to understand the status")
}

/// Uids of slots that are doing something: everything but warm spares.
pub fn busy_slots(world: &World) -> Result<Vec<u64>> {
    let status = status(world)?;
    let slots = status["slots"].as_array().context("the status has no slots")?;
    let busy = slots.iter().filter(|slot| slot["state"] == "busy" || slot["state"] == "stopping");
    Ok(busy.filter_map(|slot| slot["uid"].as_u64()).collect())
}

/// Processes of slots that belong to a build: those with a slot's uid that are not just the waiting agent.
pub fn slot_processes() -> Result<Vec<(u32, String)>> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.uid() < 2_000_000_000 || !path.join("stat").exists() {
            continue;
        }
        let command = fs::read(path.join("cmdline")).unwrap_or_default();
        if command.is_empty() {
            continue;
        }
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        found.push((metadata.uid(), command));
    }
    Ok(found)
}
