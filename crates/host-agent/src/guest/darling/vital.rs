//! The processes without which a prefix is dead: Darling's server, its launchd, the agent.
//!
//! When one dies the others follow or hang, so the topmost one that is dead is the reason.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::pidfd;

/// Time for a death to spread upwards before the topmost dead one is named.
const GRACE: Duration = Duration::from_millis(30);

/// One of them.
#[derive(Debug)]
struct Vital {
    name: &'static str,
    pid: Pid,
    process: OwnedFd,
}

/// All of them, topmost first.
#[derive(Debug, Default)]
pub(super) struct VitalProcesses {
    all: Vec<Vital>,
}

impl VitalProcesses {
    /// Of the prefix whose server this is.
    pub(super) fn of_server(server: Pid) -> io::Result<Self> {
        let mut vital = Self::default();
        vital.add("Darling's server", server)?;
        // The server's first child is its launchd, pid 1 inside.
        let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children"))?;
        if let Some(launchd) = children.split_ascii_whitespace().next().and_then(|pid| pid.parse().ok()) {
            vital.add("Darling's launchd", Pid::from_raw(launchd))?;
        }
        Ok(vital)
    }

    /// Adds one that is below all others.
    pub(super) fn add(&mut self, name: &'static str, pid: Pid) -> io::Result<()> {
        let process = pidfd::open(pid)?;
        self.all.push(Vital { name, pid, process });
        Ok(())
    }

    /// Readable when one has ended.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all.iter().map(|vital| vital.process.as_fd())
    }

    /// The reason, once, if one has ended.
    pub(super) fn ended(&mut self) -> Option<String> {
        self.topmost_dead()?;
        std::thread::sleep(GRACE);
        let dead = self.topmost_dead()?;
        let reason = format!("{} (process {} in the slot) has died", dead.name, dead.pid);
        self.all.clear();
        Some(reason)
    }

    fn topmost_dead(&self) -> Option<&Vital> {
        self.all.iter().find(|vital| {
            let mut fds = [PollFd::new(vital.process.as_fd(), PollFlags::POLLIN)];
            matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper() -> (Child, Pid) {
        let child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        (child, pid)
    }

    #[test]
    fn the_topmost_dead_one_is_the_reason_and_told_once() {
        let mut vital = VitalProcesses::default();
        let (mut one, mut two) = (sleeper(), sleeper());
        vital.add("the first", one.1).unwrap();
        vital.add("the second", two.1).unwrap();
        assert_eq!(vital.ended(), None);
        two.0.kill().unwrap();
        one.0.kill().unwrap();
        let told = std::iter::repeat_with(|| vital.ended()).find_map(|told| told);
        assert_eq!(told, Some(format!("the first (process {} in the slot) has died", one.1)));
        assert_eq!(vital.ended(), None);
        one.0.wait().unwrap();
        two.0.wait().unwrap();
    }
}
