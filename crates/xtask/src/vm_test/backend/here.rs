//! `--backend here`: this machine, as it is. Nothing is installed and nothing removed; builds and killed processes are real.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Ending, Prepared, Started};
use crate::vm_test::debian::on_path;
use crate::vm_test::payload;
use crate::vm_test::plan::Plan;
use crate::vm_test::watch::{Bounds, Running};
use crate::workspace::Workspace;

const BOUNDS: Bounds = Bounds {
    boot: Duration::from_secs(20),
    silence: Duration::from_secs(30),
    grace: Duration::from_secs(30),
};

/// Why not, if so.
pub fn impossible() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".into());
    }
    match on_path("host-agent") {
        Some(_) => None,
        None => Some("host-agent is not installed on this machine (host-agent install)".into()),
    }
}

/// The plan is run by a process of our own.
pub fn prepare(workspace: &Workspace, plan: Plan, directory: &Path) -> Result<Prepared> {
    let user = std::env::var("SUDO_USER").unwrap_or_else(|_| "nobody".into());
    let plan = Plan { install: false, reboot: false, user, ..plan };
    payload::build(workspace, &plan)?;
    let given = directory.join("payload");
    let plan = Plan { payload: given.clone(), ..plan };
    payload::assemble(workspace, &plan, &given)?;
    let [events, console] = ["events", "console.log"].map(|name| directory.join(name));
    let start = move || {
        let process = Command::new(given.join(payload::RUNNER))
            .args(["vm-stages", "--plan"])
            .arg(given.join(payload::PLAN))
            .stdin(Stdio::null())
            .stdout(File::create(&events)?)
            .stderr(File::create(&console)?)
            .spawn()
            .context("failed to start the runner")?;
        let running = Running { process, events, console, bounds: BOUNDS, ends_by_itself: true, again: None };
        Ok(Started { running, enter: "you are in it".into(), ending: Ending::Process })
    };
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Ok(Prepared { what: format!("this machine, {}", name.trim()), start: Box::new(start) })
}
