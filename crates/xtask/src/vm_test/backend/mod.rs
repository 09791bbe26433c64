//! Places to run the stages: each makes a machine, starts the runner in it, and can end it.

pub mod container;
pub mod here;
pub mod nixos;
pub mod qemu;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;

use super::plan::Plan;
use super::watch::Running;
use crate::workspace::Workspace;
use crate::world::Guest;

/// A place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// The flake's NixOS VM test
    Nixos,
    /// A Debian tree, booted by systemd-nspawn
    Container,
    /// A Debian virtual machine, with KVM if it works and emulated if not
    Qemu,
    /// This machine, as it is
    Here,
}

/// Stands for the number of a machine's process, which another one can have after a reset.
pub const PROCESS: &str = "@PROCESS@";

/// A machine that was started.
pub struct Started {
    /// For watching it.
    pub running: Running,
    /// How a person gets into it; [`PROCESS`] stands for the number of its process.
    pub enter: String,
    /// How it is ended.
    pub ending: Ending,
}

/// How a machine is ended.
#[derive(Debug)]
pub enum Ending {
    /// With its process.
    Process,
    /// With the first process of the container; these control groups are removed then.
    Container(Vec<PathBuf>),
}

impl Backend {
    /// Best first.
    pub const ALL: [Backend; 4] = [Backend::Nixos, Backend::Container, Backend::Qemu, Backend::Here];

    /// As in flags and reports.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Nixos => "nixos",
            Backend::Container => "container",
            Backend::Qemu => "qemu",
            Backend::Here => "here",
        }
    }

    /// Why it can't be used on this machine, if so. What can be installed counts as there.
    pub fn impossible(self, workspace: &Workspace) -> Option<String> {
        match self {
            Backend::Nixos => nixos::impossible(workspace),
            Backend::Container => container::impossible(),
            Backend::Qemu => qemu::impossible(),
            Backend::Here => here::impossible(),
        }
    }

    /// Fills in what of the plan depends on the place, and puts together what the place needs.
    pub fn prepare(self, workspace: &Workspace, plan: Plan, directory: &Path) -> Result<Prepared> {
        match self {
            Backend::Nixos => nixos::prepare(workspace, directory),
            Backend::Container => container::prepare(workspace, plan, directory),
            Backend::Qemu => qemu::prepare(workspace, plan, directory),
            Backend::Here => here::prepare(workspace, plan, directory),
        }
    }
}

/// A machine that is ready to be started.
pub struct Prepared {
    /// In a few words, what it is.
    pub what: String,
    /// Starts it.
    pub start: Box<dyn FnOnce() -> Result<Started>>,
}

/// The guest that a machine gets if nothing else is asked for: Darling if this machine has it, and a place in which it is fast
/// enough.
pub fn default_guest(workspace: &Workspace, backend: Backend) -> Result<Guest> {
    if crate::darling::on_path().is_none() {
        return Ok(Guest::Linux);
    }
    let emulated = backend == Backend::Qemu && qemu::without_kvm(workspace)?.is_some();
    Ok(if emulated { Guest::Linux } else { Guest::Darling })
}

impl Started {
    /// How a person gets into it now.
    pub fn enter(&self) -> String {
        self.enter.replace(PROCESS, &self.running.process.id().to_string())
    }

    /// Ends the machine, and waits for it.
    pub fn stop(&mut self) {
        if let Ending::Container(_) = self.ending {
            container::kill_init(&self.running.process);
        } else {
            let _ = self.running.process.kill();
        }
        let _ = self.running.process.wait();
        if let Ending::Container(groups) = &self.ending {
            groups.iter().for_each(|group| container::remove_group(group));
        }
    }
}
