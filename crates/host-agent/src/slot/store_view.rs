//! The store as a slot sees it: the input closure, read-only, and room for the outputs.
//!
//! The view is a directory on the store's own file system, so that an output leaves it by `rename(2)`. Inputs are bind
//! mounts of single store objects; symbolic links can't be mounted on and are recreated. Mount points belong to root and
//! the view is sticky, so a builder can neither remove nor replace an input.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{linkat, symlinkat};
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

/// The view of one slot.
#[derive(Debug)]
pub struct StoreView {
    /// The covered store on the host.
    store: OwnedFd,
    /// The view's directory.
    view: OwnedFd,
    /// An empty file of the view, below what is mounted on it. The other input files' mount points are links to it: ext4 takes up
    /// to a millisecond to make a file where many have just been removed (`recently_deleted` in fs/ext4/ialloc.c), which is
    /// what a builder of many derivations does, and some microseconds to make a link.
    mount_point: Option<OwnedFd>,
}

impl StoreView {
    /// The view in the directory `view` of the store `store`.
    pub fn new(store: OwnedFd, view: OwnedFd) -> Self {
        Self { store, view, mount_point: None }
    }

    /// Shows one store object. Showing one twice is no error.
    pub fn show(&mut self, name: &StoreName) -> Result<(), ViewError> {
        let io = |error: Errno| ViewError::Io { name: name.clone(), error: error.into() };
        let path = CString::new(name.as_str()).map_err(|_| ViewError::Type(name.clone()))?;
        let kind = match fstatat(&self.store, path.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()),
            Err(Errno::ENOENT) => return Err(ViewError::Missing(name.clone())),
            Err(error) => return Err(io(error)),
        };
        let made = match kind {
            SFlag::S_IFDIR => mkdirat(&self.view, path.as_c_str(), Mode::from_bits_truncate(0o555)),
            SFlag::S_IFREG => self.make_file(&path),
            SFlag::S_IFLNK => {
                let target = readlinkat(&self.store, path.as_c_str()).map_err(io)?;
                symlinkat(target.as_os_str(), &self.view, path.as_c_str())
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
            let tree = clone_tree(self.store.as_fd(), &path, Extent::This).map_err(failed)?;
            attach(tree.as_fd(), self.view.as_fd(), &path).map_err(failed)?;
        }
        Ok(())
    }

    /// A file to mount on.
    fn make_file(&mut self, path: &CStr) -> nix::Result<()> {
        if let Some(file) = &self.mount_point {
            match linkat(file, c"", &self.view, path, AtFlags::AT_EMPTY_PATH) {
                // Links may be all used up, or unknown to the file system.
                Err(error) if error != Errno::EEXIST => {}
                done => return done,
            }
        }
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        self.mount_point = Some(openat(&self.view, path, flags, Mode::from_bits_truncate(0o444))?);
        Ok(())
    }
}
