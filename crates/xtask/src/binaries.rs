//! Our own programs, built for a world.

use anyhow::{Result, ensure};

use crate::progress;
use crate::workspace::{Workspace, cargo};

/// How they are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// For tests.
    Debug,
    /// For measurements and the demo.
    Release,
}

impl Profile {
    /// Its directory below the target directory.
    pub fn directory(self) -> &'static str {
        match self {
            Profile::Debug => "debug",
            Profile::Release => "release",
        }
    }
}

/// Builds `host-agent` and the Linux `darwin-agent`.
pub fn build(workspace: &Workspace, profile: Profile) -> Result<()> {
    progress(&format!("building host-agent and darwin-agent ({}) …", profile.directory()));
    let mut command = cargo(&workspace.project);
    command.args(["build", "--quiet", "--bin", "host-agent", "--bin", "darwin-agent"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    ensure!(command.status()?.success(), "cargo build failed");
    Ok(())
}
