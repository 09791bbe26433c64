//! Build directories of failed builds, kept for whoever asked.
//!
//! ```text
//! kept/                0711 root's
//!   <uid>/             0700 his for whom the builds were
//!     <name>-<n>/      0700 a build directory
//! ```
//!
//! Each user has a directory of his own, in which he can remove, rename and make what he likes: nothing that is in it is
//! believed or followed. It is reached through descriptors only, and what is moved into it takes a name that is free.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{Gid, Uid, fchown};

use crate::publish::rename_new_at;

/// How many names are tried. A user who has that many directories of one name does not want another.
const NAMES: u32 = 10_000;

/// Moves `build` of the directory `from` to a new name below `kept`. It must have been handed over to `owner` (uid, gid)
/// already. Returns where it is.
pub(super) fn keep(
    kept: &Path,
    from: BorrowedFd<'_>,
    build: &str,
    name: &str,
    owner: (u32, u32),
) -> io::Result<PathBuf> {
    let (directory, path) = directory_of(kept, owner)?;
    for number in 0..NAMES {
        let name = format!("{name}-{number}");
        match rename_new_at(from, Path::new(build), &directory, Path::new(&name)) {
            Ok(()) => return Ok(path.join(name)),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let many = format!("{} has {NAMES} directories of that name; remove some", path.display());
    Err(io::Error::other(many))
}

/// The directory of one user, made if it is not there.
fn directory_of(kept: &Path, (uid, gid): (u32, u32)) -> io::Result<(OwnedFd, PathBuf)> {
    let name = uid.to_string();
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let above = open(kept, flags, Mode::empty())?;
    match mkdirat(&above, name.as_str(), Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let resolve =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    let directory = openat2(above.as_fd(), name.as_str(), OpenHow::new().flags(flags).resolve(resolve))?;
    let path = kept.join(name);
    match fstat(&directory)?.st_uid {
        owner if owner == uid => {}
        // Made now, or by a daemon that got no further.
        0 => fchown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?,
        other => return Err(io::Error::other(format!("{} belongs to uid {other}", path.display()))),
    }
    Ok((directory, path))
}

/// How many directories are kept below `kept`, with those from before users had directories of their own.
pub fn count(kept: &Path) -> usize {
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    // A kept directory's name ends in a hyphen and a number.
    let is_users = |name: &[u8]| name.iter().all(u8::is_ascii_digit);
    entries(kept)
        .map(|entry| match is_users(entry.file_name().as_encoded_bytes()) {
            true => entries(&entry.path()).count(),
            false => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, chown, symlink};

    use super::*;

    const USER: (u32, u32) = (1_999_999_998, 1_999_999_997);

    struct Place {
        directory: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Option<Self> {
            if !nix::unistd::geteuid().is_root() {
                eprintln!("skipped: needs root to change owners");
                return None;
            }
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("kept")).unwrap();
            fs::create_dir(directory.path().join("slot")).unwrap();
            Some(Self { directory })
        }

        fn kept(&self) -> PathBuf {
            self.directory.path().join("kept")
        }

        fn keep(&self) -> io::Result<PathBuf> {
            let slot = self.directory.path().join("slot");
            let _ = fs::create_dir(slot.join("build"));
            keep(&self.kept(), fs::File::open(slot).unwrap().as_fd(), "build", "hello", USER)
        }
    }

    #[test]
    fn each_user_has_a_directory_that_is_closed_to_others_and_each_build_a_free_name() {
        let Some(place) = Place::new() else { return };
        let users = place.kept().join(USER.0.to_string());
        assert_eq!(place.keep().unwrap(), users.join("hello-0"));
        assert_eq!(place.keep().unwrap(), users.join("hello-1"));
        let metadata = fs::metadata(&users).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o700, USER.0, USER.1));
        fs::create_dir(place.kept().join("old-0")).unwrap();
        assert_eq!(count(&place.kept()), 3);
    }

    #[test]
    fn nothing_that_the_user_has_put_there_is_followed_or_replaced() {
        let Some(place) = Place::new() else { return };
        let elsewhere = place.directory.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        place.keep().unwrap();
        let users = place.kept().join(USER.0.to_string());
        symlink(&elsewhere, users.join("hello-1")).unwrap();
        fs::create_dir(users.join("hello-2")).unwrap();
        fs::write(users.join("hello-3"), "").unwrap();
        symlink(elsewhere.join("nothing"), users.join("hello-4")).unwrap();
        assert_eq!(place.keep().unwrap(), users.join("hello-5"));
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }

    #[test]
    fn what_is_in_the_way_of_a_users_directory_is_refused() {
        let Some(place) = Place::new() else { return };
        let elsewhere = place.directory.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let users = place.kept().join(USER.0.to_string());
        symlink(&elsewhere, &users).unwrap();
        place.keep().unwrap_err();
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        fs::remove_file(&users).unwrap();
        fs::create_dir(&users).unwrap();
        chown(&users, Some(1), None).unwrap();
        let error = place.keep().unwrap_err().to_string();
        assert!(error.ends_with("belongs to uid 1"), "{error}");
    }
}
