//! What Darling itself can tell of a slot that hangs: its server's log, and whether the timer is armed on which every
//! sleep inside depends.
//!
//! The daemon looks, as root, and the prefix is the builder's to change: no link in it is followed, nothing but a file is read,
//! and what is read is shown in a form that does nothing to a terminal.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::{PREFIX, PREFIX_HOME};
use crate::slot::own_proc::OwnProc;
use crate::slot::stuck_report::{Process, printable};

/// The server's log, in a prefix.
const SERVER_LOG: &str = "private/var/log/dserver.log";

/// Of the log's end, so many bytes and lines are shown, and of a line so many characters.
const LOG_TAIL: u64 = 8 << 10;
const LOG_LINES: usize = 12;
const LINE_MAX: usize = 200;

/// Lines about the Darling of the slot that has this procfs.
pub(super) fn lines(proc: &OwnProc, processes: &[Process]) -> Vec<String> {
    let mut lines = Vec::new();
    let server = processes.iter().find(|process| {
        process
            .command
            .split(' ')
            .next()
            .is_some_and(|program| program.rsplit('/').next() == Some("darlingserver"))
    });
    match server {
        Some(server) => lines.push(timer(proc, server.pid)),
        None => lines.push("Darling's server is gone".into()),
    }
    // The prefix is mounted in the slot only.
    match proc.root().and_then(|root| tail(&root)) {
        Ok(tail) if !tail.is_empty() => {
            lines.push("the last that Darling's server logged:".into());
            lines.extend(tail.into_iter().map(|line| format!("    {line}")));
        }
        _ => lines.push("Darling's server logged nothing".into()),
    }
    lines
}

/// Its one timer, for all sleepers inside.
fn timer(proc: &OwnProc, server: i32) -> String {
    let timers = proc.timers(server).unwrap_or_default();
    let armed = timers
        .iter()
        .filter_map(|info| is_armed(&String::from_utf8_lossy(info)))
        .reduce(|one, other| one || other);
    match armed {
        Some(true) => "the timer of Darling's server is armed".into(),
        Some(false) => {
            "the timer of Darling's server is not armed: whoever sleeps now sleeps until something else sleeps anew".into()
        }
        None => "the timer of Darling's server was not found".into(),
    }
}

/// Whether a timerfd is armed, by its fdinfo (proc_pid_fdinfo(5)); `None` for other descriptors.
fn is_armed(info: &str) -> Option<bool> {
    let value = info.lines().find_map(|line| line.strip_prefix("it_value:"))?;
    Some(value.trim() != "(0, 0)")
}

/// The end of the server's log in a slot with this root.
fn tail(root: &OwnedFd) -> io::Result<Vec<String>> {
    let mut file = open_log(root)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    let lines: Vec<&[u8]> =
        bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
    Ok(last.iter().map(|line| printable(line, LINE_MAX)).collect())
}

/// The prefix's home was made by `slot-init`, all below is the builder's: no way leads out of there, and nothing that is opened (a
/// FIFO, a file with a lease) holds up who opens it.
fn open_log(root: &OwnedFd) -> io::Result<File> {
    let no_links = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let home = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(no_links | ResolveFlag::RESOLVE_IN_ROOT);
    let home = openat2(root, PREFIX_HOME, home)?;
    let log = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(no_links | ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV);
    let prefix = Path::new(PREFIX).strip_prefix(PREFIX_HOME).map_err(io::Error::other)?;
    Ok(openat2(home.as_fd(), &prefix.join(SERVER_LOG), log)?.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_timer_is_armed_or_not_and_other_descriptors_are_no_timers() {
        let info = |value: &str| {
            format!(
                "pos:\t0\nflags:\t02004002\nclockid: 1\nticks: 0\nsettime flags: 01\nit_value: {value}\nit_interval: (0, 0)\n"
            )
        };
        assert_eq!(is_armed(&info("(0, 493827)")), Some(true));
        assert_eq!(is_armed(&info("(0, 0)")), Some(false));
        assert_eq!(is_armed("pos:\t0\nflags:\t02\n"), None);
    }

    /// A root with a prefix, and a directory of the host's with a secret in the place of a log.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(place.log().parent().unwrap()).unwrap();
            fs::create_dir_all(place.hosts()).unwrap();
            fs::write(place.hosts().join("dserver.log"), "secret\n").unwrap();
            place
        }

        fn log(&self) -> PathBuf {
            self.0.path().join("root").join(&PREFIX[1..]).join(SERVER_LOG)
        }

        fn hosts(&self) -> PathBuf {
            self.0.path().join("hosts")
        }

        fn tail(&self) -> io::Result<Vec<String>> {
            tail(&File::open(self.0.path().join("root")).unwrap().into())
        }
    }

    #[test]
    fn the_end_of_the_servers_log_is_shown_and_does_nothing_to_a_terminal() {
        let place = Place::new();
        fs::write(place.log(), "early\n".repeat(5000) + "\n one\x1b]0;x\x07\n" + &"y".repeat(300)).unwrap();
        let tail = place.tail().unwrap();
        assert_eq!(tail.len(), LOG_LINES);
        assert_eq!(tail[LOG_LINES - 2], " one?]0;x?");
        assert_eq!(tail[LOG_LINES - 1].chars().count(), LINE_MAX + 1);
    }

    #[test]
    fn no_link_of_the_builders_leads_to_a_file_of_the_hosts() {
        let place = Place::new();
        let hosts = place.hosts();
        symlink(hosts.join("dserver.log"), place.log()).unwrap();
        assert!(place.tail().is_err(), "in the place of the log");
        fs::remove_dir_all(place.log().parent().unwrap()).unwrap();
        symlink(&hosts, place.log().parent().unwrap()).unwrap();
        assert_eq!(fs::read(place.log()).unwrap(), b"secret\n", "that is where it leads");
        assert!(place.tail().is_err(), "in the place of its directory");
        fs::remove_file(place.log().parent().unwrap()).unwrap();
        symlink("../../../../../../hosts", place.log().parent().unwrap()).unwrap();
        assert_eq!(fs::read(place.log()).unwrap(), b"secret\n", "that is where it leads");
        assert!(place.tail().is_err(), "upwards");
    }

    #[test]
    fn what_is_no_file_is_not_read_and_not_waited_for() {
        let place = Place::new();
        nix::unistd::mkfifo(&place.log(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (ended, end) = std::sync::mpsc::channel();
        let root: OwnedFd = File::open(place.0.path().join("root")).unwrap().into();
        std::thread::spawn(move || ended.send(tail(&root).is_err()));
        assert_eq!(end.recv_timeout(Duration::from_secs(5)), Ok(true));
        fs::remove_file(place.log()).unwrap();
        fs::create_dir(place.log()).unwrap();
        assert!(place.tail().is_err());
    }
}
