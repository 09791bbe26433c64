//! Moving something to a name that nothing has.

use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, RenameFlags, renameat, renameat2};
use nix::sys::stat::fstatat;

/// Renames `from` to `to`, where nothing may be (`EEXIST`). Follows no symbolic link at the end of either.
pub fn rename_new(from: &Path, to: &Path) -> nix::Result<()> {
    rename_new_at(AT_FDCWD, from, AT_FDCWD, to)
}

/// The same, with paths that start in open directories.
pub fn rename_new_at(from_at: impl AsFd, from: &Path, to_at: impl AsFd, to: &Path) -> nix::Result<()> {
    match renameat2(&from_at, from, &to_at, to, RenameFlags::RENAME_NOREPLACE) {
        // Some file systems can't promise not to replace; then look first.
        Err(Errno::EINVAL) => match fstatat(&to_at, to, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EEXIST),
            Err(Errno::ENOENT) => renameat(&from_at, from, &to_at, to),
            Err(errno) => Err(errno),
        },
        result => result,
    }
}
