//! What a machine is given: a directory with programs, fixtures and, for Darling, what a package is built from.
//!
//! ```text
//! bin/host-agent, bin/darling-builder-hook   as an unpacked release has them
//! libexec/darling-builder/                   both agents
//! fixtures/, docs/darwin-builder.md          the repository's
//! sources/, toolchain/                       for the package; only with Darling
//! xtask, plan.json                           the runner and its plan
//! ```

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::debian::copy;
use super::guide;
use super::plan::Plan;
use super::stages;
use crate::binaries::{self, Profile};
use crate::flags::DarwinFlags;
use crate::packages::{KEPT, sources, toolchain};
use crate::workspace::Workspace;
use crate::world::Guest;
use crate::{darwin, progress};

/// Name of the runner's program.
pub const RUNNER: &str = "xtask";
/// Name of its plan.
pub const PLAN: &str = "plan.json";

/// Makes everything that a payload for the plan is to hold; costs nothing when it is there already.
pub fn build(workspace: &Workspace, plan: &Plan) -> Result<()> {
    announce(plan);
    binaries::build(workspace, Profile::Release)?;
    if plan.guest == Guest::Darling {
        darwin::run(workspace, &DarwinFlags::default()).context("failed to build the agent for Darling")?;
    }
    if has_package(plan) {
        let kept = workspace.target.join(KEPT);
        sources::download(workspace, &kept.join("sources"))?;
        toolchain::make(workspace, &kept.join("toolchain"))?;
    }
    Ok(())
}

/// Puts a payload together at `directory`, which must not exist.
pub fn assemble(workspace: &Workspace, plan: &Plan, directory: &Path) -> Result<()> {
    let release = workspace.target.join(Profile::Release.directory());
    let agents = directory.join("libexec/darling-builder");
    fs::create_dir_all(directory.join("bin"))?;
    fs::create_dir_all(&agents)?;
    copy(&release.join("host-agent"), &directory.join("bin/host-agent"))?;
    symlink("host-agent", directory.join("bin/darling-builder-hook"))?;
    copy(&release.join("darwin-agent"), &agents.join("darwin-agent"))?;
    let mach_o = workspace.target.join("darwin/darwin-agent");
    if plan.guest == Guest::Darling {
        copy(&mach_o, &agents.join("darwin-agent-macho"))?;
    }
    copy(&workspace.project.join("fixtures"), &directory.join("fixtures"))?;
    fs::create_dir_all(directory.join("docs"))?;
    copy(&workspace.project.join(guide::PAGE), &directory.join(guide::PAGE))?;
    // This very program, also where cargo has put another one in its place meanwhile.
    fs::copy("/proc/self/exe", directory.join(RUNNER)).context("failed to copy this program")?;
    fs::write(directory.join(PLAN), serde_json::to_vec_pretty(plan)?)?;
    if has_package(plan) {
        for (name, from) in package_inputs(workspace) {
            copy(&from, &directory.join(name))?;
        }
    }
    Ok(())
}

/// Sources and compiler for the package, by the names that they have in a payload.
fn package_inputs(workspace: &Workspace) -> [(&'static str, PathBuf); 2] {
    ["sources", "toolchain"].map(|name| (name, workspace.target.join(KEPT).join(name)))
}

/// Whether a package is to be built from source.
fn has_package(plan: &Plan) -> bool {
    plan.guest == Guest::Darling && plan.stages.contains(&stages::package::STAGE.number)
}

fn announce(plan: &Plan) {
    let what = if has_package(plan) { "programs, sources and compiler" } else { "programs" };
    progress(&format!("putting together what the machine is given: {what} …"));
}
