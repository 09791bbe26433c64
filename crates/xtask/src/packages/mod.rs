//! `cargo xtask packages`: GNU packages from source, built as `x86_64-darwin` inside Darling by a real Nix through hook,
//! daemon and slot, with the small standard environment of `fixtures/packages`.
//!
//! The scratch store is kept between runs, below `target/packages`, so that what has been built is not built again.

mod inside;
mod log;
mod report;
pub mod sources;
pub mod toolchain;

pub use inside::{add, inside};

use std::fs;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::binaries::{self, Profile};
use crate::flags::PackagesFlags;
use crate::task::Task;
use crate::workspace::Workspace;
use crate::world::{World, possible};
use crate::{darling, progress};

/// Name of the directory, below cargo's target directory, that outlives a run.
pub const KEPT: &str = "packages";
/// All packages together take longer than anything else here.
const LIMIT_SECONDS: u64 = 4 * 3600;

/// A package of `fixtures/packages`, in the order in which they are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Package {
    /// GNU hello.
    Hello,
    /// GNU which.
    Which,
    /// GNU sed.
    Sed,
    /// GNU grep.
    Grep,
    /// gawk.
    Gawk,
    /// GNU make.
    Make,
    /// bash.
    Bash,
    /// GNU coreutils.
    Coreutils,
}

impl Package {
    /// As in the fixtures.
    pub fn name(self) -> &'static str {
        match self {
            Package::Hello => "hello",
            Package::Which => "which",
            Package::Sed => "sed",
            Package::Grep => "grep",
            Package::Gawk => "gawk",
            Package::Make => "make",
            Package::Bash => "bash",
            Package::Coreutils => "coreutils",
        }
    }
}

/// Builds the packages and prints the table; `false` if one of them does not work.
pub fn run(workspace: &Workspace, flags: &PackagesFlags) -> Result<bool> {
    let packages =
        if flags.only.is_empty() { Package::value_variants().to_vec() } else { flags.only.clone() };
    if darling::on_path().is_none() {
        println!("skipped {} packages: `darling` is not on PATH", packages.len());
        return Ok(true);
    }
    if let Err(reason) = possible() {
        bail!("building packages {reason}");
    }
    let nix = darling::prepare(workspace)?;
    binaries::build(workspace, Profile::Debug)?;
    let kept = workspace.target.join(KEPT);
    if flags.fresh && kept.join("nix").exists() {
        progress("removing what has been built …");
        fs::remove_dir_all(kept.join("nix")).context("failed to remove the kept store")?;
    }
    sources::download(workspace, &kept.join("sources"))?;
    toolchain::make(workspace, &kept.join("toolchain"))?;
    let task = Task::Packages { packages, jobs: usize::from(flags.jobs.get()) };
    let world = World::inside_darling(workspace, nix, Profile::Debug, task, LIMIT_SECONDS);
    let (_, succeeded) = world.run()?;
    if let Ok(table) = fs::read_to_string(kept.join("report.md")) {
        println!("\n{table}\nThis table: {}", kept.join("report.md").display());
    }
    Ok(succeeded)
}
