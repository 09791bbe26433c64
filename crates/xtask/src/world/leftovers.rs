//! What should not be there when the daemons have ended.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::FrontEnd;
use super::daemon::STATE;
use super::session::Session;

/// How the world is before anything is built in it.
#[derive(Debug)]
pub struct Before {
    mounts: BTreeSet<String>,
}

impl Before {
    /// Looks at the world.
    pub fn look() -> Result<Self> {
        Ok(Self { mounts: mounts()? })
    }

    /// A line for everything that is left: processes, mounts, sockets, files of the daemon, files in the store that
    /// are not valid.
    pub fn left(&self, session: &Session) -> Result<Vec<String>> {
        let mut left = Vec::new();
        // A process that has just been killed may still be on its way out.
        for _ in 0..100 {
            left = processes()?;
            if left.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        left.extend(mounts()?.difference(&self.mounts).map(|mount| format!("mount {mount}")));
        for directory in ["/run", "/nix/var/darling-builder", "/tmp"] {
            sockets(Path::new(directory), &mut left)?;
        }
        for entry in entries(Path::new(STATE))? {
            if fs::symlink_metadata(&entry)?.is_dir() {
                left.extend(entries(&entry)?.iter().map(|path| format!("daemon's file {}", path.display())));
            }
        }
        for entry in entries(Path::new("/tmp"))? {
            // A killed nix-build can't remove its own, empty one.
            let of_nix_build =
                entry.file_name().is_some_and(|name| name.as_bytes().starts_with(b"nix-build-"));
            if of_nix_build && entries(&entry)?.is_empty() {
                continue;
            }
            left.push(format!("temporary file {}", entry.display()));
        }
        // A Nix that registers by itself leaves outputs that it has rejected, or that it was killed with, where they are.
        if session.world.front_end == FrontEnd::Hook {
            left.extend(not_valid(session)?);
        }
        Ok(left)
    }
}

fn mounts() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect())
}

fn processes() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in entries(Path::new("/proc"))? {
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else {
            continue;
        };
        if pid == 1 || pid == std::process::id() {
            continue;
        }
        let command = fs::read(path.join("cmdline")).unwrap_or_default();
        if command.is_empty() {
            continue;
        }
        found.push(format!("process {pid} {}", String::from_utf8_lossy(&command).replace('\0', " ")));
    }
    Ok(found)
}

fn sockets(directory: &Path, left: &mut Vec<String>) -> Result<()> {
    for path in entries(directory)? {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.file_type().is_socket() {
            left.push(format!("socket {}", path.display()));
        } else if metadata.is_dir() {
            sockets(&path, left)?;
        }
    }
    Ok(())
}

fn not_valid(session: &Session) -> Result<Vec<String>> {
    let mut command = session.root_command("nix-store");
    let dump = super::limited::run(command.arg("--dump-db"), super::session::LIMIT)?.must_succeed()?;
    let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
    let valid: BTreeSet<&str> = dump.lines().collect();
    let mut left = Vec::new();
    for path in entries(Path::new("/nix/store"))? {
        let text = path.to_str().context("store path that is not UTF-8")?;
        // Nix's own: links of the optimiser, and lock files, which it leaves behind empty when a build fails.
        let is_lock = text.ends_with(".lock") && fs::symlink_metadata(&path)?.len() == 0;
        if !valid.contains(text) && text != "/nix/store/.links" && !is_lock {
            left.push(format!("store file that is not valid: {text}"));
        }
    }
    Ok(left)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("failed to list {}", directory.display())),
    }
}
