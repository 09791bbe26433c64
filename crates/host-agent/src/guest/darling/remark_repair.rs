//! The remark repair: what a command prints over ssh is what it has printed.
//!
//! The fault: asked for a process's open descriptors, Darling's system library writes a line to descriptor 1. OpenSSH asks on
//! its way to every command, when descriptor 1 is the command's output already: each begins with that line twice, and
//! sftp, which takes it for the protocol, ends.
//!
//! The cure, from outside: writes of that length to descriptor 1 are asked about ([`crate::slot::questions`]), and those of that text
//! by an `sshd` succeed without being made. What any other program writes is not altered.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use crate::slot::questions::{Asked, Listener};
use crate::ssh::login::SSHD;

/// What is not written. The number is that of the question for open descriptors (`PROC_PIDLISTFDS`).
const REMARK: &[u8] = b"sys_proc_info(): Unsupported pidinfo flavor: 1\n";

/// Its length, bytes.
pub(super) const LENGTH: u32 = REMARK.len() as u32;

/// What is read of a command line, bytes: more than the path of an `sshd`.
const COMMAND_BYTES: u64 = 256;

/// Whether the caller is an `sshd` about to write the remark, and still waits.
pub(super) fn is_remark(listener: &Listener, asked: Asked, address: u64) -> bool {
    let thread = format!("/proc/{}", asked.thread);
    let mut text = [0; REMARK.len()];
    let read =
        File::open(format!("{thread}/mem")).and_then(|memory| memory.read_exact_at(&mut text, address));
    let is_text = read.is_ok() && text == REMARK;
    is_text && command_line(&thread).is_ok_and(|line| is_sshd(&line)) && listener.still_waits(asked)
}

/// The beginning of a thread's command line: it is as long as its process likes.
fn command_line(thread: &str) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    File::open(format!("{thread}/cmdline"))?.take(COMMAND_BYTES).read_to_end(&mut line)?;
    Ok(line)
}

/// Whether this command line is of an `sshd`: as it was started, or with the title that it gives itself.
fn is_sshd(command_line: &[u8]) -> bool {
    command_line.starts_with(b"sshd: ")
        || command_line.split(|byte| *byte == 0).next() == Some(SSHD.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sshd_is_known_from_its_start_to_its_end() {
        for line in [&b"/usr/sbin/sshd\0-i\0"[..], b"sshd: [accepted]\0\0", b"sshd: builder [priv]\0g\0"] {
            assert!(is_sshd(line));
        }
        for line in [&b""[..], b"bash\0-c\0/usr/sbin/sshd\0", b"sshd-keygen\0", b"/usr/sbin/sshdx\0"] {
            assert!(!is_sshd(line));
        }
    }
}
