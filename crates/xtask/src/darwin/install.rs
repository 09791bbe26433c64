//! Packages that are missing: installed when that is allowed, otherwise named with the one command to run.

use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};

use crate::progress;

/// Installs Debian packages, or fails with the command that would.
pub fn apt(packages: &[&str], why: &str) -> Result<()> {
    let line = format!("apt-get install --yes --no-install-recommends {}", packages.join(" "));
    if !nix::unistd::geteuid().is_root() {
        bail!("{why}; as root, run: {line}");
    }
    progress(&format!("installing {} with apt: {why}; they stay installed …", packages.join(", ")));
    if !apt_get(packages) {
        // The lists may be old or never have been fetched.
        let _ = Command::new("apt-get").args(["--quiet", "update"]).stdout(Stdio::null()).status();
        ensure!(apt_get(packages), "{why}, and this failed: {line}");
    }
    Ok(())
}

fn apt_get(packages: &[&str]) -> bool {
    Command::new("apt-get")
        // Another apt may be at work.
        .args(["-o", "DPkg::Lock::Timeout=600"])
        .args(["--quiet", "--quiet", "install", "--yes", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
