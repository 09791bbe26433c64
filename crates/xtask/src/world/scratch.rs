//! A world's directory outside.
//!
//! It goes when we do, however that happens: a shell of our own waits for the end of a pipe that only we hold, and
//! removes it then.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Removes its argument when its standard input ends. Dying processes may still be writing, so it tries again.
const SWEEP: &str =
    "trap '' INT TERM HUP; cat; for i in 1 2 3 4 5 6 7 8; do rm -rf \"$0\" && break; sleep 0.5; done";

/// A directory of our own below `target/worlds`.
#[derive(Debug)]
pub struct Scratch {
    /// Where it is.
    pub path: PathBuf,
    sweeper: Child,
}

impl Scratch {
    /// Makes one.
    pub fn new(target: &Path) -> Result<Self> {
        let worlds = target.join("worlds");
        fs::create_dir_all(&worlds)?;
        let path = (0..)
            .map(|number| worlds.join(format!("{}-{number}", std::process::id())))
            .find(|path| !path.exists())
            .context("no free name")?;
        fs::create_dir(&path)?;
        let sweeper = Command::new("sh")
            .args(["-c", SWEEP])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("failed to run sh")?;
        Ok(Self { path, sweeper })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Waiting closes the pipe first.
        let _ = self.sweeper.wait();
    }
}
