//! Taking finished outputs from the daemon into the store, without copying them if that is possible.
//!
//! The daemon leaves an output on the store's file system, in canonical form and owned by whoever asked. A rename then
//! is all, but Linux refuses one across two mounts even of one file system, and NixOS bind-mounts `/nix/store`. So
//! the second try renames inside a private copy of the one mount that holds both; it is only used if the directories
//! seen through it are the same ones (device and inode). What is left is a copy.
//!
//! Nothing is ever replaced. The goal that waits for us holds the lock of every output and Nix has deleted invalid
//! leftovers, so whatever is at an output's path now was put there by something that is not Nix, or is valid.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use ::nix::errno::Errno;
use ::nix::fcntl::AtFlags;
use ::nix::sys::stat::fstatat;
use thiserror::Error;

use crate::mount::{self, Extent};
use crate::publish::{self, CopyRules, PublishError};

/// How an output came into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Renamed.
    Renamed,
    /// Renamed inside a private copy of the mount.
    RenamedInMount,
    /// Copied, sharing blocks where the file system can.
    Copied,
}

/// Why an output did not come into the store.
#[derive(Debug, Error)]
pub enum TakeError {
    /// Something is there already.
    #[error(
        "'{0}' has appeared while it was built, and not through Nix; nothing was replaced. If `nix-store --check-validity` \
         says that it is not valid, remove it"
    )]
    Exists(PathBuf),
    /// The system refused.
    #[error("failed to move '{from}' to '{to}': {error}")]
    Io {
        /// The staged output.
        from: PathBuf,
        /// Its place in the store.
        to: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It could be neither moved nor copied.
    #[error("failed to copy '{from}' to '{to}': {error}")]
    Copy {
        /// The staged output.
        from: PathBuf,
        /// Its place in the store.
        to: PathBuf,
        /// Why.
        error: PublishError,
    },
}

/// Moves `staged` to `target`, a path directly inside the store.
pub fn take(staged: &Path, target: &Path) -> Result<Way, TakeError> {
    let failed = |error: io::Error| TakeError::Io { from: staged.to_owned(), to: target.to_owned(), error };
    let outcome = |result: Result<(), Errno>, way| match result {
        Ok(()) => Ok(Some(way)),
        Err(Errno::EXDEV) => Ok(None),
        Err(Errno::EEXIST | Errno::ENOTEMPTY) => Err(TakeError::Exists(target.to_owned())),
        Err(errno) => Err(failed(errno.into())),
    };
    let unlocked = Unlocked::new(staged).map_err(failed)?;
    let mut renamed = outcome(publish::rename_new(staged, target), Way::Renamed);
    if let Ok(None) = renamed {
        renamed = outcome(rename_in_mount(staged, target), Way::RenamedInMount);
    }
    let now_at = if let Ok(Some(_)) = renamed { target } else { staged };
    unlocked.lock(now_at).map_err(failed)?;
    if let Some(way) = renamed? {
        return Ok(way);
    }
    if fs::symlink_metadata(target).is_ok() {
        return Err(TakeError::Exists(target.to_owned()));
    }
    copy(staged, target)
}

/// Directly to its place: it is not valid before it is registered, and a garbage collector deletes names that it does
/// not know.
fn copy(staged: &Path, target: &Path) -> Result<Way, TakeError> {
    let failed = |error: io::Error| TakeError::Io { from: staged.to_owned(), to: target.to_owned(), error };
    let parts = |path: &Path| -> io::Result<(File, Vec<u8>)> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::other("not a path of a file"));
        };
        Ok((File::open(directory)?, name.as_bytes().to_vec()))
    };
    let (from, name) = parts(staged).map_err(failed)?;
    let (to, new_name) = parts(target).map_err(failed)?;
    publish::copy_tree(from.as_fd(), &name, to.as_fd(), &new_name, &CopyRules::default())
        .map_err(|error| TakeError::Copy { from: staged.to_owned(), to: target.to_owned(), error })?;
    Ok(Way::Copied)
}

/// Renames inside a detached copy of the mount that holds the nearest directory above both. `EXDEV` if there is no such
/// mount, or none may be made.
fn rename_in_mount(staged: &Path, target: &Path) -> Result<(), Errno> {
    let Some(store) = target.parent() else { return Err(Errno::EXDEV) };
    let Some(staging) = staged.parent() else { return Err(Errno::EXDEV) };
    let above = common_ancestor(store, staging);
    let mount = clone_mount(&above).map_err(|_| Errno::EXDEV)?;
    let (Ok(store_inside), Ok(staging_inside)) = (store.strip_prefix(&above), staging.strip_prefix(&above))
    else {
        return Err(Errno::EXDEV);
    };
    for (outside, inside) in [(store, store_inside), (staging, staging_inside)] {
        if !same_directory(outside, &mount, inside) {
            return Err(Errno::EXDEV);
        }
    }
    let inside = |path: &Path| path.strip_prefix(&above).map(Path::to_owned).map_err(|_| Errno::EXDEV);
    publish::rename_new_at(&mount, &inside(staged)?, &mount, &inside(target)?)
}

fn common_ancestor(a: &Path, b: &Path) -> PathBuf {
    let shared = a.components().zip(b.components()).take_while(|(a, b)| a == b).map(|(a, _)| a);
    shared.collect()
}

/// A private copy of the mount that `directory` is on, starting there, without the mounts below it.
fn clone_mount(directory: &Path) -> io::Result<OwnedFd> {
    let directory = File::open(directory)?;
    mount::clone_tree(directory.as_fd(), c"", Extent::This)
}

fn same_directory(outside: &Path, mount: &OwnedFd, inside: &Path) -> bool {
    let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
    // A `..` would lead out of the mount.
    if inside.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return false;
    }
    let Ok(outside) = fs::metadata(outside) else { return false };
    match fstatat(mount.as_fd(), inside, AtFlags::empty()) {
        Ok(inside) => (outside.dev(), outside.ino()) == (inside.st_dev, inside.st_ino),
        Err(_) => false,
    }
}

/// A staged directory that its owner may rename. Moving a directory changes its `..`, so anyone but root must be
/// allowed to write to it, and in canonical form nobody is.
struct Unlocked(Option<fs::Permissions>);

impl Unlocked {
    fn new(staged: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(staged)?;
        if !metadata.is_dir() || ::nix::unistd::geteuid().is_root() {
            return Ok(Self(None));
        }
        let locked = metadata.permissions();
        fs::set_permissions(staged, fs::Permissions::from_mode(locked.mode() | 0o200))?;
        Ok(Self(Some(locked)))
    }

    fn lock(self, target: &Path) -> io::Result<()> {
        self.0.map_or(Ok(()), |locked| fs::set_permissions(target, locked))
    }
}
