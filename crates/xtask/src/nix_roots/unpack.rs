//! From packages to a root directory, without running any of their scripts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::world::accounts;

/// Unpacks `packages` into `root` and does what of their scripts matters.
pub fn root(root: &Path, packages: &[PathBuf]) -> Result<()> {
    for directory in ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "var/empty"] {
        fs::create_dir_all(root.join(directory))?;
    }
    // Debian's directories have been merged into /usr; older packages still name the links.
    for link in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{link}"), root.join(link))?;
    }
    for package in packages {
        unpack(root, package).with_context(|| format!("failed to unpack {}", package.display()))?;
    }
    if !root.join("usr/bin/awk").exists() {
        symlink("gawk", root.join("usr/bin/awk"))?;
    }
    if !root.join("usr/bin/sh").exists() {
        symlink("dash", root.join("usr/bin/sh"))?;
    }
    fs::write(root.join("etc/passwd"), accounts::passwd())?;
    fs::write(root.join("etc/group"), accounts::group())?;
    fs::write(root.join("etc/nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    let status = Command::new("ldconfig").arg("-r").arg(root).status().context("failed to run ldconfig")?;
    ensure!(status.success(), "ldconfig failed in {}", root.display());
    Ok(())
}

fn unpack(root: &Path, package: &Path) -> Result<()> {
    let mut archive = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to run dpkg-deb")?;
    let stdout = archive.stdout.take().context("no output")?;
    let tar = Command::new("tar")
        .args(["--extract", "--keep-directory-symlink", "--directory"])
        .arg(root)
        .args(
            ["./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./usr/share/info"]
                .map(|p| format!("--exclude={p}")),
        )
        .stdin(stdout)
        .status()
        .context("failed to run tar")?;
    ensure!(archive.wait()?.success() && tar.success(), "dpkg-deb or tar failed");
    Ok(())
}
