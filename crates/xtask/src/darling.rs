//! Darling on this machine: where it is, and what a world needs to use it.
//!
//! Darling's programs and libraries are the machine's own, so such a world has the machine's root directory, and its
//! Nix is the machine's as well.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::flags::DarwinFlags;
use crate::workspace::Workspace;
use crate::{darwin, progress};

/// The launcher, if it is on `PATH`.
pub fn on_path() -> Option<PathBuf> {
    program("darling")
}

/// Installs Nix if it is missing, builds the Mach-O agent, and returns Nix's version.
pub fn prepare(workspace: &Workspace) -> Result<String> {
    if program("nix-build").is_none() {
        progress("installing the package nix-bin (it stays) …");
        let status = Command::new("apt-get")
            .args(["install", "--yes", "--quiet", "--no-install-recommends", "nix-bin"])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status();
        ensure!(status.is_ok_and(|status| status.success()), "failed; run: apt-get install nix-bin");
    }
    // Cargo knows whether there is anything to do.
    darwin::run(workspace, &DarwinFlags::default()).context("failed to build the agent for Darling")?;
    let output = Command::new("nix-store").arg("--version").output().context("failed to run nix-store")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.trim().rsplit(' ').next().unwrap_or_default().to_owned())
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
}
