//! The signal repair: a signal that kills a process kills that process alone.
//!
//! The fault: where a program has no handler of its own, Darling's handler emulates the default action by resetting
//! the signal and calling `kill(0, signal)`. It means its own process; 0 is the whole process group, so
//! `sleep 30 & kill $!` ends the script, and a configure test that crashes ends configure.
//!
//! The cure, from outside: `kill(0, …)` is asked about ([`crate::slot::questions`]). The emulation gives itself away: Darling's
//! handlers run with all standard signals blocked, and it has just reset the signal that it sends. Then the signal goes to
//! the caller alone; any other call happens as it was made. A signal is never sent to anything but the caller.

use std::fs;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::pidfd;
use crate::slot::questions::{Asked, Listener};

/// Signals 1 to 28 but KILL and STOP, which can't be blocked: the mask of Darling's handlers. It blocks 29 to 31 as well and
/// then unblocks what its server needs, so these tell nothing.
const HANDLERS_BLOCK: u64 = 0x0fff_ffff & !bit(Signal::SIGKILL as i32) & !bit(Signal::SIGSTOP as i32);

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Sends `signal` to the caller alone, if that is what it meant.
pub(super) fn signal_caller(listener: &Listener, asked: Asked, signal: i32) -> Option<()> {
    // The name in it is what the program has chosen, and need not be UTF-8.
    let status = fs::read(format!("/proc/{}/status", asked.thread)).ok()?;
    let status = Status::parse(&String::from_utf8_lossy(&status))?;
    if !status.emulates_default_action(signal) {
        return None;
    }
    let signal = Signal::try_from(signal).ok()?;
    let caller = pidfd::open(Pid::from_raw(status.process)).ok()?;
    // Else the number may have become another's by the time that it was looked up.
    if !listener.still_waits(asked) {
        return None;
    }
    pidfd::send_signal(caller, signal).ok()
}

/// What /proc/PID/status (proc_pid_status(5)) says of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Status {
    process: i32,
    blocked: u64,
    ignored: u64,
    caught: u64,
}

impl Status {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let mask = |name| u64::from_str_radix(field(name)?, 16).ok();
        Some(Self {
            process: field("Tgid:")?.parse().ok()?,
            blocked: mask("SigBlk:")?,
            ignored: mask("SigIgn:")?,
            caught: mask("SigCgt:")?,
        })
    }

    fn emulates_default_action(&self, signal: i32) -> bool {
        (1..=31).contains(&signal)
            && self.blocked & HANDLERS_BLOCK == HANDLERS_BLOCK
            && (self.ignored | self.caught) & bit(signal) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(blocked: &str, caught: &str) -> Status {
        let text = format!(
            "Name:\tmldr\nTgid:\t42\nPid:\t43\nSigBlk:\t{blocked}\nSigIgn:\t0000000000001000\nSigCgt:\t{caught}\n"
        );
        Status::parse(&text).unwrap()
    }

    #[test]
    fn a_handler_that_has_reset_its_signal_means_itself() {
        // As seen: all blocked but 30, TERM (15) caught no more.
        let emulation = status("000000005ffbfeff", "00000007effbaeff");
        assert_eq!(emulation.process, 42);
        assert!(emulation.emulates_default_action(Signal::SIGTERM as i32));
        // The stop signals can't be caught at all.
        assert!(emulation.emulates_default_action(Signal::SIGSTOP as i32));
    }

    #[test]
    fn a_program_that_signals_its_group_does_not_mean_itself() {
        for (blocked, caught) in [
            // Nothing or little blocked.
            ("0000000000000000", "00000007effbaeff"),
            ("0000000000004002", "00000007effbaeff"),
            // Everything blocked, by the program itself: the signal is still caught by Darling's handler.
            ("000000005ffbfeff", "00000007effbeeff"),
        ] {
            assert!(!status(blocked, caught).emulates_default_action(Signal::SIGTERM as i32));
        }
        // A question whether the group exists, and numbers that are no signals.
        let emulation = status("000000005ffbfeff", "0000000000000000");
        for signal in [0, -1, 32, 64, i32::MAX] {
            assert!(!emulation.emulates_default_action(signal));
        }
        // PIPE (13) is ignored.
        assert!(!emulation.emulates_default_action(Signal::SIGPIPE as i32));
    }

    #[test]
    fn a_status_that_lacks_something_is_none() {
        assert_eq!(Status::parse("Tgid:\t1\nSigBlk:\tzz\n"), None);
        assert_eq!(Status::parse(""), None);
    }
}
