//! An `/etc` that a test may change: a copy of the world's own, for as long as the test runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::limited;

const ETC: &str = "/etc";

/// The copy; it goes when this is dropped.
#[derive(Debug)]
pub struct WritableEtc {
    copy: PathBuf,
}

impl WritableEtc {
    /// Puts a copy in place.
    pub fn new() -> Result<Self> {
        let copy = PathBuf::from("/run/etc");
        let mut copying = Command::new("cp");
        limited::run(copying.args(["-a", ETC]).arg(&copy), Duration::from_secs(60))?.must_succeed()?;
        let etc = Self { copy };
        mount(Some(&etc.copy), ETC, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .context("failed to bind a copy of /etc")?;
        Ok(etc)
    }

    /// Writes a file below it.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = Path::new(ETC).join(path);
        fs::create_dir_all(path.parent().context("no directory")?)?;
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    }
}

impl Drop for WritableEtc {
    fn drop(&mut self) {
        let _ = umount2(ETC, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.copy);
    }
}
