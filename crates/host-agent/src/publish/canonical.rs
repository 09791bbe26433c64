//! The canonical form of what is in a store.
//!
//! Files are 0444, or 0555 if their owner could execute them; directories 0555; the modification time is 1 second
//! after the epoch, symlinks included; no extended attributes or ACLs but those that Nix ignores by default; owner as
//! asked (Nix `canonicalisePathMetaData`, 2.8 to 2.34).
//!
//! Order: attributes, mode, owner, time. The mode comes before the owner, so that no setuid file ever belongs to the
//! new owner; the time comes last, for the others would change nothing of it but a later one could.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, Mode, UtimensatFlags, fchmod, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};

use super::entry_checks::Kind;
use super::extended_attributes;

/// Modification time of everything in a store, seconds.
const MTIME: i64 = 1;

/// Whether a file's owner may execute it, which is all that a NAR knows of modes.
pub(super) fn is_executable(stat: &FileStat) -> bool {
    stat.st_mode & 0o100 != 0
}

/// The permission bits that an entry must end up with. Those of symlinks mean nothing.
pub(super) fn mode_for(stat: &FileStat, kind: Kind) -> Mode {
    if kind == Kind::Regular && !is_executable(stat) {
        Mode::S_IRUSR | Mode::S_IRGRP | Mode::S_IROTH
    } else {
        Mode::from_bits_truncate(0o555)
    }
}

fn has_mtime(stat: &FileStat) -> bool {
    stat.st_mtime == MTIME && stat.st_mtime_nsec == 0
}

fn has_mode(stat: &FileStat, kind: Kind) -> bool {
    kind == Kind::Symlink || Mode::from_bits_truncate(stat.st_mode & 0o7777) == mode_for(stat, kind)
}

/// Whether mode, owner and time are as they should be.
pub(super) fn is_canonical(stat: &FileStat, kind: Kind, owner: (u32, u32)) -> bool {
    has_mode(stat, kind) && has_mtime(stat) && (stat.st_uid, stat.st_gid) == owner
}

/// Gives an open regular file or directory its canonical form. The time of a directory stays: nothing is added to
/// or removed from one while publishing.
pub(super) fn canonicalise_open(
    entry: BorrowedFd<'_>,
    stat: &FileStat,
    kind: Kind,
    owner: (u32, u32),
) -> nix::Result<()> {
    extended_attributes::remove_all(entry)?;
    if !has_mode(stat, kind) {
        fchmod(entry, mode_for(stat, kind))?;
    }
    if (stat.st_uid, stat.st_gid) != owner {
        fchown(entry, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
    }
    if !has_mtime(stat) {
        set_mtime(entry)?;
    }
    Ok(())
}

/// Gives a symlink its canonical form: `handle` is the link itself (`O_PATH`), which is `name` in `parent`.
pub(super) fn canonicalise_symlink(
    handle: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    name: &[u8],
    stat: &FileStat,
    owner: (u32, u32),
) -> nix::Result<()> {
    extended_attributes::remove_all_of_entry(parent, name)?;
    if (stat.st_uid, stat.st_gid) != owner {
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        fchownat(handle, c"", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
    }
    if !has_mtime(stat) {
        set_mtime_of_symlink(parent, name)?;
    }
    Ok(())
}

/// Sets the modification time; the access time stays.
pub(super) fn set_mtime(entry: impl AsFd) -> nix::Result<()> {
    futimens(entry, &TimeSpec::UTIME_OMIT, &TimeSpec::new(MTIME, 0))
}

/// Sets the modification time of an entry, not of what it may point to. A file system that can't is left alone, as
/// Nix does.
pub(super) fn set_mtime_of_symlink(parent: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
    let time = TimeSpec::new(MTIME, 0);
    match utimensat(parent, name, &TimeSpec::UTIME_OMIT, &time, UtimensatFlags::NoFollowSymlink) {
        Err(Errno::ENOTSUP | Errno::ENOSYS) => Ok(()),
        other => other,
    }
}
