//! Trees that change hands: a build directory that is kept for whoever asked, or that goes back to whoever lent it.
//!
//! Both happen where nobody but root can look, in the slot's own directory, and the tree is only then moved to where its
//! new owner finds it. By then nothing in it is set-uid or set-gid, and nobody but its owner may write to it.
//!
//! What is the builder's changes hands. That includes files with several names: Linux makes a hard link within one mount
//! only, and of the slot's mounts the build directory is a single one, with no input and no output on it. So all names of a
//! file that is the builder's are in the tree. (A tree that its new owner could reach beforehand would be another matter:
//! a name that he has made would stay with him.)
//!
//! What is not the builder's can have been put there by root only. It is taken out, as it would go with the slot: a hard
//! link to a file from elsewhere must not become a way to read it, let alone to own it. Device files are taken out as well,
//! whoever has made them. Fifos and sockets are harmless and stay.

use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat};
use nix::unistd::{Gid, Uid, fchownat};

use super::interrupt::Interrupt;
use super::walk::{self, Identity, Trail, identity};
use super::{PublishError, TreeError, remove_tree};

/// From whom to whom.
#[derive(Debug, Clone, Copy)]
pub struct Transfer<'a> {
    /// The uid that owns what changes hands.
    pub builder: u32,
    /// The uid and gid that it gets.
    pub owner: (u32, u32),
    /// When to end early.
    pub interrupt: &'a Interrupt,
}

/// Gives the directory called `name` in `parent` to another owner, with all that is in it and belongs to the builder. It gets
/// mode 0700. Entries lose the rights of group and others to write, and set-id bits; their owner can list, enter and
/// change every directory, and read every file, so that he can remove all of it. `name` must not contain a `/`.
///
/// Entries of others, and devices, are removed. Fails at the first entry that can't be handed over.
pub fn hand_over(parent: BorrowedFd<'_>, name: &[u8], transfer: Transfer<'_>) -> Result<(), PublishError> {
    let mut handover = Handover { trail: Trail::new(parent), transfer, given: HashSet::new() };
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
    transfer: Transfer<'a>,
    /// What has changed hands and may turn up again by another name.
    given: HashSet<Identity>,
}

impl Handover<'_> {
    fn entry(&mut self, name: &[u8]) -> Result<(), PublishError> {
        self.transfer.interrupt.check()?;
        let Transfer { builder, owner, .. } = self.transfer;
        let here = self.trail.here();
        let is_top = self.trail.depth() == 0;
        let handle = walk::open_handle(here, name).map_err(|errno| self.failed("open", name, errno))?;
        let stat = fstat(&handle).map_err(|errno| self.failed("examine", name, errno))?;
        let format = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        let is_device = matches!(format, SFlag::S_IFCHR | SFlag::S_IFBLK);
        if stat.st_uid != builder && is_top {
            let path = self.trail.path(Some(name));
            return Err(PublishError::Ownership { path, uid: stat.st_uid, expected: builder });
        }
        if self.given.contains(&identity(&stat)) {
            return Ok(());
        }
        if stat.st_uid != builder || is_device {
            return Ok(remove_tree(here, name)?);
        }
        let mode = match format {
            SFlag::S_IFDIR if is_top => 0o700,
            SFlag::S_IFDIR => (stat.st_mode & 0o1755) | 0o700,
            _ => (stat.st_mode & 0o1755) | 0o400,
        };
        give(handle.as_fd(), &stat, mode, owner)
            .map_err(|errno| self.failed("change the owner of", name, errno))?;
        if format != SFlag::S_IFDIR {
            if stat.st_nlink > 1 {
                self.given.insert(identity(&stat));
            }
            return Ok(());
        }
        let directory = walk::open_directory(here, name).map_err(|errno| match errno {
            Errno::EXDEV => PublishError::OtherFileSystem { path: self.trail.path(Some(name)) },
            errno => self.failed("open", name, errno).into(),
        })?;
        let entries = self.trail.list(name, &directory, usize::MAX, self.transfer.interrupt)?;
        self.trail.descend(name, directory, identity(&stat), entries.unwrap_or_default());
        Ok(())
    }

    fn failed(&self, action: &'static str, name: &[u8], errno: Errno) -> TreeError {
        TreeError::new(action, self.trail.path(Some(name)), errno)
    }
}

/// Changes mode and owner of one entry, in this order: nothing that is set-uid ever belongs to the new owner.
pub(super) fn give(
    entry: BorrowedFd<'_>,
    stat: &FileStat,
    mode: u32,
    (uid, gid): (u32, u32),
) -> nix::Result<()> {
    let is_link = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK;
    if !is_link && mode != stat.st_mode & 0o7777 {
        // There is no fchmod for handles; the link in /proc leads to what was opened, whatever its name is by now.
        let path = format!("/proc/self/fd/{}", entry.as_raw_fd());
        let mode = Mode::from_bits_truncate(mode);
        fchmodat(AT_FDCWD, path.as_str(), mode, FchmodatFlags::FollowSymlink)?;
    }
    // This takes capabilities of files away as well (chown(2)).
    fchownat(entry, c"", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::AT_EMPTY_PATH)
}
