//! Names in `/dev` for terminals, without which Darling's `sshd` gives nobody one.
//!
//! The fault: `ttyname` looks for a device of the terminal's number directly in `/dev`, where macOS has `ttys000` and so on. A
//! terminal of Linux is in `/dev/pts`, so it has no name, and `sshd` gives up.
//!
//! The cure: devices of these numbers under macOS's names. They are those of terminals that have been closed again, because
//! making devices takes rights that the daemon has nothing else to use for. They answer to questions about them only: nothing
//! but `/dev/pts` opens a terminal. Only where one can log in.

use std::fs::File;
use std::os::unix::fs::{OpenOptionsExt, chown};

use crate::mount::Attributes;
use crate::slot::root::{Root, RootError, Step, set_mode};

/// Terminals with names; Linux gives the lowest number that is free.
const COUNT: u32 = 128;

/// Puts them into the root, as `sshd` would set them for a user with this uid. Nobody has a terminal there yet.
pub(super) fn make(root: &Root<'_>, uid: u32) -> Result<(), RootError> {
    // Open until all are named, so that each has the next number.
    let mut terminals = Vec::new();
    for number in 0..COUNT {
        let terminal = root.at(format!("dev/pts/{number}"));
        let step = || format!("make terminal {number} in the slot");
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_NOCTTY);
        terminals.push(options.open(root.at("dev/pts/ptmx")).step(step)?);
        set_mode(&terminal, 0o600).and_then(|()| chown(&terminal, Some(uid), Some(uid))).step(step)?;
        let attributes = Attributes { no_suid: true, ..Attributes::default() };
        root.bind(&terminal, format!("dev/ttys{number:03}"), attributes)?;
    }
    Ok(())
}
