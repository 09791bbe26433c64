//! The machine that the stages run in, seen from inside: its commands, as root and as an ordinary user, each with a bound.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::User;
use serde_json::Value;

use super::event::{Emitter, Event};
use super::plan::Plan;
use crate::world::limited::{self, Finished, Running, wait_until};

/// The service.
pub const SERVICE: &str = "darling-builder.service";
/// The socket that starts it.
pub const SOCKET: &str = "darling-builder.socket";
/// Where configuration is looked for first, as the program does.
const CONFIG_ENV: &str = "DARLING_BUILDER_CONFIG";
const CONFIG: &str = "/etc/darling-builder/config.toml";
/// First uid of slots, unless it is configured.
pub const UID_BASE: u32 = 2_000_000_000;
/// Short commands: questions and answers.
const SHORT: u64 = 60;

/// A process inside a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotProcess {
    /// Its id, outside.
    pub pid: i32,
    /// The slot's uid.
    pub uid: u32,
    /// Its command line.
    pub line: String,
}

/// The machine, and how far a stage is.
#[derive(Debug)]
pub struct Machine {
    /// What to do.
    pub plan: Plan,
    /// Different in each run, so that nothing is built already.
    pub token: String,
    /// Fault of the fixtures, for `--break`; empty for none.
    pub fault: &'static str,
    emitter: Emitter,
    deadline: Instant,
    notes: Vec<String>,
}

impl Machine {
    /// This machine.
    pub fn new(plan: Plan, token: String, emitter: Emitter) -> Self {
        Self { plan, token, fault: "", emitter, deadline: Instant::now(), notes: Vec::new() }
    }

    /// A stage begins that may take this long.
    pub fn begin(&mut self, limit: Duration) {
        self.deadline = Instant::now() + limit;
        self.notes.clear();
    }

    /// What of the stage could not be done here.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Says what part of a stage is not done here, and why.
    pub fn note(&mut self, line: impl Into<String>) {
        self.notes.push(line.into());
    }

    /// Says what has been seen.
    pub fn say(&self, line: impl Into<String>) {
        self.emitter.emit(&Event::Progress { line: line.into() });
    }

    /// A bound that is `seconds` on an ordinary machine, and ends with the stage.
    pub fn bound(&self, seconds: u64) -> Duration {
        self.plan.bound(seconds).min(self.deadline.saturating_duration_since(Instant::now()))
    }

    /// A command as root.
    pub fn root(&self, program: impl AsRef<Path>) -> Command {
        Command::new(program.as_ref())
    }

    /// A command as the ordinary user, a client of nix-daemon.
    pub fn user(&self, program: &str) -> Result<Command> {
        let name = &self.plan.user;
        let user = User::from_name(name)?.with_context(|| format!("this machine has no user {name}"))?;
        // With its groups: who may ask nix-daemon can depend on them.
        let mut command = Command::new("setpriv");
        command
            .args([
                &format!("--reuid={}", user.uid),
                &format!("--regid={}", user.gid),
                "--init-groups",
                "--",
                program,
            ])
            .env("HOME", &user.dir)
            .env("USER", name)
            .env("NIX_REMOTE", "daemon")
            .current_dir("/");
        Ok(command)
    }

    /// Runs a command; at most this long.
    pub fn run(&self, command: &mut Command, seconds: u64) -> Result<Finished> {
        let limit = self.bound(seconds);
        ensure!(!limit.is_zero(), "the stage's time is over before {:?}", command.get_program());
        limited::run(command, limit)
    }

    /// Runs a short command that must succeed.
    pub fn must(&self, command: &mut Command) -> Result<Finished> {
        self.run(command, SHORT)?.must_succeed()
    }

    /// Starts a command in the background.
    pub fn start(&self, command: &mut Command) -> Result<Running> {
        limited::start(command)
    }

    /// Waits until something is so.
    pub fn wait(&self, seconds: u64, what: &str, condition: impl FnMut() -> Result<bool>) -> Result<()> {
        let limit = self.bound(seconds);
        ensure!(wait_until(limit, condition)?, "{what}: not after {limit:?}");
        Ok(())
    }

    /// `host-agent` with these arguments, as root.
    pub fn host_agent(&self, arguments: &[&str]) -> Command {
        let mut command = self.root("host-agent");
        command.args(arguments);
        command
    }

    /// What `host-agent status --json` says.
    pub fn status(&self) -> Result<Value> {
        let finished = self.must(&mut self.host_agent(&["status", "--json"]))?;
        serde_json::from_slice(&finished.stdout).context("failed to understand the status")
    }

    /// What `host-agent doctor --json` finds.
    pub fn doctor(&self) -> Result<Vec<Value>> {
        // It exits with 1 when something is broken; what, is in the findings.
        let finished = self.run(&mut self.host_agent(&["doctor", "--json"]), 120)?;
        let report: Value = serde_json::from_slice(&finished.stdout)
            .with_context(|| format!("no report: {}", finished.describe()))?;
        report["findings"].as_array().cloned().context("the report has no findings")
    }

    /// Waits until the daemon answers.
    pub fn daemon_answers(&self, seconds: u64) -> Result<()> {
        let mut said = String::new();
        let answers = || {
            let finished = self.run(&mut self.host_agent(&["status", "--json"]), SHORT)?;
            said = String::from_utf8_lossy(&finished.stderr).trim().to_owned();
            Ok(finished.status.success())
        };
        let limit = self.bound(seconds);
        ensure!(wait_until(limit, answers)?, "the daemon does not answer after {limit:?}: {said}");
        Ok(())
    }

    /// Waits until no build and no busy slot is left.
    pub fn nothing_runs(&self, seconds: u64) -> Result<()> {
        self.wait(seconds, "no build and no busy slot is left", || {
            let status = self.status()?;
            let builds = status["builds"].as_array().map_or(0, Vec::len);
            let mut slots = status["slots"].as_array().into_iter().flatten();
            Ok(builds == 0 && !slots.any(|slot| slot["state"] == "busy" || slot["state"] == "stopping"))
        })
    }

    /// The configuration that the program reads by default.
    pub fn config_file(&self) -> PathBuf {
        std::env::var_os(CONFIG_ENV).map_or_else(|| CONFIG.into(), PathBuf::from)
    }

    /// The configuration; empty if there is none.
    pub fn config(&self) -> Result<toml::Table> {
        let file = self.config_file();
        match fs::read_to_string(&file) {
            Ok(text) => text.parse().with_context(|| format!("failed to understand {}", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(toml::Table::new()),
            Err(error) => Err(error).with_context(|| format!("failed to read {}", file.display())),
        }
    }

    /// A system command under systemd; `None` where systemd does not run.
    pub fn systemctl(&self, arguments: &[&str]) -> Option<Command> {
        if !Path::new("/run/systemd/system").is_dir() {
            return None;
        }
        let mut command = self.root("systemctl");
        command.args(arguments);
        Some(command)
    }

    /// Restarts the daemon, for a configuration that has changed.
    pub fn restart_daemon(&self) -> Result<()> {
        match self.systemctl(&["restart", SERVICE]) {
            Some(mut command) => self.run(&mut command, 120)?.must_succeed()?,
            None => bail!("there is no systemd to restart the daemon with"),
        };
        self.daemon_answers(60)
    }

    /// Every process inside a slot.
    pub fn slot_processes(&self) -> Result<Vec<SlotProcess>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if metadata.uid() < UID_BASE {
                continue;
            }
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned();
            found.push(SlotProcess { pid, uid: metadata.uid(), line });
        }
        Ok(found)
    }

    /// Uids of the slots in which a process has this in its command line.
    pub fn slots_of(&self, text: &str) -> Result<Vec<u32>> {
        let processes = self.slot_processes()?;
        let uids = processes.iter().filter(|process| process.line.contains(text)).map(|process| process.uid);
        Ok(uids.collect::<std::collections::BTreeSet<u32>>().into_iter().collect())
    }

    /// Puts a wrong value into the configuration and restarts the daemon, which may fail.
    pub fn configure_wrongly(&self, table: &str, key: &str, value: &str) -> Result<()> {
        let mut config = self.config()?;
        let at = match table {
            "" => &mut config,
            name => {
                let table = config.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()));
                table.as_table_mut().with_context(|| format!("[{name}] is no table"))?
            }
        };
        at.insert(key.into(), value.into());
        let file = self.config_file();
        fs::write(&file, toml::to_string(&config)?)
            .with_context(|| format!("failed to write {}", file.display()))?;
        if let Some(mut restart) = self.systemctl(&["restart", SERVICE]) {
            self.run(&mut restart, 120)?;
        }
        Ok(())
    }

    /// Name of a file in the runner's own directory.
    pub fn scratch(&self, name: &str) -> PathBuf {
        Path::new(super::runner::STATE_DIRECTORY).join(name)
    }
}
