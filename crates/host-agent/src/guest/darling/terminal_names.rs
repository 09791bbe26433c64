//! Names in `/dev` for terminals, without which Darling's `sshd` gives nobody one.
//!
//! The fault: `ttyname` looks for a device of the terminal's number directly in `/dev`, where macOS has `ttys000` and so on. A
//! terminal of Linux is in `/dev/pts`, so it has no name, and `sshd` gives up.
//!
//! The cure: devices of these numbers under macOS's names. They answer to questions about them only: Linux opens a terminal in
//! `/dev/pts` alone. Only where one can log in.

use std::os::unix::fs::chown;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::slot::root::{Root, RootError, Step, set_mode};

/// Terminals with names; Linux gives the lowest number that is free.
const COUNT: u64 = 256;

/// `UNIX98_PTY_SLAVE_MAJOR` of linux/major.h.
const PTS: u64 = 136;

/// Puts them into the root, as `sshd` would set them for a user with this uid.
pub(super) fn make(root: &Root<'_>, uid: u32) -> Result<(), RootError> {
    for number in 0..COUNT {
        let path = root.at(format!("dev/ttys{number:03}"));
        let step = || format!("make {} in the slot", path.display());
        mknod(&path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(PTS, number)).step(step)?;
        set_mode(&path, 0o600).and_then(|()| chown(&path, Some(uid), Some(uid))).step(step)?;
    }
    Ok(())
}
