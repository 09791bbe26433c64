//! Sharing a file's data instead of copying it.
#![expect(unsafe_code, reason = "the nix crate has no FICLONE")]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Makes `target`, an empty file open for writing, share all of the data of `source`. Fails with `EOPNOTSUPP`,
/// `EXDEV`, `EINVAL` or `ENOTTY` where that is not possible (ioctl_ficlone(2)).
pub(super) fn share_data(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: both are open descriptors for the duration of the call, which touches no memory of ours.
    let result = unsafe { libc::ioctl(target.as_raw_fd(), libc::FICLONE, source.as_raw_fd()) };
    Errno::result(result).map(drop)
}
