//! The root directory of a world: a tmpfs with the programs bound in read-only, and everything that is written in
//! the scratch directory or in memory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::pivot_root;

use super::{Guest, Root, World, accounts};

/// Top-level names that a world has of its own.
const OWN: &[&str] = &[
    "proc", "sys", "dev", "tmp", "run", "nix", "home", "root", "project", "target", "scratch", "kept", "old",
];

/// Where a Darling that was built from source is, and must be: it knows its own place.
const DARLING: &str = "usr/local";

/// Makes the root below `scratch` and enters it.
pub fn enter(world: &World, scratch: &Path) -> Result<()> {
    let root = scratch.join("root");
    fs::create_dir(&root)?;
    tmpfs(&root, "mode=755")?;
    let programs = match &world.root {
        Root::Machine => Path::new("/"),
        Root::Unpacked(path) => path,
    };
    if world.guest == Guest::Darling && world.root != Root::Machine {
        fs::create_dir_all(programs.join(DARLING)).context("failed to make a place for Darling")?;
    }
    for entry in fs::read_dir(programs)? {
        let entry = entry?;
        let (from, to) = (entry.path(), root.join(entry.file_name()));
        if OWN.iter().any(|own| entry.file_name() == *own) {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
        } else if kind.is_dir() {
            fs::create_dir(&to)?;
            bind_read_only(&from, &to)?;
        }
    }
    if world.guest == Guest::Darling && world.root != Root::Machine {
        bind_read_only(&Path::new("/").join(DARLING), &root.join(DARLING))?;
    }
    for (name, text) in [("passwd", accounts::passwd()), ("group", accounts::group())] {
        let file = scratch.join(name);
        fs::write(&file, text)?;
        bind(&file, &root.join("etc").join(name))?;
    }
    for own in OWN {
        fs::create_dir(root.join(own))?;
    }
    mount(Some("proc"), &root.join("proc"), Some("proc"), MsFlags::empty(), None::<&str>)
        .context("failed to mount /proc")?;
    bind(Path::new("/dev"), &root.join("dev"))?;
    bind(Path::new("/sys"), &root.join("sys"))?;
    tmpfs(&root.join("tmp"), "mode=1777")?;
    tmpfs(&root.join("run"), "mode=755")?;
    tmpfs(&root.join("home"), "mode=755")?;
    tmpfs(&root.join("root"), "mode=700")?;
    bind_read_only(&world.project, &root.join("project"))?;
    bind_read_only(&world.target, &root.join("target"))?;
    bind(scratch, &root.join("scratch"))?;
    let mut nix = scratch.join("nix");
    if let Some(name) = world.task.kept() {
        let kept = world.target.join(name);
        nix = kept.join("nix");
        bind(&kept, &root.join("kept"))?;
    }
    fs::create_dir_all(nix.join("store"))?;
    bind(&nix, &root.join("nix"))?;
    std::env::set_current_dir(&root)?;
    pivot_root(".", "old").context("failed to change the root directory")?;
    std::env::set_current_dir("/")?;
    umount2("/old", MntFlags::MNT_DETACH)?;
    fs::remove_dir("/old")?;

    fs::create_dir(accounts::USER_HOME)?;
    chown(accounts::USER_HOME, Some(accounts::USER_UID), Some(accounts::USER_UID))?;
    chown("/nix/store", Some(0), Some(30000))?;
    fs::set_permissions("/nix/store", fs::Permissions::from_mode(0o1775))?;
    Ok(())
}

fn tmpfs(at: &Path, options: &str) -> Result<()> {
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::MS_NOSUID, Some(options))
        .with_context(|| format!("failed to mount a tmpfs at {}", at.display()))
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("failed to bind {} to {}", from.display(), to.display()))
}

fn bind_read_only(from: &Path, to: &Path) -> Result<()> {
    bind(from, to)?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, to, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("failed to make {} read-only", to.display()))
}
