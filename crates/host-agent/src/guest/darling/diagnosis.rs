//! What Darling itself can tell of a slot that hangs: its server's log, and whether the timer is armed on which every
//! sleep inside depends.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::PREFIX;
use crate::slot::stuck_report::Process;

/// The server's log, in a prefix.
const SERVER_LOG: &str = "private/var/log/dserver.log";

/// Of the log's end, so many bytes and lines are shown.
const LOG_TAIL: u64 = 8 << 10;
const LOG_LINES: usize = 12;

/// Lines about the Darling of the slot whose first process has this pid on the host.
pub(super) fn lines(slot_init: i32, processes: &[Process]) -> Vec<String> {
    let mut lines = Vec::new();
    let server = processes.iter().find(|process| {
        process
            .command
            .split(' ')
            .next()
            .is_some_and(|program| program.rsplit('/').next() == Some("darlingserver"))
    });
    match server {
        Some(server) => lines.push(timer(server.pid)),
        None => lines.push("Darling's server is gone".into()),
    }
    // The prefix is mounted in the slot only; its first process leads there.
    let log = format!("/proc/{slot_init}/root{PREFIX}/{SERVER_LOG}");
    match tail(Path::new(&log)) {
        Some(tail) if !tail.is_empty() => {
            lines.push("the last that Darling's server logged:".into());
            lines.extend(tail.into_iter().map(|line| format!("    {line}")));
        }
        _ => lines.push("Darling's server logged nothing".into()),
    }
    lines
}

/// Its one timer, for all sleepers inside.
fn timer(server: i32) -> String {
    let descriptors = fs::read_dir(format!("/proc/{server}/fdinfo")).into_iter().flatten().flatten();
    let armed = descriptors
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .filter_map(|info| is_armed(&info))
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

fn tail(path: &Path) -> Option<Vec<String>> {
    // The builder's uid could have put a link there, which would lead to a file of the host.
    let mut file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() {
        return None;
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(LOG_TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
    Some(last.iter().map(|line| line.chars().filter(|char| !char.is_control()).take(200).collect()).collect())
}

#[cfg(test)]
mod tests {
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
}
