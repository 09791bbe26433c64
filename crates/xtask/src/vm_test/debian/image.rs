//! Disk images, filled without mounting anything.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{directory, recipe, tree};
use crate::progress;
use crate::workspace::Workspace;

/// Size of a machine's disk; the file is sparse.
const ROOT_BYTES: u64 = 6 << 30;

/// A kernel, what it needs to find its root, and the root.
#[derive(Debug, Clone)]
pub struct Bootable {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initial file system.
    pub initrd: PathBuf,
    /// The root's image; never written to.
    pub root: PathBuf,
}

/// The kernel of a tree that has been made; an error if none has.
#[cfg(test)]
pub fn kernel_of_made_tree(workspace: &Workspace) -> Result<PathBuf> {
    newest(&directory(workspace).join("tree/boot"), "vmlinuz-")
}

fn newest(boot: &Path, start: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(boot).with_context(|| format!("failed to list {}", boot.display()))?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let found =
        names.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)));
    found.max().with_context(|| format!("{} has no {start}…", boot.display()))
}

/// The Debian tree as a disk, made if need be.
pub fn bootable(workspace: &Workspace) -> Result<Bootable> {
    let tree = tree(workspace)?;
    let boot = tree.join("boot");
    let root = directory(workspace).join("root.img");
    let stamp = directory(workspace).join("root.recipe");
    if !fs::read_to_string(&stamp).is_ok_and(|old| old == recipe()) {
        progress("filling a disk with the tree …");
        let _ = fs::remove_file(&stamp);
        make(&tree, &root, "vm-root", ROOT_BYTES)?;
        fs::write(stamp, recipe())?;
    }
    Ok(Bootable { kernel: newest(&boot, "vmlinuz-")?, initrd: newest(&boot, "initrd.img-")?, root })
}

/// An image with a directory's files, large enough for them.
pub fn of_directory(from: &Path, image: &Path, label: &str) -> Result<()> {
    let output = Command::new("du").args(["--summarize", "--block-size=1M"]).arg(from).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mib: u64 = text.split_whitespace().next().and_then(|n| n.parse().ok()).context("du says nothing")?;
    make(from, image, label, (mib + mib / 5 + 64) << 20)
}

fn make(from: &Path, image: &Path, label: &str, bytes: u64) -> Result<()> {
    let _ = fs::remove_file(image);
    File::create(image)?.set_len(bytes)?;
    let mkfs = super::on_path("mkfs.ext4").context("there is no mkfs.ext4 (package e2fsprogs)")?;
    let output = Command::new(mkfs)
        .args(["-q", "-F", "-L", label, "-m", "0", "-E", "lazy_itable_init=1,nodiscard", "-d"])
        .arg(from)
        .arg(image)
        .stdin(Stdio::null())
        .output()
        .context("failed to run mkfs.ext4")?;
    ensure!(output.status.success(), "mkfs.ext4 failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
