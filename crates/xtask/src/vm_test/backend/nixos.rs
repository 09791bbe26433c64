//! `--backend nixos`: the flake's NixOS VM test, whose script calls the same runner; its events are found in the log of the
//! build.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Ending, Prepared, Started};
use crate::vm_test::debian::on_path;
use crate::vm_test::watch::{Bounds, Running};
use crate::workspace::Workspace;
use crate::world::limited;

const CHECK: &str = ".#checks.x86_64-linux.vm-test";
const FEATURES: [&str; 2] = ["--extra-experimental-features", "nix-command flakes"];
/// For evaluating the flake, which may fetch its inputs.
const EVALUATION: Duration = Duration::from_secs(300);
/// The build of everything that the machine is made of comes first.
const BOUNDS: Bounds = Bounds {
    boot: Duration::from_secs(2 * 3600),
    silence: Duration::from_secs(120),
    grace: Duration::from_secs(120),
};

/// Why not, if so.
pub fn impossible(workspace: &Workspace) -> Option<String> {
    if on_path("nix").is_none() {
        return Some("there is no nix on PATH".into());
    }
    if !workspace.project.join("flake.nix").exists() {
        return Some("the repository has no flake.nix".into());
    }
    let mut evaluate = Command::new("nix");
    evaluate
        .args(FEATURES)
        .args(["eval", "--raw", &format!("{CHECK}.drvPath")])
        .current_dir(&workspace.project);
    match limited::run(&mut evaluate, EVALUATION) {
        Ok(finished) if finished.status.success() => None,
        Ok(finished) => {
            let text = String::from_utf8_lossy(&finished.stderr).into_owned();
            let error =
                text.lines().rev().find(|line| line.contains("error:")).unwrap_or("no answer in time");
            Some(format!("the flake's test can't be evaluated here: {}", error.trim()))
        }
        Err(error) => Some(format!("{error:#}")),
    }
}

/// The test has a plan of its own, written in Nix.
pub fn prepare(workspace: &Workspace, directory: &Path) -> Result<Prepared> {
    let project = workspace.project.clone();
    let log: PathBuf = directory.join("console.log");
    let start = move || {
        let file = File::create(&log)?;
        let process = Command::new("nix")
            .args(FEATURES)
            .args(["build", "--print-build-logs", "--no-link", CHECK])
            .current_dir(project)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("failed to run nix")?;
        let running = Running {
            process,
            events: log.clone(),
            console: log,
            bounds: BOUNDS,
            ends_by_itself: true,
            again: None,
        };
        let enter = format!("nix build {CHECK}.driverInteractive && ./result/bin/nixos-test-driver");
        Ok(Started { running, enter, ending: Ending::Process })
    };
    Ok(Prepared { what: "a NixOS virtual machine".into(), start: Box::new(start) })
}
