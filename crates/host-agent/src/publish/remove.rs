//! Removing a tree, whatever a builder made of it.
//!
//! Directories without permissions are given them first, any depth is fine, symlinks are removed and not followed. A mount
//! point is never entered, so a mount that was left behind can't cost what is mounted there: it is an error with its path.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::TreeError;
use super::interrupt::Interrupt;
use super::walk::{self, Entries, Trail, identity};

/// Removes what is called `name` in `parent`: a tree or a single file. Nothing there is fine. `name` must not contain a
/// `/`.
///
/// Goes on after an entry that can't be removed, so that as little as possible is left; the first error is returned.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), TreeError> {
    let mut remover = Remover { trail: Trail::new(parent), first_error: None };
    remover.entry(name);
    let mut name = Vec::new();
    while remover.trail.depth() > 0 {
        if remover.trail.next_entry(&mut name) {
            remover.entry(&name);
        } else if let Some(left) = remover.trail.ascend()? {
            drop(left.directory);
            remover.unlink(&left.name, UnlinkatFlags::RemoveDir);
        }
    }
    remover.first_error.map_or(Ok(()), Err)
}

struct Remover<'a> {
    trail: Trail<'a>,
    first_error: Option<TreeError>,
}

impl Remover<'_> {
    /// Removes an entry of the current directory, or goes into it if it is a directory.
    fn entry(&mut self, name: &[u8]) {
        match unlinkat(self.trail.here(), name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            // EPERM is what POSIX has for directories; the open says whether it is one.
            Err(refused @ (Errno::EISDIR | Errno::EPERM)) => match self.open(name) {
                Ok((directory, entries, identity)) => {
                    self.trail.descend(name, directory, identity, entries);
                }
                Err(error) if error.raw_os_error() == Some(Errno::ENOTDIR as i32) => {
                    self.note("remove", name, refused.into());
                }
                Err(error) if error.raw_os_error() == Some(Errno::EXDEV as i32) => {
                    self.note("remove", name, io::Error::other("something is mounted on it"));
                }
                Err(error) => self.note("open", name, error),
            },
            Err(errno) => self.note("remove", name, errno.into()),
        }
    }

    fn open(&self, name: &[u8]) -> io::Result<(OwnedFd, Entries, walk::Identity)> {
        let directory = match walk::open_directory(self.trail.here(), name) {
            Err(Errno::EACCES) => {
                permit(self.trail.here(), name)?;
                walk::open_directory(self.trail.here(), name)?
            }
            other => other?,
        };
        let stat = fstat(&directory)?;
        if stat.st_mode & 0o700 != 0o700 {
            // Without capabilities (a failed copy by an unprivileged front end) entries can't be removed otherwise.
            // With them it does not matter whether this works.
            let _ = fchmod(&directory, Mode::S_IRWXU);
        }
        let entries = Entries::list(&directory, usize::MAX, &Interrupt::default())?.unwrap_or_default();
        Ok((directory, entries, identity(&stat)))
    }

    fn unlink(&mut self, name: &[u8], flag: UnlinkatFlags) {
        match unlinkat(self.trail.here(), name, flag) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => self.note("remove", name, errno.into()),
        }
    }

    fn note(&mut self, action: &'static str, name: &[u8], error: io::Error) {
        if self.first_error.is_none() {
            self.first_error = Some(TreeError::new(action, self.trail.path(Some(name)), error));
        }
    }
}

/// Lets the owner of a directory list and change it.
fn permit(parent: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
    let handle = walk::open_handle(parent, name)?;
    // There is no fchmod for handles; the link in /proc leads to what was opened, whatever its name is by now.
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    fchmodat(nix::fcntl::AT_FDCWD, path.as_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink)
}
