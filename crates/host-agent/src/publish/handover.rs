//! Trees that change hands: a build directory that is lent to a builder and taken back, or kept for the user who asked.
//!
//! Only what its owner until then owned changes hands: a hard link or a leftover mount must not become a way to own something
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
    Handover { trail: Trail::new(parent), builder, owner, top_mode: Some(0o755) }.run(name)
}

/// As [`hand_over`], for a directory that one holds, whatever its name is by now; its mode stays as well.
pub fn pass_on(directory: BorrowedFd<'_>, builder: u32, owner: (u32, u32)) -> Result<(), TreeError> {
    Handover { trail: Trail::new(directory), builder, owner, top_mode: None }.run(b".")
}

struct Handover<'a> {
    trail: Trail<'a>,
    builder: u32,
    owner: (u32, u32),
    /// What the top gets if it is a directory; `None`: it keeps its mode.
    top_mode: Option<u32>,
}

impl Handover<'_> {
    fn run(mut self, name: &[u8]) -> Result<(), TreeError> {
        self.entry(name)?;
        let mut name = Vec::new();
        while self.trail.depth() > 0 {
            if self.trail.next_entry(&mut name) {
                self.entry(&name)?;
            } else {
                self.trail.ascend()?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &[u8]) -> Result<(), TreeError> {
        let here = self.trail.here();
        let handle = match walk::open_handle(here, name) {
            Ok(handle) => handle,
            // Its owner may be removing the tree already.
            Err(Errno::ENOENT) if self.trail.depth() > 0 => return Ok(()),
            Err(errno) => return Err(self.failed("open", name, errno)),
        };
        let stat = fstat(&handle).map_err(|errno| self.failed("examine", name, errno))?;
        let format = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        if stat.st_uid == self.builder {
            let is_top = self.trail.depth() == 0;
            let top_mode = self.top_mode.filter(|_| is_top && format == SFlag::S_IFDIR);
            give(handle.as_fd(), &stat, top_mode, self.owner)
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
            Err(Errno::ENOENT) if self.trail.depth() > 0 => Ok(()),
            Err(errno) => Err(self.failed("open", name, errno)),
        }
    }

    fn failed(&self, action: &'static str, name: &[u8], errno: Errno) -> TreeError {
        TreeError::new(action, self.trail.path(Some(name)), errno)
    }
}

/// Changes the owner of one entry. It gets `mode`, or keeps its own without set-uid and set-gid bits.
pub(super) fn give(
    entry: BorrowedFd<'_>,
    stat: &FileStat,
    mode: Option<u32>,
    (uid, gid): (u32, u32),
) -> nix::Result<()> {
    let bits = stat.st_mode & 0o7777;
    let wanted = mode.unwrap_or(bits & 0o1777);
    let is_link = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK;
    if !is_link && wanted != bits {
        // There is no fchmod for handles; the link in /proc leads to what was opened, whatever its name is by now.
        let path = format!("/proc/self/fd/{}", entry.as_raw_fd());
        let mode = Mode::from_bits_truncate(wanted);
        fchmodat(AT_FDCWD, path.as_str(), mode, FchmodatFlags::FollowSymlink)?;
    }
    fchownat(entry, c"", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::AT_EMPTY_PATH)
}
