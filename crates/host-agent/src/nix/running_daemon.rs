//! The nix-daemon of this system, if one runs.
//!
//! Its program is asked for its version, often by root, and its environment says which files are read: so a process that
//! merely calls itself so must not be taken for it, least of all a builder. It counts if it is root's with all its uids, or
//! this user's, and has the root and the pid namespace that this process has. What is read of others is bounded: a process
//! chooses where its command line lies, and how long it is. And it is read through a descriptor of the process: its number may
//! be another's a moment later.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Most that is read of a command line, bytes: the program and its first argument.
const COMMAND_BYTES: u64 = 4096;

/// Most that is read of a status, bytes: the uids stand in its beginning.
const STATUS_BYTES: u64 = 4096;

/// Most that is read of an environment, bytes: what the kernel gives a new process at most, with its arguments.
const ENVIRONMENT_BYTES: u64 = 6 << 20;

/// A nix-daemon that runs.
#[derive(Debug)]
pub struct NixDaemon {
    /// Process id.
    pub pid: u32,
    /// Its directory in /proc. Nothing is in there any more once the process has ended.
    directory: OwnedFd,
}

/// All of them, the one with the lowest pid first: the others are its workers.
pub fn find() -> Vec<NixDaemon> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut daemons: Vec<NixDaemon> = entries
        .filter_map(|entry| NixDaemon::open(entry.file_name().to_str()?.parse().ok()?).ok())
        .filter(|process| process.is_daemon() && process.is_trusted() && process.is_of_this_system())
        .collect();
    daemons.sort_by_key(|daemon| daemon.pid);
    daemons
}

impl NixDaemon {
    fn open(pid: u32) -> io::Result<Self> {
        let directory = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(format!("/proc/{pid}"))?;
        Ok(Self { pid, directory: directory.into() })
    }

    /// A path that leads to its executable, also after an upgrade has deleted that, for as long as this value lives.
    pub fn executable(&self) -> PathBuf {
        self.path().join("exe")
    }

    /// Its environment, each variable ended by a NUL. Only root may read it, and whose process it is.
    pub fn environment(&self) -> io::Result<Vec<u8>> {
        self.read("environ", ENVIRONMENT_BYTES)
    }

    /// By its command line, since `nix-daemon` is a link to `nix`.
    fn is_daemon(&self) -> bool {
        self.read("cmdline", COMMAND_BYTES).is_ok_and(|command| is_daemon(&command))
    }

    fn is_trusted(&self) -> bool {
        let own = nix::unistd::geteuid().as_raw();
        self.read("status", STATUS_BYTES).is_ok_and(|status| {
            let uids = uids(&status);
            uids.len() == 4 && (uids.iter().all(|uid| *uid == 0) || uids.iter().all(|uid| *uid == own))
        })
    }

    /// Whether it sees the processes and the root that we see, and is not in some container. Others' processes are not shown to
    /// everybody; then it is taken for one of ours.
    fn is_of_this_system(&self) -> bool {
        let namespace = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
        let root =
            |process: &Path| fs::metadata(process.join("root/.")).ok().map(|root| (root.dev(), root.ino()));
        let (process, own) = (self.path(), Path::new("/proc/self"));
        namespace(&process).is_none_or(|theirs| Some(theirs) == namespace(own))
            && root(&process).is_none_or(|theirs| Some(theirs) == root(own))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd()))
    }

    fn read(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path().join(name))?.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

fn is_daemon(command: &[u8]) -> bool {
    let mut words = command.split(|byte| *byte == 0);
    let program = words.next().and_then(|path| path.rsplit(|byte| *byte == b'/').next());
    match program {
        Some(b"nix-daemon") => true,
        Some(b"nix") => words.next() == Some(b"daemon"),
        _ => false,
    }
}

/// Real, effective, saved, and that for files, from proc_pid_status(5).
fn uids(status: &[u8]) -> Vec<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"));
    let words = line.unwrap_or_default().split(u8::is_ascii_whitespace);
    words.filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    use super::*;

    #[test]
    fn daemons_are_known_by_their_command_lines() {
        for line in
            [&b"nix-daemon\0"[..], b"/nix/store/x-nix/bin/nix-daemon\0--daemon\0", b"/usr/bin/nix\0daemon\0"]
        {
            assert!(is_daemon(line));
        }
        for line in [&b""[..], b"nix\0build\0", b"vim\0nix-daemon\0", b"/usr/bin/nix-daemon-watch\0"] {
            assert!(!is_daemon(line));
        }
    }

    #[test]
    fn uids_are_the_four_of_the_status() {
        assert_eq!(uids(b"Name:\tUid: 7\nState:\tS\nUid:\t1\t2\t3\t4\nGid:\t5\t5\t5\t5\n"), [1, 2, 3, 4]);
        assert_eq!(uids(b"Name:\tx\n"), Vec::<u32>::new());
    }

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn called_nix_daemon(change: impl FnOnce(&mut Command)) -> Killed {
        let mut command = Command::new("sleep");
        command.arg0("nix-daemon").arg("100");
        change(&mut command);
        Killed(command.spawn().unwrap())
    }

    #[test]
    fn a_process_of_another_user_is_no_daemon_whatever_it_calls_itself() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        const OTHER: u32 = 1_234_569;
        let own = called_nix_daemon(|_| {});
        let others = called_nix_daemon(|command| {
            command.uid(OTHER).gid(OTHER);
        });
        // As a set-uid program would have it: effectively root, for somebody else.
        let halfs = called_nix_daemon(|command| {
            #[expect(unsafe_code, reason = "uids that std does not set")]
            // SAFETY: a plain system call between fork and exec.
            unsafe {
                command.pre_exec(|| {
                    let (other, root) = (nix::unistd::Uid::from_raw(OTHER), nix::unistd::Uid::from_raw(0));
                    Ok(nix::unistd::setresuid(other, root, root)?)
                });
            }
        });
        let found: Vec<u32> = find().iter().map(|daemon| daemon.pid).collect();
        assert!(found.contains(&own.0.id()), "{found:?}");
        assert!(!found.contains(&others.0.id()) && !found.contains(&halfs.0.id()), "{found:?}");
    }

    #[test]
    fn a_daemon_that_has_ended_is_not_mistaken_for_another_process() {
        let ended = called_nix_daemon(|_| {});
        let daemon = NixDaemon::open(ended.0.id()).unwrap();
        assert!(daemon.executable().metadata().is_ok());
        drop(ended);
        assert!(daemon.executable().metadata().is_err() && daemon.environment().is_err());
    }
}
