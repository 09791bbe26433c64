//! A slot's own procfs, as the daemon reads it.
//!
//! `slot-init` mounts it and passes a descriptor of it when the slot has booted. It shows the processes of the slot's pid
//! namespace, and of those below, and no other of the machine. What is read is resolved from that descriptor, without links and
//! without entering another mount, so that nothing that is mounted or linked in the slot leads anywhere else.
//!
//! What it says is the builder's to write, all the same: a process chooses its name and where its command line lies
//! (`PR_SET_MM_MAP`), gigabytes of it. So everything is read up to so many bytes. And reading may take as long as the builder
//! likes: a command line is read from the memory of its process, whose lock that can hold for as long as it changes its mappings.
//! (Pages of a file are not read for it since Linux 4.17, so that no file system that doesn't answer can hold it up: tried with
//! FUSE and 6.18.) So it is read by a thread that nobody waits for ([`super::stuck_report`]).

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::dir::Dir;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

/// What the link of a timerfd in `/proc/PID/fd` says.
const TIMER: &str = "anon_inode:[timerfd]";

/// Most descriptors of a process that are looked at.
const DESCRIPTORS_MAX: usize = 1024;

/// Most bytes of what is said of a timer.
const TIMER_BYTES: usize = 512;

/// A slot's procfs.
#[derive(Debug, Clone)]
pub struct OwnProc(Arc<OwnedFd>);

impl OwnProc {
    /// A directory that was passed by a slot, if it is a procfs.
    pub fn new(directory: OwnedFd) -> io::Result<Self> {
        if fstatfs(&directory)?.filesystem_type() != PROC_SUPER_MAGIC {
            return Err(io::Error::other("it is no procfs"));
        }
        Ok(Self(Arc::new(directory)))
    }

    /// Processes, at most so many, those with the lowest numbers first. The first is `slot-init`.
    pub fn processes(&self, most: usize) -> io::Result<Vec<i32>> {
        let mut entries = Dir::from_fd(self.open(".", OFlag::O_DIRECTORY)?)?;
        Ok(entries.iter().filter_map(|entry| number(entry.ok()?.file_name())).take(most).collect())
    }

    /// The beginning of one of a process's files, at most so many bytes.
    pub fn read(&self, process: i32, name: &str, most: usize) -> io::Result<Vec<u8>> {
        let file = self.open(&format!("{process}/{name}"), OFlag::empty())?;
        let mut bytes = Vec::new();
        File::from(file).take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// What is said of the timers that a process has (proc_pid_fdinfo(5)). Of no other descriptor: of some there is much to say.
    pub fn timers(&self, process: i32) -> io::Result<Vec<Vec<u8>>> {
        let mut descriptors = Dir::from_fd(self.open(&format!("{process}/fd"), OFlag::O_DIRECTORY)?)?;
        let names: Vec<i32> = descriptors
            .iter()
            .filter_map(|entry| number(entry.ok()?.file_name()))
            .take(DESCRIPTORS_MAX)
            .collect();
        let is_timer = |name: &i32| {
            readlinkat(&descriptors, name.to_string().as_str()).is_ok_and(|target| target == TIMER)
        };
        let timers = names.into_iter().filter(is_timer);
        Ok(timers
            .filter_map(|name| self.read(process, &format!("fdinfo/{name}"), TIMER_BYTES).ok())
            .collect())
    }

    /// The root of `slot-init`, which is the slot's.
    pub fn root(&self) -> io::Result<OwnedFd> {
        // The only link that is followed. It is the kernel's, and `slot-init` changes its root before anything else runs.
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(openat(self.0.as_fd(), "1/root", flags, Mode::empty())?)
    }

    fn open(&self, path: &str, flags: OFlag) -> io::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_XDEV
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let flags = flags | OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        Ok(openat2(self.0.as_fd(), path, OpenHow::new().flags(flags).resolve(resolve))?)
    }
}

fn number(name: &CStr) -> Option<i32> {
    name.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// The procfs of this process's own namespace: like a slot's, with other processes.
    fn proc() -> OwnProc {
        OwnProc::new(File::open("/proc").unwrap().into()).unwrap()
    }

    #[test]
    fn only_a_procfs_is_taken_for_one() {
        let directory = tempfile::tempdir().unwrap();
        let error = OwnProc::new(File::open(directory.path()).unwrap().into()).unwrap_err();
        assert_eq!(error.to_string(), "it is no procfs");
    }

    #[test]
    fn no_more_is_read_than_asked_for() {
        let own = std::process::id() as i32;
        assert_eq!(proc().read(own, "status", 4).unwrap(), b"Name");
        assert!(proc().read(own, "status", 4096).unwrap().len() > 100);
        assert_eq!(proc().processes(1).unwrap().len(), 1);
        assert!(proc().processes(usize::MAX).unwrap().contains(&own));
    }

    #[test]
    fn links_and_parents_are_not_followed() {
        let own = std::process::id() as i32;
        for name in ["cwd/Cargo.toml", "root/etc/passwd", "exe", "../../etc/passwd", "fd/0"] {
            assert!(proc().read(own, name, 1).is_err(), "{name}");
        }
        assert!(proc().open("self/status", OFlag::empty()).is_err());
    }

    #[test]
    fn what_is_mounted_over_a_file_is_not_read() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        // In a mount namespace of a thread's own, where a status is covered by another file.
        let read = std::thread::spawn(|| {
            use nix::mount::{MsFlags, mount};
            use nix::sched::{CloneFlags, unshare};
            let none: Option<&str> = None;
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            let other = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(&other, "another's").unwrap();
            let own = std::process::id() as i32;
            let status = format!("/proc/{own}/status");
            mount(Some(other.path()), status.as_str(), none, MsFlags::MS_BIND, none).unwrap();
            assert_eq!(std::fs::read(&status).unwrap(), b"another's");
            proc().read(own, "status", 100).map_err(|error| error.raw_os_error())
        });
        assert_eq!(read.join().unwrap(), Err(Some(libc::EXDEV)));
    }

    #[test]
    fn of_descriptors_only_timers_are_told() {
        struct Killed(Child);
        impl Drop for Killed {
            fn drop(&mut self) {
                let _ = self.0.kill();
                let _ = self.0.wait();
            }
        }
        use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
        let own = std::process::id() as i32;
        let before = proc().timers(own).unwrap().len();
        let _timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).unwrap();
        let timers = proc().timers(own).unwrap();
        assert!(timers.len() > before, "{timers:?}");
        assert!(timers.iter().all(|timer| String::from_utf8_lossy(timer).contains("it_value: (")));
        let other = Killed(Command::new("sleep").arg("100").spawn().unwrap());
        assert_eq!(proc().timers(other.0.id() as i32).unwrap(), Vec::<Vec<u8>>::new());
    }
}
