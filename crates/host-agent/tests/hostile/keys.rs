//! Keys of whoever started the daemon.

use std::os::unix::process::CommandExt;

use crate::attack::{Attacker, skipped};
use crate::harness::Daemon;

const DESCRIPTION: &str = "root:disk-password";
const SECRET: &str = "hunter2-of-root";

/// As a login of root's does (pam_keyinit(8)), whose programs then put secrets into the session's keyring.
#[allow(unsafe_code)]
fn join_session_with_a_secret() -> std::io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    const SESSION: libc::c_long = -3;
    let description = std::ffi::CString::new(DESCRIPTION)?;
    // SAFETY: constants, and strings that outlive the calls.
    unsafe {
        let session = libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, c"_ses_root_login".as_ptr());
        for kind in [c"user", c"logon"] {
            let description = if kind == c"user" { description.as_ptr() } else { c"root:key".as_ptr() };
            let key = libc::syscall(
                libc::SYS_add_key,
                kind.as_ptr(),
                description,
                SECRET.as_ptr(),
                SECRET.len(),
                SESSION,
            );
            if session < 0 || key < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

#[test]
#[allow(unsafe_code)]
fn a_builder_neither_reads_nor_sees_the_keys_of_whoever_started_the_daemon() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start_as("", None, |command| {
        // SAFETY: system calls, and a small allocation, between fork and exec.
        unsafe {
            command.pre_exec(join_session_with_a_secret);
        }
    });
    let attacker = Attacker::new(&daemon);
    let told = attacker.run(&format!("$attacker keys {DESCRIPTION}; echo > $out"));
    assert!(told.is_built(), "{:?}", told.done.report);
    for hidden in [DESCRIPTION, SECRET, "root:key", "_ses_root_login"] {
        assert!(!told.log().contains(hidden), "{hidden}: {}", told.log());
    }
    told.none_was_done_but(&[], 18);
    assert!(told.attempts.iter().all(|one| one.came == "ENOSYS" || one.what == "join"), "{}", told.log());
    assert_eq!(told.came_of("join"), "exit-1");
}
