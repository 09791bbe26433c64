//! Who has a slot's uid, wherever on the machine.
//!
//! Nobody outside of a slot should ever have it. If somebody does, what the next slot of that uid makes would be his to write
//! to, so he is killed before a uid is given to a slot and when the slot has ended. Every thread is looked at, with all its
//! uids, gids and groups: each thread of a process can have others.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use thiserror::Error;

use super::kill_uid::kill_uid;
use crate::pidfd;

/// How long to go on killing what does not go away, or makes others.
const KILL_FOR: Duration = Duration::from_secs(2);

/// Of /proc/PID/status: what is looked for stands in its first half.
const STATUS_BYTES: usize = 4096;

/// Somebody has a uid and can't be made to give it up.
#[derive(Debug, Error)]
pub enum HolderError {
    /// The processes can't be listed.
    #[error("failed to look for processes that have the uid of a slot: {0}; is /proc mounted?")]
    Proc(#[from] io::Error),
    /// They can't be signalled all at once.
    #[error("failed to end what has the uid {uid}, which slots have: {error}")]
    Kill {
        /// The uid.
        uid: u32,
        /// What the kernel says.
        error: io::Error,
    },
    /// They don't die.
    #[error("failed to end process {pid}, which has a uid of slots ({} to {}): it does not die", ids.start, ids.end - 1)]
    Immortal {
        /// One of them.
        pid: i32,
        /// The uids that were looked for.
        ids: Range<u32>,
    },
}

/// As [`end_all`] of one, and of processes as well that are gone whenever somebody looks for them; how many were
/// seen.
pub(super) fn end_all_of(uid: u32) -> Result<usize, HolderError> {
    let ids = uid..uid + 1;
    let deadline = Instant::now() + KILL_FOR;
    let mut ended = 0;
    loop {
        // Whether anybody was met the kernel does not tell (it counts whom it may not kill).
        let killed = kill_uid(uid).map_err(|error| HolderError::Kill { uid, error })?;
        // Who is not dead yet, and who has the uid in another way.
        let found = end_all(&ids)?;
        ended += found;
        if killed && found == 0 {
            return Ok(ended);
        }
        if Instant::now() >= deadline {
            let error = io::Error::other("there are always more of them");
            return Err(HolderError::Kill { uid, error });
        }
    }
}

/// Kills every process of which a thread has one of these as a uid or gid, and waits until it is dead; how many there were. Sees
/// what the pid namespace of this process sees.
pub(super) fn end_all(ids: &Range<u32>) -> Result<usize, HolderError> {
    let deadline = Instant::now() + KILL_FOR;
    let mut ended = 0;
    loop {
        let holders = holders(Path::new("/proc"), ids)?;
        let mut killed: Vec<(i32, OwnedFd)> = Vec::new();
        for pid in holders {
            let Ok(process) = pidfd::open(Pid::from_raw(pid)) else { continue };
            // Looked at again now that the number can't become another's.
            if is_holder(Path::new("/proc"), pid, ids) {
                let _ = pidfd::send_signal(&process, Signal::SIGKILL);
                killed.push((pid, process));
            }
        }
        let Some((pid, _)) = killed.first() else { return Ok(ended) };
        if Instant::now() >= deadline {
            return Err(HolderError::Immortal { pid: *pid, ids: ids.clone() });
        }
        ended += killed.len();
        for (_, process) in &killed {
            wait(process, deadline);
        }
    }
}

fn wait(process: &OwnedFd, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
}

/// This process is none, nor are its threads, of which it has more than most: they are not looked at.
fn holders(proc: &Path, ids: &Range<u32>) -> io::Result<Vec<i32>> {
    let us = std::process::id() as i32;
    let pids = fs::read_dir(proc)?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter(|pid| *pid != us && is_holder(proc, *pid, ids)).collect())
}

/// A process that is gone meanwhile has nothing any more.
fn is_holder(proc: &Path, pid: i32, ids: &Range<u32>) -> bool {
    let process = proc.join(pid.to_string());
    match Credentials::read(&process.join("status")) {
        Some(leader) if leader.any_of(ids) => true,
        Some(leader) if leader.threads > 1 => {
            let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
            threads.into_iter().any(|thread| {
                Credentials::read(&thread.path().join("status")).is_some_and(|thread| thread.any_of(ids))
            })
        }
        _ => false,
    }
}

/// What proc_pid_status(5) says of a thread.
#[derive(Debug, PartialEq, Eq)]
struct Credentials {
    /// Real, effective, saved, and of the file system: uids, then gids; then further groups.
    ids: Vec<u32>,
    /// Of its process.
    threads: u32,
}

impl Credentials {
    /// `None` also for one that is dead and not yet reaped: it can do nothing any more.
    fn read(status: &Path) -> Option<Self> {
        let mut bytes = [0; STATUS_BYTES];
        let length = File::open(status).ok()?.read(&mut bytes).ok()?;
        Self::parse(&bytes[..length])
    }

    fn parse(status: &[u8]) -> Option<Self> {
        let mut credentials = Self { ids: Vec::new(), threads: 1 };
        for line in status.split(|byte| *byte == b'\n') {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, values) = (&line[..colon], line[colon + 1..].split(|byte| byte.is_ascii_whitespace()));
            let mut numbers = values.filter_map(|value| std::str::from_utf8(value).ok()?.parse().ok());
            match name {
                b"State" if line[colon + 1..].trim_ascii_start().starts_with(b"Z") => return None,
                b"Uid" | b"Gid" | b"Groups" => credentials.ids.extend(numbers),
                b"Threads" => credentials.threads = numbers.next().unwrap_or(1),
                _ => {}
            }
        }
        Some(credentials)
    }

    fn any_of(&self, ids: &Range<u32>) -> bool {
        self.ids.iter().any(|id| ids.contains(id))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command};

    use super::*;

    const STATUS: &[u8] =
        b"Name:\tUid: 7\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t9\nUid:\t1000\t1001\t1002\t1003\n\
          Gid:\t100\t101\t102\t103\nFDSize:\t64\nGroups:\t24 25 \nThreads:\t3\n";

    #[test]
    fn any_uid_gid_or_group_counts_and_nothing_else() {
        let status = Credentials::parse(STATUS).unwrap();
        assert_eq!(status.ids, [1000, 1001, 1002, 1003, 100, 101, 102, 103, 24, 25]);
        assert_eq!(status.threads, 3);
        for id in [1000, 1001, 1002, 1003, 100, 103, 25] {
            assert!(status.any_of(&(id..id + 1)), "{id}");
        }
        assert!(!status.any_of(&(7..10)) && !status.any_of(&(1004..2000)));
        assert_eq!(Credentials::parse(b"State:\tZ (zombie)\nUid:\t5\t5\t5\t5\n"), None);
    }

    #[test]
    fn a_thread_with_other_credentials_than_its_process_is_found() {
        let proc = tempfile::tempdir().unwrap();
        let task = proc.path().join("40/task");
        for (thread, uid) in [(40, 1), (41, 77)] {
            let directory = task.join(thread.to_string());
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("status"), format!("Uid:\t1\t{uid}\t1\t1\nThreads:\t2\n")).unwrap();
        }
        fs::copy(task.join("40/status"), proc.path().join("40/status")).unwrap();
        assert_eq!(holders(proc.path(), &(77..78)).unwrap(), [40]);
        assert!(holders(proc.path(), &(78..79)).unwrap().is_empty());
    }

    fn sleeper(uid: u32) -> Child {
        Command::new("sleep").arg("100").uid(uid).gid(uid).spawn().unwrap()
    }

    #[test]
    fn all_that_have_the_uid_are_dead_afterwards_and_no_other() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        let uid = 2_146_000_000 + std::process::id() % 100_000 * 4;
        let (mut holder, mut other) = (sleeper(uid), sleeper(uid + 1));
        // Only as its saved uid: all others are root's. It never comes to its exec, which would make that one the effective one.
        let mut saved = Command::new("sleep");
        #[expect(unsafe_code, reason = "a uid that std does not set")]
        // SAFETY: plain system calls between fork and exec.
        unsafe {
            saved.pre_exec(move || {
                let root = nix::unistd::Uid::from_raw(0);
                nix::unistd::setresuid(root, root, nix::unistd::Uid::from_raw(uid))?;
                loop {
                    nix::unistd::pause();
                }
            });
        }
        let saved = std::thread::spawn(move || saved.spawn());
        let deadline = Instant::now() + Duration::from_secs(10);
        while holders(Path::new("/proc"), &(uid..uid + 1)).unwrap().len() < 2 {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(end_all(&(uid..uid + 1)).unwrap(), 2);
        assert_eq!(holder.wait().unwrap().signal(), Some(libc::SIGKILL));
        saved.join().unwrap().unwrap().wait().unwrap();
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
