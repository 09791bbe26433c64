//! Darling: an ephemeral prefix on tmpfs in every slot, and the Mach-O agent inside.
//!
//! The launcher boots the prefix in the background (it polls in whole seconds, so it is not waited for); it gets the slot's
//! uid as its real uid and root as its effective one, so everything inside runs as the slot's uid and no set-uid bit is
//! needed. Then see [`boot`].
//!
//! Stock Darling is repaired from outside, never patched; each repair has a switch in the configuration: [`signal_repair`],
//! address randomisation off ([`launcher`]), the tick ([`crate::slot::tick`]), and where one can log in [`remark_repair`] and
//! [`terminal_names`].

mod binds;
mod boot;
mod diagnosis;
mod launcher;
mod logins;
mod prefix;
mod remark_repair;
pub mod remarks;
mod shellspawn;
mod signal_repair;
mod socket_watch;
mod terminal_names;
mod vital;

pub use boot::Boot;

use std::fs::File;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::agent_file::{self, AgentFileError};
use crate::config::Config;
use crate::mount::Attributes;
use crate::slot::own_proc::OwnProc;
use crate::slot::plan::{BootPlan, SlotNetwork};
use crate::slot::questions::Questions;
use crate::slot::root::{AGENT_DIR, Root, RootError, tmpfs_options};
use crate::slot::stuck_report::Process;

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
    /// Which faults of Darling are repaired.
    repairs: Repairs,
}

/// Repairs of stock Darling, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repairs {
    signals: bool,
    no_address_randomisation: bool,
    pub(crate) tick: bool,
    remarks: bool,
    terminal_names: bool,
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
        let launcher = launcher(config)?;
        let agent = agent_file::find(config.agent.as_deref(), AGENT_NAME)?;
        let repairs = Repairs {
            signals: config.darling.signal_repair,
            no_address_randomisation: config.darling.address_randomisation_off,
            tick: config.darling.tick,
            remarks: config.darling.remark_repair,
            terminal_names: config.darling.terminal_names,
        };
        Ok(Self { launcher, agent, prefix_bytes: config.limits.tmpfs_bytes, repairs })
    }

    /// Where programs and libraries of the host are that Darling's own programs need.
    pub(super) fn host_paths(&self) -> Vec<PathBuf> {
        let system = super::linux::host_paths();
        let below_system = system.iter().any(|path| self.launcher.starts_with(path));
        // Else the directory that holds bin/ and libexec/.
        let prefix = self.launcher.parent().and_then(Path::parent).filter(|_| !below_system);
        system.iter().cloned().chain(prefix.map(Path::to_owned)).collect()
    }

    pub(super) fn furnish(&self, root: &Root<'_>, boot: &BootPlan) -> Result<(), RootError> {
        let uid = boot.uid;
        if boot.login.is_some() && self.repairs.terminal_names {
            terminal_names::make(root, uid)?;
        }
        root.directory(PREFIX_HOME)?;
        let owner = format!(",uid={uid},gid={uid}");
        root.tmpfs(PREFIX_HOME, &(tmpfs_options("0700", self.prefix_bytes) + &owner))?;
        root.bind(
            &self.agent,
            format!("{}/{AGENT_NAME}", &AGENT_DIR[1..]),
            Attributes { read_only: true, no_suid: true, no_dev: true, ..Attributes::default() },
        )
    }

    pub(super) fn launch(&self, plan: &BootPlan, log: &File) -> io::Result<Boot> {
        chown(PREFIX_HOME, Some(plan.uid), Some(plan.uid))?;
        prefix::make(Path::new(PREFIX), plan.uid, plan.login.is_some())?;
        if plan.network != SlotNetwork::Loopback {
            prefix::look_up_as(Path::new("/etc"), Path::new(PREFIX))?;
        }
        Boot::start(self, plan, log)
    }

    /// Which calls the slot's processes are asked about.
    fn questions(&self, login: bool) -> Questions {
        let writes = (login && self.repairs.remarks).then_some(remark_repair::LENGTH);
        Questions { group_kills: self.repairs.signals, writes }
    }

    /// What it says of a slot that hangs; see [`crate::slot::stuck_report`].
    pub(super) fn diagnose(&self, proc: &OwnProc, processes: &[Process]) -> Vec<String> {
        let tick = if self.repairs.tick { "on" } else { "off" };
        let mut lines = diagnosis::lines(proc, processes);
        lines.push(format!("the tick was {tick}"));
        lines
    }

    /// Whether the slot is to tick.
    pub(crate) fn ticks(&self) -> bool {
        self.repairs.tick
    }
}

/// The launcher that the configuration names, else the first `darling` on `PATH`; symbolic links resolved.
pub fn launcher(config: &Config) -> Result<PathBuf, DarlingError> {
    let launcher = match &config.darling.launcher {
        Some(path) => path.clone(),
        None => on_path().ok_or_else(|| DarlingError::Launcher("no `darling` on PATH".into()))?,
    };
    // On NixOS the name on PATH leads to a set-uid wrapper's target or a profile: what counts is the package's file.
    launcher
        .canonicalize()
        .map_err(|error| DarlingError::Launcher(format!("{}: {error}", launcher.display())))
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("darling")).find(|file| file.is_file())
}
