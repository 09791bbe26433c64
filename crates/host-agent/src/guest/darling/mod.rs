//! Darling: an ephemeral prefix on tmpfs in every slot, and the Mach-O agent inside.
//!
//! Steps: the launcher boots the prefix in the background (it polls in whole seconds, so it is not waited for) → the
//! shellspawn socket appears → the store view and `/build` are bound into the container → a second launcher starts the agent,
//! which connects. The launcher gets the slot's uid as its real uid and root as its effective one; everything
//! inside then runs as the slot's uid, and no set-uid bit is needed.

mod binds;
mod launcher;

use std::fs::File;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::agent_file::{self, AgentFileError};
use crate::config::Config;
use crate::mount::Attributes;
use crate::slot::plan::BootPlan;
use crate::slot::root::{AGENT_DIR, Root, RootError};

/// File name of the agent for this guest.
pub const AGENT_NAME: &str = "darwin-agent-macho";

/// Where the agent's socket and file are, seen from Darwin.
const SYSTEM_ROOT: &str = "/Volumes/SystemRoot";

/// Home of the prefix, on a tmpfs of its own: the launcher makes `p` and `p.workdir` in it. Short, because the launcher puts
/// it into a socket address.
const PREFIX_HOME: &str = "/var/d";
const PREFIX: &str = "/var/d/p";

/// What Darling needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The launcher on the host, symbolic links resolved.
    launcher: PathBuf,
    /// The Mach-O agent on the host.
    agent: PathBuf,
    /// Size of the prefix's tmpfs, bytes.
    prefix_bytes: u64,
}

/// Why Darling can't be used.
#[derive(Debug, Error)]
pub enum DarlingError {
    /// No agent for it.
    #[error(transparent)]
    Agent(#[from] AgentFileError),
    /// No launcher.
    #[error(
        "failed to find Darling's launcher: {0}; install Darling, set `darling.launcher` in the configuration, or set \
         `guest = \"linux\"` to try the stand-in"
    )]
    Launcher(String),
}

impl Plan {
    /// With the launcher that the configuration names, else the first `darling` on `PATH`.
    pub fn new(config: &Config) -> Result<Self, DarlingError> {
        let launcher = match &config.darling.launcher {
            Some(path) => path.clone(),
            None => on_path().ok_or_else(|| DarlingError::Launcher("no `darling` on PATH".into()))?,
        };
        // On NixOS the name on PATH leads to a set-uid wrapper's target or a profile: what counts is the package's file.
        let launcher = launcher
            .canonicalize()
            .map_err(|error| DarlingError::Launcher(format!("{}: {error}", launcher.display())))?;
        let agent = agent_file::find(config.agent.as_deref(), AGENT_NAME)?;
        Ok(Self { launcher, agent, prefix_bytes: config.limits.tmpfs_bytes })
    }

    /// Where programs and libraries of the host are that Darling's own programs need.
    pub(super) fn host_paths(&self) -> Vec<PathBuf> {
        let system = super::linux::host_paths();
        let below_system = system.iter().any(|path| self.launcher.starts_with(path));
        // Else the directory that holds bin/ and libexec/.
        let prefix = self.launcher.parent().and_then(Path::parent).filter(|_| !below_system);
        system.iter().cloned().chain(prefix.map(Path::to_owned)).collect()
    }

    pub(super) fn furnish(&self, root: &Root<'_>, uid: u32) -> Result<(), RootError> {
        root.directory(PREFIX_HOME)?;
        root.tmpfs(PREFIX_HOME, &format!("mode=0700,uid={uid},gid={uid},size={}", self.prefix_bytes))?;
        root.bind(
            &self.agent,
            format!("{}/{AGENT_NAME}", &AGENT_DIR[1..]),
            Attributes { read_only: true, no_suid: true, no_dev: true, ..Attributes::default() },
        )
    }

    pub(super) fn launch(&self, plan: &BootPlan, log: &File) -> io::Result<Boot> {
        chown(PREFIX_HOME, Some(plan.uid), Some(plan.uid))?;
        let launcher = launcher::boot(&self.launcher, plan.uid, log)?;
        Ok(Boot {
            plan: self.clone(),
            uid: plan.uid,
            store: plan.store.clone(),
            log: log.try_clone()?,
            stage: Stage::Booting { launcher },
        })
    }
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("darling")).find(|file| file.is_file())
}

/// Whether the server was started and is gone: the launcher itself would go on waiting for 15 s.
fn server_is_dead() -> bool {
    let Ok(pid) = std::fs::read_to_string(Path::new(PREFIX).join(".init.pid")) else { return false };
    let pid = pid.trim();
    // The file is written after it is opened.
    if pid.is_empty() {
        return false;
    }
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the name, which is in parentheses and may hold anything.
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')),
        Err(_) => true,
    }
}

/// A prefix that is coming up.
#[derive(Debug)]
pub struct Boot {
    plan: Plan,
    uid: u32,
    store: PathBuf,
    log: File,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Until the socket of shellspawn is there.
    Booting { launcher: Pid },
    /// The agent was started, by this launcher.
    Started { launcher: Pid },
    /// That launcher has ended: shellspawn's socket is there before it listens, so the first ones may be turned away.
    TurnedAway,
}

impl Boot {
    pub(super) fn ended(&mut self, pid: Pid, status: &WaitStatus) -> Result<(), String> {
        match self.stage {
            // It ends by itself when the prefix could not be booted.
            Stage::Booting { launcher } if launcher == pid => {
                Err(format!("Darling's launcher ended before its prefix was up ({status:?})"))
            }
            Stage::Started { launcher } if launcher == pid => {
                self.stage = Stage::TurnedAway;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn proceed(&mut self) -> Result<(), String> {
        let launcher = match self.stage {
            Stage::Booting { launcher } => launcher,
            Stage::Started { .. } => return Ok(()),
            Stage::TurnedAway => return self.start_agent(),
        };
        if !Path::new(PREFIX).join("var/run/shellspawn.sock").exists() {
            return if server_is_dead() {
                Err("Darling's server ended while it was booting".into())
            } else {
                Ok(())
            };
        }
        binds::into_container(Path::new(PREFIX), &self.store)
            .map_err(|error| format!("failed to show the store and /build inside Darling: {error}"))?;
        // It would wake up after whole seconds to run a program that nobody waits for.
        let _ = kill(launcher, Signal::SIGKILL);
        self.start_agent()
    }

    fn start_agent(&mut self) -> Result<(), String> {
        let launcher = launcher::start_agent(&self.plan.launcher, self.uid, &self.log)
            .map_err(|error| format!("failed to start the agent in Darling: {error}"))?;
        self.stage = Stage::Started { launcher };
        Ok(())
    }

    pub(super) fn is_waiting(&self) -> bool {
        !matches!(self.stage, Stage::Started { .. })
    }

    pub(super) fn describe(&self) -> String {
        match self.stage {
            Stage::Booting { .. } => "Darling's prefix did not come up (no shellspawn socket)".into(),
            Stage::Started { .. } => "Darling's prefix is up and the agent was started".into(),
            Stage::TurnedAway => "Darling's prefix is up and does not start the agent".into(),
        }
    }
}
