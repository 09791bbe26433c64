//! Doing something with another user's rights to files.
//!
//! What root does in a directory of somebody untrusted is done to whatever that one puts there meanwhile. Done with his own
//! rights, it can't be turned against anybody else.

#![expect(
    unsafe_code,
    reason = "glibc's setgroups is for all threads, and the system call has no other wrapper"
)]

use std::io;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

/// Does `work` in a thread that has this user's (uid, gid) rights to files, and no group but that; root keeps his own. Needs
/// `CAP_SETUID` and `CAP_SETGID`. The kernel takes the capabilities that are for files from such a thread (setfsuid(2)).
pub(super) fn with_rights_of<T: Send>(
    (uid, gid): (u32, u32),
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    if uid == 0 {
        return work();
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("rights-of".into()).spawn_scoped(scope, || {
            become_user(uid, gid)?;
            work()
        })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// For the rest of the thread's life.
fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: a plain system call on this thread's credentials; of an empty list no address is looked at.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    setfsgid(Gid::from_raw(gid));
    setfsuid(Uid::from_raw(uid));
    // They say nothing of failure, but what was set before; an impossible number changes nothing.
    let now = (setfsuid(Uid::from_raw(u32::MAX)).as_raw(), setfsgid(Gid::from_raw(u32::MAX)).as_raw());
    match now == (uid, gid) {
        true => Ok(()),
        false => Err(io::Error::other(format!("failed to take the rights of uid {uid}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    use super::*;

    const USER: (u32, u32) = (1_999_999_998, 1_999_999_997);

    #[test]
    fn the_thread_can_do_what_the_user_can_and_no_other_thread_is_changed() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let his = directory.path().join("his");
        fs::create_dir(&his).unwrap();
        chown(&his, Some(USER.0), Some(USER.1)).unwrap();
        let secret = directory.path().join("secret");
        fs::write(&secret, "root's").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
        with_rights_of(USER, || {
            fs::write(his.join("made"), "x")?;
            assert_eq!(fs::read(&secret).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            assert_eq!(fs::remove_file(&secret).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            Ok(())
        })
        .unwrap();
        let made = fs::metadata(his.join("made")).unwrap();
        assert_eq!((made.uid(), made.gid()), USER);
        assert_eq!(fs::read(&secret).unwrap(), b"root's");
        assert_eq!(with_rights_of((0, 0), || fs::read(&secret)).unwrap(), b"root's");
    }
}
