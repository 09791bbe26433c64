//! The session keyring: whoever starts the daemon may have secrets in his, and a process can read what is in its own.

#![expect(unsafe_code, reason = "keyctl has no safe wrapper")]

use std::io;

/// Gives this process, and all that it starts, a new and empty session keyring (keyctl(2)). A kernel without keys has none to
/// give up.
pub(super) fn join_new() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    let no_name: *const libc::c_char = std::ptr::null();
    // SAFETY: a plain system call; a null name is what asks for a nameless keyring.
    match unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, no_name) } {
        0.. => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            error => Err(error),
        },
    }
}
