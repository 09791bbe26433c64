//! Handing a kept build directory to the user who asked for it.
//!
//! Only what the builder owned changes hands: a hard link or a leftover mount must not become a way to own something
//! else. Setuid and setgid bits go before the owner changes, symlinks are handed over themselves.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat};
use nix::unistd::{Gid, Uid, fchownat};

use super::TreeError;
use super::walk::{self, Entries, Trail, identity};

/// Gives what is called `name` in `parent` to another owner (uid, gid), as far as it belongs to `builder`. The top
/// gets mode 0755, the other entries keep theirs but for setuid and setgid bits. `name` must not contain a `/`.
///
/// Entries of others stay as they are, directories on other mounts are left out. Fails at the first entry that can't
/// be handed over.
pub fn hand_over(
    parent: BorrowedFd<'_>,
    name: &[u8],
    builder: u32,
    owner: (u32, u32),
) -> Result<(), TreeError> {
    let mut handover = Handover { trail: Trail::new(parent), builder, owner };
    handover.entry(name)?;
    let mut name = Vec::new();
    while handover.trail.depth() > 0 {
        if handover.trail.next_entry(&mut name) {
            handover.entry(&name)?;
        } else {
            handover.trail.ascend()?;
        }
    }
    Ok(())
}

struct Handover<'a> {
    trail: Trail<'a>,
    builder: u32,
    owner: (u32, u32),
}

impl Handover<'_> {
    fn entry(&mut self, name: &[u8]) -> Result<(), TreeError> {
        let here = self.trail.here();
        let handle = walk::open_handle(here, name).map_err(|errno| self.failed("open", name, errno))?;
        let stat = fstat(&handle).map_err(|errno| self.failed("examine", name, errno))?;
        let format = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        if stat.st_uid == self.builder {
            self.give(handle.as_fd(), &stat, format)
                .map_err(|errno| self.failed("change the owner of", name, errno))?;
        }
        if format != SFlag::S_IFDIR {
            return Ok(());
        }
        match walk::open_directory(here, name) {
            Ok(directory) => {
                let entries = Entries::list(&directory, usize::MAX)
                    .map_err(|error| TreeError::new("list", self.trail.path(Some(name)), error))?;
                self.trail.descend(name, directory, identity(&stat), entries.unwrap_or_default());
                Ok(())
            }
            Err(Errno::EXDEV) => Ok(()),
            Err(errno) => Err(self.failed("open", name, errno)),
        }
    }

    fn give(&self, entry: BorrowedFd<'_>, stat: &FileStat, format: SFlag) -> nix::Result<()> {
        let bits = stat.st_mode & 0o7777;
        let is_top = self.trail.depth() == 0;
        let wanted = if is_top && format == SFlag::S_IFDIR { 0o755 } else { bits & 0o1777 };
        if format != SFlag::S_IFLNK && wanted != bits {
            // There is no fchmod for handles; the link in /proc leads to what was opened, whatever its name is by now.
            let path = format!("/proc/self/fd/{}", entry.as_raw_fd());
            let mode = Mode::from_bits_truncate(wanted);
            fchmodat(AT_FDCWD, path.as_str(), mode, FchmodatFlags::FollowSymlink)?;
        }
        let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        fchownat(entry, c"", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)
    }

    fn failed(&self, action: &'static str, name: &[u8], errno: Errno) -> TreeError {
        TreeError::new(action, self.trail.path(Some(name)), errno)
    }
}
