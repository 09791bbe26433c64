//! What keeps this program from the builder, which has the same uid.
//!
//! On Linux nobody of that uid may look into its memory or trace it. And where Landlock can do that (Linux 6.12) the builder, with all that
//! it starts, may signal and trace nothing but itself: then even `kill -9` does not reach this program. Darling's server reads the
//! memory of whatever runs inside, so there it is Landlock alone.

#![expect(unsafe_code, reason = "system calls by number")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::linux::{self, number};

const SET_DUMPABLE: u64 = 4;
const SET_NO_NEW_PRIVS: u64 = 38;

/// struct landlock_ruleset_attr of linux/landlock.h, as of its sixth version.
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `LANDLOCK_SCOPE_SIGNAL`. Whoever is in a domain can't trace what is outside either.
const SCOPE_SIGNAL: u64 = 1 << 1;

/// To be put up in the child that becomes the builder.
#[derive(Debug)]
pub struct Shield {
    /// A Landlock ruleset, where there is such a thing.
    ruleset: Option<OwnedFd>,
    on_linux: bool,
}

/// Closes this program's memory to its own uid.
pub fn close_memory() {
    if cfg!(target_os = "linux") {
        // SAFETY: changes an attribute of this process.
        let _ = unsafe { linux::call(number::PRCTL, &[SET_DUMPABLE, 0]) };
    }
}

impl Shield {
    /// Prepares it, before the fork.
    pub fn new() -> Self {
        let on_linux = linux::is_below();
        Self { ruleset: if on_linux { ruleset() } else { None }, on_linux }
    }

    /// Puts it up: from here on this process and its children are the builder's.
    ///
    /// # Safety
    /// In a forked child only, before its exec.
    pub unsafe fn put_up(&self) {
        if !self.on_linux {
            return;
        }
        // SAFETY: both change attributes of this process only. Where one is refused there is no shield, and no other harm.
        unsafe {
            let _ = linux::call(number::PRCTL, &[SET_NO_NEW_PRIVS, 1]);
            if let Some(ruleset) = &self.ruleset {
                let _ = linux::call(number::LANDLOCK_RESTRICT_SELF, &[ruleset.as_raw_fd() as u64]);
            }
        }
    }
}

fn ruleset() -> Option<OwnedFd> {
    let attributes = RulesetAttributes { handled_access_fs: 0, handled_access_net: 0, scoped: SCOPE_SIGNAL };
    let (address, size) = (&raw const attributes as u64, size_of::<RulesetAttributes>() as u64);
    // SAFETY: the kernel reads the structure, of that size, which outlives the call.
    let fd = unsafe { linux::call(number::LANDLOCK_CREATE_RULESET, &[address, size, 0]) }.ok()?;
    // SAFETY: the kernel has just made this descriptor for us, closed at exec; nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
