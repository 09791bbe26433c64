//! `kill(-1, …)`: everybody means the build, not what holds it.
//!
//! The agent, and Darling's own servers, have the uid that the builder has: without this a test suite that ends by signalling
//! all that it may signal would end the agent, where a local build goes on. So the call is asked about ([`super::questions`]) and
//! made from here, to each process that has that uid but the caller, as the kernel does it, and but those that were there
//! before the builder.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::questions::Answer;
use crate::pidfd;

/// How long SIGKILL goes on after processes that are made meanwhile.
const KILL_FOR: Duration = Duration::from_secs(1);

/// One process, also after another has got its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    pid: i32,
    /// Clock ticks after boot, from proc_pid_stat(5).
    started: u64,
}

/// Those that hold the build: what ran in the slot when its agent had connected.
#[derive(Debug)]
pub struct Holders {
    agent: i32,
    all: HashSet<Identity>,
}

impl Holders {
    /// All that runs now. `agent` is the agent's process.
    pub fn now(agent: Pid) -> Self {
        Self { agent: agent.as_raw(), all: identities().collect() }
    }

    /// Makes the call of this thread's, in its place.
    pub fn signal_others(&self, thread: i32, signal: i32) -> Answer {
        let Some(caller) = Caller::of(thread) else { return Answer::LetHappen };
        // The agent's own call means it: all that is left of the build. And in a pid namespace further down nobody sees a holder.
        let elsewhere = namespace_of(caller.process) != namespace_of(self.agent);
        if caller.process == self.agent || elsewhere {
            return Answer::LetHappen;
        }
        let signal = match signal {
            0 => None,
            number => match Signal::try_from(number) {
                Ok(signal) => Some(signal),
                Err(_) => return Answer::LetHappen,
            },
        };
        let deadline = Instant::now() + KILL_FOR;
        let mut signalled = HashSet::new();
        loop {
            let new = self.signal_once(&caller, signal, &mut signalled);
            // Who is killed may have made another first.
            if !new || signal != Some(Signal::SIGKILL) || Instant::now() >= deadline {
                break;
            }
        }
        if signalled.is_empty() { Answer::Fail(Errno::ESRCH) } else { Answer::Done(0) }
    }

    /// Whether there was one that had not been signalled before.
    fn signal_once(
        &self,
        caller: &Caller,
        signal: Option<Signal>,
        signalled: &mut HashSet<Identity>,
    ) -> bool {
        let mut new = false;
        for one in identities() {
            if one.pid == caller.process || self.all.contains(&one) || signalled.contains(&one) {
                continue;
            }
            let Ok(process) = pidfd::open(Pid::from_raw(one.pid)) else { continue };
            // Looked at again now that the number can't become another's.
            if started(one.pid) != Some(one.started) || uid_of(one.pid) != Some(caller.uid) {
                continue;
            }
            if signal.is_none_or(|signal| pidfd::send_signal(&process, signal).is_ok()) {
                new |= signalled.insert(one);
            }
        }
        new
    }
}

/// Whose call it is.
struct Caller {
    process: i32,
    uid: u32,
}

impl Caller {
    fn of(thread: i32) -> Option<Self> {
        let status = status(thread)?;
        Some(Self { process: field(&status, "Tgid:")?.parse().ok()?, uid: uid_in(&status)? })
    }
}

fn uid_of(pid: i32) -> Option<u32> {
    uid_in(&status(pid)?)
}

/// proc_pid_status(5). The name in it is what the process has chosen, and need not be UTF-8.
fn status(pid: i32) -> Option<String> {
    Some(String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/status")).ok()?).into_owned())
}

/// The real uid.
fn uid_in(status: &str) -> Option<u32> {
    field(status, "Uid:")?.split_ascii_whitespace().next()?.parse().ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn namespace_of(pid: i32) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

fn identities() -> impl Iterator<Item = Identity> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some(Identity { pid, started: started(pid)? }))
}

/// When a process was started, clock ticks after boot; `None` also for one that is dead and not yet reaped.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything.
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        // The 22nd, of which the third is the state.
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("100").spawn().unwrap()
    }

    fn is_dead(child: &mut Child) -> bool {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if child.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    #[test]
    fn a_process_is_known_by_its_number_and_its_start() {
        let own = std::process::id() as i32;
        let start = started(own).unwrap();
        assert!(start > 0 && identities().any(|one| one == Identity { pid: own, started: start }));
        assert_eq!(started(i32::MAX), None);
        let caller = Caller::of(own).unwrap();
        assert_eq!((caller.process, caller.uid), (own, nix::unistd::getuid().as_raw()));
    }

    #[test]
    fn a_caller_whose_name_is_no_text_is_answered_like_any_other() {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::{PermissionsExt, symlink};
        use std::os::unix::process::CommandExt;
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        let uid = 2_147_200_000 + std::process::id() % 100_000;
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = directory.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
        symlink("/bin/sleep", &program).unwrap();
        let mut agent = Command::new("sleep").arg("100").uid(uid).spawn().unwrap();
        let caller = Command::new(&program).arg("100").uid(uid).spawn().unwrap();
        let name = fs::read(format!("/proc/{}/comm", caller.id())).unwrap();
        let holders = Holders::now(Pid::from_raw(agent.id() as i32));
        let answer = holders.signal_others(caller.id() as i32, libc::SIGKILL);
        let agent_lives = agent.try_wait().unwrap().is_none();
        for mut child in [agent, caller] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(name, b"\xff\xfe\n");
        assert_eq!(answer, Answer::Fail(Errno::ESRCH), "nobody but the caller and who holds the build");
        assert!(agent_lives);
    }

    #[test]
    fn those_that_were_there_before_are_spared_and_the_caller_too() {
        // As a uid that nobody else has: everything of it is signalled.
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        use std::os::unix::process::CommandExt;
        let uid = 2_147_000_000 + std::process::id() % 100_000;
        let start = || Command::new("sleep").arg("100").uid(uid).spawn().unwrap();
        let (mut agent, mut other) = (start(), start());
        let mut stranger = sleeper();
        let holders = Holders::now(Pid::from_raw(agent.id() as i32));
        let (mut caller, mut builds) = (start(), [start(), start()]);
        let call = |signal| holders.signal_others(caller.id() as i32, signal);
        assert_eq!(call(0), Answer::Done(0), "a question");
        assert_eq!(call(1000), Answer::LetHappen, "no signal");
        assert_eq!(call(libc::SIGKILL), Answer::Done(0));
        assert!(builds.iter_mut().all(is_dead));
        assert_eq!(call(libc::SIGKILL), Answer::Fail(Errno::ESRCH), "nobody is left");
        for spared in [&mut agent, &mut other, &mut caller, &mut stranger] {
            assert!(spared.try_wait().unwrap().is_none());
        }
        assert_eq!(holders.signal_others(agent.id() as i32, libc::SIGTERM), Answer::LetHappen);
        for mut child in [agent, other, caller, stranger] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
