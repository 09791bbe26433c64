//! What is in a build directory that was given, before its builder runs: so that a build whose slot stalled can run once more
//! on the same.
//!
//! Nix puts a few small files there, attributes that are passed as files. A directory with anything else, or with more than
//! [`MOST_BYTES`], has no snapshot, and its build no second try. Only files of the directory's owner are kept: what is put back
//! is his, and was his.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::dir::Dir;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};

use crate::publish::remove_tree;

/// Most bytes that are kept of one directory.
const MOST_BYTES: u64 = 4 << 20;
/// Most files that are kept of one directory.
const MOST_FILES: usize = 1000;

/// The files of a directory.
#[derive(Debug)]
pub(super) struct Snapshot(Vec<Kept>);

#[derive(Debug)]
struct Kept {
    name: CString,
    contents: Vec<u8>,
    mode: Mode,
    group: u32,
    times: [TimeSpec; 2],
}

impl Snapshot {
    /// Reads the directory, which nothing changes any more; `None` if it holds what is not kept. Blocking.
    pub(super) fn take(directory: BorrowedFd<'_>, owner: u32) -> io::Result<Option<Self>> {
        let mut left = MOST_BYTES;
        let mut kept = Vec::new();
        for name in names(directory)? {
            let flags =
                OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            let Ok(file) = openat(directory, name.as_c_str(), flags, Mode::empty()) else { return Ok(None) };
            let stat = fstat(&file)?;
            let regular = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
            if !regular || stat.st_nlink != 1 || stat.st_uid != owner || kept.len() == MOST_FILES {
                return Ok(None);
            }
            let mut contents = Vec::new();
            File::from(file).take(left + 1).read_to_end(&mut contents)?;
            let Some(rest) = left.checked_sub(contents.len() as u64) else { return Ok(None) };
            left = rest;
            kept.push(Kept {
                name,
                contents,
                mode: Mode::from_bits_truncate(stat.st_mode & 0o777),
                group: stat.st_gid,
                times: [
                    TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
                    TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
                ],
            });
        }
        Ok(Some(Self(kept)))
    }

    /// Removes whatever is in the directory now, and puts the files back. Blocking.
    pub(super) fn restore(&self, directory: BorrowedFd<'_>, owner: u32) -> io::Result<()> {
        for name in names(directory)? {
            remove_tree(directory, name.as_bytes()).map_err(io::Error::other)?;
        }
        for kept in &self.0 {
            let flags =
                OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mut file =
                File::from(openat(directory, kept.name.as_c_str(), flags, Mode::from_bits_truncate(0o600))?);
            file.write_all(&kept.contents)?;
            fchown(&file, Some(Uid::from_raw(owner)), Some(Gid::from_raw(kept.group)))?;
            fchmod(file.as_fd(), kept.mode)?;
            futimens(file.as_fd(), &kept.times[0], &kept.times[1])?;
        }
        Ok(())
    }
}

/// What is in the directory, but for itself and its parent.
fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut names = Vec::new();
    for entry in Dir::openat(directory, c".", flags, Mode::empty())?.iter() {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn directory() -> (tempfile::TempDir, File, u32) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(".attr-0"), "from Nix\n").unwrap();
        fs::set_permissions(directory.path().join(".attr-0"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(directory.path().join("empty"), "").unwrap();
        let handle = File::open(directory.path()).unwrap();
        let owner = handle.metadata().unwrap().uid();
        (directory, handle, owner)
    }

    #[test]
    fn what_was_there_is_put_back_and_all_else_is_gone() {
        let (directory, handle, owner) = directory();
        let at = |name: &str| directory.path().join(name);
        let before = fs::metadata(at(".attr-0")).unwrap();
        let snapshot = Snapshot::take(handle.as_fd(), owner).unwrap().unwrap();
        fs::write(at(".attr-0"), "of the builder").unwrap();
        fs::remove_file(at("empty")).unwrap();
        fs::create_dir_all(at("deep/er")).unwrap();
        symlink("/etc/passwd", at("link")).unwrap();
        snapshot.restore(handle.as_fd(), owner).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".attr-0", "empty"]);
        let after = fs::metadata(at(".attr-0")).unwrap();
        let facts = |it: &fs::Metadata| (it.mode(), it.uid(), it.gid(), it.mtime(), it.mtime_nsec());
        assert_eq!(facts(&after), facts(&before));
        assert_eq!(fs::read(at(".attr-0")).unwrap(), b"from Nix\n");
    }

    #[test]
    fn more_than_a_few_files_of_the_owner_are_not_kept() {
        let takes = |change: &dyn Fn(&std::path::Path)| {
            let (directory, handle, owner) = directory();
            change(directory.path());
            Snapshot::take(handle.as_fd(), owner).unwrap().is_some()
        };
        assert!(takes(&|_| {}));
        assert!(takes(&|at| fs::write(at.join("most"), vec![0; (MOST_BYTES - 9) as usize]).unwrap()));
        assert!(!takes(&|at| fs::write(at.join("more"), vec![0; (MOST_BYTES - 8) as usize]).unwrap()));
        assert!(!takes(&|at| fs::create_dir(at.join("directory")).unwrap()));
        assert!(!takes(&|at| symlink("/etc/passwd", at.join("link")).unwrap()));
        assert!(!takes(&|at| fs::hard_link(at.join("empty"), at.join("other")).unwrap()));
        let (_directory, handle, owner) = directory();
        assert!(Snapshot::take(handle.as_fd(), owner + 1).unwrap().is_none(), "of others");
    }
}
