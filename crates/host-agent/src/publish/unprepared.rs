//! Handing an output over as its builder left it, to someone who checks it: a Nix that builds through us and registers
//! by itself.
//!
//! What that Nix can't see any more is checked here: once everything belongs to whoever asked, nobody can tell that a
//! hard link to a file of someone else was among it. So every entry must have been the builder's own.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::handover::{Transfer, give};
use super::walk::{self, Identity, Trail, identity};
use super::{PublishError, TreeError};

/// Files with several names that were handed over already; one for all outputs of a build.
#[derive(Debug, Default)]
pub struct HandedOver(HashSet<Identity>);

/// Gives the output called `name` in `parent`, all of which must belong to the builder and be on one file system, to its
/// new owner. Modes stay but for set-uid and set-gid bits. `name` must not contain a `/`. A refusal leaves the entries
/// before it changed; a refused output is thrown away.
///
/// Returns how many bytes its regular files have; more than `max_bytes` is refused.
pub fn hand_over_output(
    parent: BorrowedFd<'_>,
    name: &[u8],
    transfer: Transfer<'_>,
    max_bytes: Option<u64>,
    seen: &mut HandedOver,
) -> Result<u64, PublishError> {
    let shown = || name.escape_ascii().to_string();
    let device = fstat(parent).map_err(|errno| TreeError::new("examine", shown(), errno))?.st_dev;
    let mut walk =
        Walk { trail: Trail::new(parent), device, transfer, max_bytes, bytes: 0, seen: &mut seen.0 };
    walk.entry(name)?;
    let mut name = Vec::new();
    while walk.trail.depth() > 0 {
        if walk.trail.next_entry(&mut name) {
            walk.entry(&name)?;
        } else {
            walk.trail.ascend()?;
        }
    }
    Ok(walk.bytes)
}

struct Walk<'a> {
    trail: Trail<'a>,
    device: u64,
    transfer: Transfer<'a>,
    max_bytes: Option<u64>,
    bytes: u64,
    seen: &'a mut HashSet<Identity>,
}

impl Walk<'_> {
    fn entry(&mut self, name: &[u8]) -> Result<(), PublishError> {
        self.transfer.interrupt.check()?;
        let here = self.trail.here();
        let handle = walk::open_handle(here, name).map_err(|errno| self.failed("open", name, errno))?;
        let stat = fstat(&handle).map_err(|errno| self.failed("examine", name, errno))?;
        let format = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        self.check(name, &stat, format)?;
        if stat.st_uid == self.transfer.builder {
            give(handle.as_fd(), &stat, stat.st_mode & 0o1777, self.transfer.owner)
                .map_err(|errno| self.failed("change the owner of", name, errno))?;
            if stat.st_nlink > 1 && format != SFlag::S_IFDIR {
                self.seen.insert(identity(&stat));
            }
        }
        if format != SFlag::S_IFDIR {
            return Ok(());
        }
        let directory = walk::open_directory(self.trail.here(), name).map_err(|errno| match errno {
            Errno::EXDEV => PublishError::OtherFileSystem { path: self.trail.path(Some(name)) },
            errno => self.failed("open", name, errno).into(),
        })?;
        let entries = self.trail.list(name, &directory, usize::MAX, self.transfer.interrupt)?;
        self.trail.descend(name, directory, identity(&stat), entries.unwrap_or_default());
        Ok(())
    }

    fn check(&mut self, name: &[u8], stat: &FileStat, format: SFlag) -> Result<(), PublishError> {
        let path = || self.trail.path(Some(name));
        if stat.st_dev != self.device {
            return Err(PublishError::OtherFileSystem { path: path() });
        }
        let Transfer { builder, owner, .. } = self.transfer;
        let known = stat.st_uid == owner.0 && self.seen.contains(&identity(stat));
        if stat.st_uid != builder && !known {
            return Err(PublishError::Ownership { path: path(), uid: stat.st_uid, expected: builder });
        }
        if format == SFlag::S_IFREG && !known {
            self.bytes = self.bytes.saturating_add(stat.st_size.unsigned_abs());
        }
        match self.max_bytes {
            Some(limit) if self.bytes > limit => Err(PublishError::TooLarge { path: path(), limit }),
            _ => Ok(()),
        }
    }

    fn failed(&self, action: &'static str, name: &[u8], errno: Errno) -> TreeError {
        TreeError::new(action, self.trail.path(Some(name)), errno)
    }
}
