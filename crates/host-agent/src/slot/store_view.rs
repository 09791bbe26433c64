//! The store as a slot sees it: the input closure, read-only, and room for the outputs.
//!
//! The view is a directory on the store's own file system, so that an output leaves it by `rename(2)`. Inputs are bind
//! mounts of single store objects; symbolic links can't be mounted on and are recreated. Mount points belong to root and
//! the view is sticky, so a builder can neither remove nor replace an input.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::symlinkat;
use thiserror::Error;

use crate::mount::{Extent, attach, clone_tree};
use crate::store_path::StoreName;

/// Why an input can't be shown.
#[derive(Debug, Error)]
pub enum ViewError {
    /// It is not in the store.
    #[error(
        "failed to find the input {0} in the store: it is not there, so it cannot be valid; try `nix-store --verify-path` on it"
    )]
    Missing(StoreName),
    /// Neither file, directory nor link.
    #[error("failed to show the input {0}: it is neither a file nor a directory nor a symbolic link")]
    Type(StoreName),
    /// A system call failed.
    #[error("failed to show the input {name} in the slot: {error}")]
    Io {
        /// Which input.
        name: StoreName,
        /// What the system said.
        error: io::Error,
    },
}

/// Shows one store object. `store` is the source's directory, `view` the view's. Showing one twice is no error.
pub fn show(store: BorrowedFd<'_>, view: BorrowedFd<'_>, name: &StoreName) -> Result<(), ViewError> {
    let io = |error: Errno| ViewError::Io { name: name.clone(), error: error.into() };
    let path = CString::new(name.as_str()).map_err(|_| ViewError::Type(name.clone()))?;
    let kind = match fstatat(store, path.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()),
        Err(Errno::ENOENT) => return Err(ViewError::Missing(name.clone())),
        Err(error) => return Err(io(error)),
    };
    let made = match kind {
        SFlag::S_IFDIR => mkdirat(view, path.as_c_str(), Mode::from_bits_truncate(0o555)),
        SFlag::S_IFREG => openat(
            view,
            path.as_c_str(),
            OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC,
            Mode::from_bits_truncate(0o444),
        )
        .map(drop),
        SFlag::S_IFLNK => {
            let target = readlinkat(store, path.as_c_str()).map_err(io)?;
            symlinkat(target.as_os_str(), view, path.as_c_str())
        }
        _ => return Err(ViewError::Type(name.clone())),
    };
    match made {
        Ok(()) => {}
        Err(Errno::EEXIST) => return Ok(()),
        Err(error) => return Err(io(error)),
    }
    if kind != SFlag::S_IFLNK {
        let failed = |error| ViewError::Io { name: name.clone(), error };
        let tree = clone_tree(store, &path, Extent::This).map_err(failed)?;
        attach(tree.as_fd(), view, &path).map_err(failed)?;
    }
    Ok(())
}
