//! A Debian machine, made from Debian's packages alone: the tree that a container boots and a virtual machine's disk is
//! filled with.
//!
//! It is what a user has who has installed Debian and its Nix: systemd, nix-daemon with build users, one ordinary user. Of ours
//! there is only a unit that starts the runner. It is made once; a stamp says from which recipe.

pub mod image;
mod settings;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::darwin::install;
use crate::nix_roots::apt;
use crate::progress;
use crate::workspace::Workspace;

/// Debian 12: its Nix is the oldest one that is supported, and this tree's libraries are as old as those that Darling and our
/// programs are commonly built against.
const SUITE: &str = "bookworm";

/// What debootstrap puts into the tree. It knows nothing of virtual packages, which others below depend on.
const BASE: &[&str] = &["systemd", "systemd-sysv", "dbus", "procps", "zstd", "ca-certificates"];

/// What apt adds. The kernel is for the virtual machine.
const PACKAGES: &[&str] = &[
    "nix-bin",
    "nix-setup-systemd",
    "openssh-client",
    // The stand-in guest's; Darling has one of its own.
    "openssh-server",
    "passt",
    "initramfs-tools",
    "linux-image-cloud-amd64",
];

/// Where a machine finds its payload.
pub const PAYLOAD: &str = "/vm-test/payload";
/// Where a container finds the directory that it shares with us.
pub const SHARED: &str = "/vm-test/run";
/// Name of the file for events in it.
pub const EVENTS: &str = "events";
/// The target that ends the boot.
pub const TARGET: &str = "vm-test.target";

/// The tree, made if need be.
pub fn tree(workspace: &Workspace) -> Result<PathBuf> {
    let directory = directory(workspace);
    let tree = directory.join("tree");
    let stamp = directory.join("tree.recipe");
    let recipe = recipe();
    if fs::read_to_string(&stamp).is_ok_and(|old| old == recipe) {
        return Ok(tree);
    }
    require("debootstrap", "debootstrap")?;
    progress(&format!("making a Debian {SUITE} tree …"));
    let started = Instant::now();
    let _ = fs::remove_file(&stamp);
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("failed to remove {}", tree.display()))?;
    }
    let packages = directory.join("packages");
    fs::create_dir_all(&packages)?;
    let log = directory.join("debootstrap.log");
    let file = fs::File::create(&log)?;
    let logged = |command: &mut Command| {
        let status = command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file.try_clone()?)
            .status()
            .with_context(|| format!("failed to run {}", command.get_program().display()))?;
        ensure!(status.success(), "{} failed; see {}", command.get_program().display(), log.display());
        anyhow::Ok(())
    };
    logged(
        Command::new("debootstrap")
            .args(["--variant=minbase", &format!("--include={}", BASE.join(","))])
            .arg(format!("--cache-dir={}", fs::canonicalize(&packages)?.display()))
            .arg(SUITE)
            .arg(&tree)
            .arg(apt::archive()?),
    )?;
    // Nothing is to be started in there.
    let policy = tree.join("usr/sbin/policy-rc.d");
    fs::write(&policy, "#!/bin/sh\nexit 101\n")?;
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o755))?;
    let inside = ["apt-get", "install", "--yes", "--no-install-recommends"];
    logged(Command::new("chroot").arg(&tree).args(inside).args(PACKAGES))?;
    fs::remove_file(&policy)?;
    settings::apply(&tree)?;
    fs::write(stamp, recipe)?;
    progress(&format!("made it in {:.0} s", started.elapsed().as_secs_f64()));
    Ok(tree)
}

/// Where trees and images are kept.
pub fn directory(workspace: &Workspace) -> PathBuf {
    workspace.target.join("vm-test/debian")
}

/// From what the tree is made; equal recipes make equal trees.
pub fn recipe() -> String {
    format!("1\n{SUITE}\n{}\n{}\n{}", BASE.join(" "), PACKAGES.join(" "), settings::recipe())
}

/// Installs a package whose program is missing.
pub fn require(program: &str, package: &str) -> Result<()> {
    if on_path(program).is_none() {
        install::apt(&[package], &format!("this needs {program}"))?;
    }
    match on_path(program) {
        Some(_) => Ok(()),
        None => bail!("the package {package} has no {program}"),
    }
}

/// A program on `PATH` or where root's programs are.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    directories.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    directories.into_iter().map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Copies a tree, with everything that a file can have.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).status();
    ensure!(status.context("failed to run cp")?.success(), "failed to copy {}", from.display());
    Ok(())
}
