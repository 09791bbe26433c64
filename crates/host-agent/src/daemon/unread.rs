//! How much of what was written to a socket its other end has not read yet.

#![expect(unsafe_code, reason = "the nix crate has no SIOCOUTQ")]

use std::os::fd::{AsRawFd, BorrowedFd};

/// Memory that a Unix stream socket's unread data takes, bytes (SIOCOUTQ, `unix_ioctl` in Linux's `net/unix/af_unix.c`): more
/// than the data, and less only when whole pieces of up to 32 KiB were read. 0 where the kernel can't say.
pub(super) fn unread(socket: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the call writes one int into a local that outlives it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 { 0 } else { usize::try_from(bytes).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn reading_makes_it_less() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unread(ours.as_fd()), 0);
        ours.write_all(&[0; 100_000]).unwrap();
        let all = unread(ours.as_fd());
        assert!(all >= 100_000);
        theirs.read_exact(&mut [0; 50_000]).unwrap();
        let half = unread(ours.as_fd());
        assert!(half < all && half >= 50_000, "{half} of {all}");
        theirs.read_exact(&mut [0; 50_000]).unwrap();
        assert_eq!(unread(ours.as_fd()), 0);
    }
}
