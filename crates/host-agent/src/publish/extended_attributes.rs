//! Removing extended attributes, which ACLs are as well.
#![expect(unsafe_code, reason = "the nix crate has no calls for extended attributes")]

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Left alone: set by the system, not by builders (the default of Nix's `ignored-acls` since 2.9; 2.8 has the first two).
const IGNORED: [&CStr; 3] = [c"security.csm", c"security.selinux", c"system.nfs4_acl"];

/// The kernel's limit on a list of names (`XATTR_LIST_MAX`), bytes.
const LIST_MAX: usize = 65536;

/// Removes all attributes of an open file or directory but the ignored ones.
pub(super) fn remove_all(entry: BorrowedFd<'_>) -> nix::Result<()> {
    let fd = entry.as_raw_fd();
    remove_listed(
        // SAFETY: `list` and its length describe a buffer that the kernel may write to.
        |list| unsafe { libc::flistxattr(fd, list.as_mut_ptr().cast::<c_char>(), list.len()) },
        // SAFETY: `name` ends in NUL, and the kernel only reads it.
        |name| unsafe { libc::fremovexattr(fd, name.as_ptr()) },
    )
}

/// The same for an entry that can't be opened: a symlink itself. Needs `/proc`: there is no call that takes a
/// descriptor before Linux 6.13.
pub(super) fn remove_all_of_entry(parent: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    remove_listed(
        // SAFETY: `path` ends in NUL; `list` and its length describe a buffer that the kernel may write to.
        |list| unsafe { libc::llistxattr(path.as_ptr(), list.as_mut_ptr().cast::<c_char>(), list.len()) },
        // SAFETY: both end in NUL, and the kernel only reads them.
        |name| unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) },
    )
}

fn remove_listed(
    list: impl Fn(&mut [u8]) -> isize,
    remove: impl Fn(&CStr) -> libc::c_int,
) -> nix::Result<()> {
    let mut small = [0; 256];
    let mut large = Vec::new();
    let names = match Errno::result(list(&mut small)) {
        Ok(length) => &small[..usize::try_from(length).unwrap_or(0)],
        Err(Errno::ERANGE) => {
            large.resize(LIST_MAX, 0);
            let length = Errno::result(list(&mut large))?;
            &large[..usize::try_from(length).unwrap_or(0)]
        }
        Err(Errno::ENOTSUP | Errno::ENODATA | Errno::ENOSYS) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    for name in names.split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::EIO)?;
        if !IGNORED.contains(&name) {
            Errno::result(remove(name))?;
        }
    }
    Ok(())
}
