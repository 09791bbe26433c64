//! A world: a root directory of its own, in private namespaces, in which a real Nix of a chosen version works on a
//! store of its own. The machine's `/nix`, accounts and processes are neither seen nor changed.
//!
//! ```text
//! xtask ─ unshare ─ xtask world-init   pid 1: mounts, pivots, reaps; ends when xtask does
//!                     └ xtask world-task   the tests, the demo, a measurement: ordinary children, ordinary paths
//! ```
//!
//! Everything in a world ends with its pid 1, and its mounts with its last process, so no way of dying leaves
//! anything behind; the scratch directory is removed by a process that only waits for that.

pub mod accounts;
pub mod daemon;
pub mod etc;
pub mod init;
pub mod leftovers;
pub mod limited;
mod loopback;
pub mod machine;
mod root;
mod scratch;
pub mod servers;
pub mod session;
pub mod way_out;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::binaries::Profile;
use crate::task::Task;
use crate::workspace::Workspace;
use scratch::Scratch;

/// Where a world sees the repository.
pub const PROJECT: &str = "/project";
/// Where a world sees cargo's target directory.
pub const TARGET: &str = "/target";
/// Where a world sees what outlives it, if its task keeps anything.
pub const KEPT: &str = "/kept";
/// Where a world leaves what is to be read from outside.
pub const REPORT: &str = "/scratch/report.json";

/// What a world is made from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct World {
    /// Version of its Nix.
    pub nix: String,
    /// Where its programs come from.
    pub root: Root,
    /// Who builds.
    pub mode: Mode,
    /// What runs inside slots.
    pub guest: Guest,
    /// How Nix comes to us.
    pub front_end: FrontEnd,
    /// The repository.
    pub project: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// Cargo profile directory below the target directory that has our programs.
    pub profile: String,
    /// What to do there.
    pub task: Task,
    /// Seconds after which everything in the world is killed.
    pub limit_seconds: u64,
}

/// Where a world's programs come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// The machine's own root, read-only: where Darling is.
    Machine,
    /// A root made by [`crate::nix_roots`].
    Unpacked(PathBuf),
}

/// Who builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// root opens the store itself.
    SingleUser,
    /// An unprivileged client asks a Nix daemon, which has build users.
    Daemon,
}

impl Mode {
    /// For test names.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::SingleUser => "single-user",
            Mode::Daemon => "nix-daemon",
        }
    }
}

/// How Nix comes to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FrontEnd {
    /// The setting `build-hook`; every Nix.
    Hook,
    /// The setting `external-builders`; Nix 2.32 and later.
    ExternalBuilder,
}

impl FrontEnd {
    /// For test names.
    pub fn as_str(self) -> &'static str {
        match self {
            FrontEnd::Hook => "hook",
            FrontEnd::ExternalBuilder => "external-builder",
        }
    }
}

/// What runs inside slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guest {
    /// The stand-in.
    Linux,
    /// Darling.
    Darling,
}

impl Guest {
    /// As in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Guest::Linux => "linux",
            Guest::Darling => "darling",
        }
    }
}

/// Whether worlds can be made here; the text says why not, and what to do.
pub fn possible() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err(
            "needs root for namespaces and uids of its own: run it with sudo -E env PATH=\"$PATH\"".into()
        );
    }
    let works = Command::new("unshare")
        .args(["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "true"])
        .stderr(Stdio::null())
        .status();
    match works {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("namespaces are not permitted here (a container? give it --privileged)".into()),
        Err(error) => Err(format!("failed to run unshare (package util-linux): {error}")),
    }
}

impl World {
    /// This machine's root, Nix and Darling, the hook, no nix-daemon.
    pub fn inside_darling(
        workspace: &Workspace,
        nix: String,
        profile: Profile,
        task: Task,
        limit_seconds: u64,
    ) -> Self {
        Self {
            nix,
            root: Root::Machine,
            mode: Mode::SingleUser,
            guest: Guest::Darling,
            front_end: FrontEnd::Hook,
            project: workspace.project.clone(),
            target: workspace.target.clone(),
            profile: profile.directory().into(),
            task,
            limit_seconds,
        }
    }

    /// For reports.
    pub fn title(&self) -> String {
        let mode = self.mode.as_str();
        format!("nix-{} {mode} {} {}", self.nix, self.guest.as_str(), self.front_end.as_str())
    }

    /// Makes the world, does its task there and returns the report it left, if any, and whether it succeeded.
    pub fn run(&self) -> Result<(Option<Vec<u8>>, bool)> {
        let scratch = Scratch::new(&self.target)?;
        let spec = scratch.path.join("world.json");
        fs::write(&spec, serde_json::to_vec(self)?)?;
        // Its standard input is its lifeline: it ends when this process does, however that happens.
        // Whoever starts us in the background may have let us ignore signals, and that is inherited: then Nix would not end at
        // Ctrl-C, and its own builds would differ from ours, which have no signal ignored.
        let mut world = Command::new("env")
            .args(["--default-signal", "unshare"])
            .args(["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"])
            // This very program, also where cargo has put another one in its place meanwhile.
            .arg(format!("/proc/{}/exe", std::process::id()))
            .arg("world-init")
            .arg(&spec)
            .stdin(Stdio::piped())
            .spawn()
            .context("failed to run env (package coreutils)")?;
        // `wait` would close the lifeline first.
        let lifeline = world.stdin.take();
        let status = world.wait()?;
        drop(lifeline);
        let mounts = fs::read("/proc/self/mountinfo")?;
        let path = scratch.path.display().to_string();
        ensure!(
            !mounts.windows(path.len()).any(|window| window == path.as_bytes()),
            "a mount of the world is left outside it"
        );
        Ok((fs::read(scratch.path.join("report.json")).ok(), status.success()))
    }
}
