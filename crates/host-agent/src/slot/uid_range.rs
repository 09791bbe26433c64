//! Whose the uids of slots are, on the whole machine: two daemons that used the same would kill each other's builders.
//!
//! A lock over the bytes that have the uids' numbers, in one file for the machine: so ranges that only overlap exclude each other as
//! well, and the kernel lets go of it with the process (open file description locks, fcntl(2)). Only root can open the file.

use std::fs::{File, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use thiserror::Error;

/// Where only root makes files, and which is empty after a boot.
pub(super) const FILE: &str = "/run/darling-builder.uids";

/// Root's alone: whoever can open it can lock it.
const MODE: u32 = 0o600;

/// The uids are not this process's to use.
#[derive(Debug, Error)]
pub enum UidRangeError {
    /// Somebody else's.
    #[error(
        "failed to take the uids {} to {}: another darling-builder daemon of this machine has some of them; stop it, or give \
         this one others by `uid-base`",
        .0.start, .0.end - 1
    )]
    Taken(Range<u32>),
    /// The lock's file can't be used.
    #[error("failed to lock uids in {path}: {error}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Uids that are this process's until it is dropped.
#[derive(Debug)]
pub(super) struct UidRange {
    _lock: File,
}

impl UidRange {
    /// Takes them all or none.
    pub(super) fn take(file: &Path, uids: &Range<u32>) -> Result<Self, UidRangeError> {
        let failed = |error| UidRangeError::Io { path: file.to_owned(), error };
        let lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(MODE)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(file)
            .map_err(failed)?;
        if lock.metadata().map_err(failed)?.mode() & 0o7777 != MODE {
            lock.set_permissions(Permissions::from_mode(MODE)).map_err(failed)?;
        }
        let bytes = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: libc::off_t::from(uids.start),
            l_len: libc::off_t::from(uids.end - uids.start),
            l_pid: 0,
        };
        match fcntl(&lock, FcntlArg::F_OFD_SETLK(&bytes)) {
            Ok(_) => Ok(Self { _lock: lock }),
            Err(Errno::EAGAIN | Errno::EACCES) => Err(UidRangeError::Taken(uids.clone())),
            Err(error) => Err(failed(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_overlap_exclude_each_other_until_one_is_let_go() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("uids");
        let first = UidRange::take(&file, &(5000..6000)).unwrap();
        let second = UidRange::take(&file, &(6000..7000)).unwrap();
        for overlapping in [5000..6000, 5999..6001, 0..u32::MAX, 5500..5501] {
            assert!(
                matches!(UidRange::take(&file, &overlapping), Err(UidRangeError::Taken(_))),
                "{overlapping:?}"
            );
        }
        drop(first);
        UidRange::take(&file, &(5000..6000)).unwrap();
        drop(second);
        UidRange::take(&file, &(0..u32::MAX)).unwrap();
    }

    #[test]
    fn nobody_else_can_open_the_file_also_if_it_was_open_to_all_before() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("uids");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let _taken = UidRange::take(&file, &(1..2)).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn who_has_taken_them_is_told_what_to_do() {
        insta::assert_snapshot!(
            UidRangeError::Taken(2_000_000_000..2_000_065_280),
            @"failed to take the uids 2000000000 to 2000065279: another darling-builder daemon of this machine has some of them; stop it, or give this one others by `uid-base`"
        );
    }
}
