//! The lock that keeps a second daemon away from a daemon's directory, and files that are there to be locked.
//!
//! Whoever can open a file can hold a lock of it (flock(2)), so the file is root's alone to open, also where an older release
//! has made it readable. Somebody who opened it before that may still hold one; so the error names who does.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};
use thiserror::Error;

use crate::plain_text;

/// Root's alone.
const MODE: u32 = 0o600;

/// Why there is no lock.
#[derive(Debug, Error)]
pub enum LockError {
    /// The file can't be opened, or given its mode.
    #[error("failed to open the lock {path}: {error}", path = .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Somebody has it.
    #[error(
        "failed to lock {path}: {holder} holds it; if that is another darling-builder daemon, stop it first \
         (`systemctl stop darling-builder`), else end whatever it is",
        path = .path.display()
    )]
    Held {
        /// Which.
        path: PathBuf,
        /// Who it is.
        holder: String,
    },
}

/// Takes the lock, which lasts until what is returned is dropped.
pub fn take(path: &Path) -> Result<Flock<File>, LockError> {
    let failed = |error| LockError::Io { path: path.to_owned(), error };
    let file = open(path).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(file, _)| LockError::Held { path: path.to_owned(), holder: holder(&file) })
}

/// Opens a file that is there to be locked, made if it is missing, that nobody but root can open.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(MODE)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)?;
    if file.metadata()?.mode() & 0o7777 != MODE {
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

/// Who holds a lock of the file, as far as /proc tells.
fn holder(file: &File) -> String {
    let Some(pid) = holder_pid(file) else { return "another process".into() };
    let process = PathBuf::from(format!("/proc/{pid}"));
    let (Ok(owner), Ok(name)) = (process.metadata(), std::fs::read(process.join("comm"))) else {
        return format!("process {pid} took it and has ended, and one that it started");
    };
    // Its name is what it calls itself.
    let name = plain_text::line(String::from_utf8_lossy(&name).trim_end());
    format!("process {pid} ('{name}', uid {})", owner.uid())
}

/// The line of /proc/locks (proc_locks(5)) about this file: `1: FLOCK ADVISORY WRITE 77 fd:00:1234 0 EOF`.
fn holder_pid(file: &File) -> Option<u32> {
    let inode = format!("{}:{}", device(file)?, file.metadata().ok()?.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip_while(|word| *word != "FLOCK").skip(3);
        let pid = words.next()?.parse().ok()?;
        // 0: of a process that can't be seen from here.
        (words.next()? == inode && pid > 0).then_some(pid)
    })
}

/// The device as /proc/locks has it: that of the file system, which on btrfs is not the one that stat(2) tells. By way of the
/// mount (`mnt_id` in proc_pid_fdinfo(5), proc_pid_mountinfo(5)).
fn device(file: &File) -> Option<String> {
    let fdinfo = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let mount = fdinfo.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let device = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        (words.next()? == mount).then(|| words.nth(1))?
    })?;
    let (major, minor) = device.split_once(':')?;
    Some(format!("{:02x}:{:02x}", major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_for_its_owner_alone_also_where_it_was_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let mode = || path.metadata().unwrap().mode() & 0o7777;
        drop(take(&path).unwrap());
        assert_eq!(mode(), MODE);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        drop(take(&path).unwrap());
        assert_eq!(mode(), MODE);
    }

    #[test]
    fn whoever_holds_it_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = take(&path).unwrap();
        let error = take(&path).unwrap_err().to_string();
        let us = format!(
            "process {} ('{}', uid {})",
            std::process::id(),
            std::fs::read_to_string("/proc/self/comm").unwrap().trim_end(),
            nix::unistd::getuid()
        );
        assert!(error.contains(&us), "{error}");
        drop(held);
        take(&path).unwrap();
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("lock"), directory.path().join("other"));
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(matches!(take(&path), Err(LockError::Io { .. })));
        assert!(!other.exists());
    }
}
