//! Processes as `/proc` shows them: on Linux, and inside Darling, whose guest sees the kernel's own table. Elsewhere
//! there is none, and lists are empty.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use protocol::ByteString;
use protocol::message::ProcessEntry;

/// Longest command line that is reported, bytes.
const COMMAND_MAX: usize = 512;

/// What is read of a file that speaks of a process, bytes.
const FIRST_BYTES: usize = 1024;

/// Most processes that are reported, so that the answer fits a frame.
const REPORTED_MAX: usize = 1000;

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Parent.
    pub parent: i32,
    /// Process group.
    pub group: i32,
    /// Session.
    pub session: i32,
    /// It has ended and only waits to be reaped.
    pub zombie: bool,
    name: Vec<u8>,
}

/// Whether the kernel below is Linux: `/proc` tells about this process.
pub fn kernel_is_linux() -> bool {
    cfg!(target_os = "linux") || Path::new("/proc/self/stat").exists()
}

/// All processes that can be seen.
fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit))
        .filter_map(|entry| parse_stat(&first_bytes(&entry.path().join("stat"))?))
        .collect()
}

/// The beginning of a file, in one read: inside Darling every call counts, and this is done for each process.
fn first_bytes(path: &Path) -> Option<Vec<u8>> {
    let mut buffer = vec![0; FIRST_BYTES];
    let len = File::open(path).ok()?.read(&mut buffer).ok()?;
    buffer.truncate(len);
    Some(buffer)
}

/// The parent of a process.
pub fn parent_of(pid: i32) -> Option<i32> {
    parse_stat(&first_bytes(&Path::new("/proc").join(pid.to_string()).join("stat"))?)
        .map(|process| process.parent)
}

/// Descendants of `ancestor`, and whatever is in one of their sessions or in `session` although its parents are gone.
/// Never `ancestor` itself.
pub fn below(ancestor: i32, session: Option<i32>) -> Vec<Process> {
    select(all(), ancestor, session)
}

fn select(all: Vec<Process>, ancestor: i32, session: Option<i32>) -> Vec<Process> {
    let mut pids = HashSet::from([ancestor]);
    let mut sessions: HashSet<i32> = session.into_iter().collect();
    // A parent need not have a smaller number than its child: repeat until nothing is added.
    loop {
        let before = pids.len();
        for process in &all {
            if process.pid != ancestor
                && (pids.contains(&process.parent) || sessions.contains(&process.session))
                && pids.insert(process.pid)
                && process.session == process.pid
            {
                sessions.insert(process.session);
            }
        }
        if pids.len() == before {
            break;
        }
    }
    all.into_iter().filter(|process| process.pid != ancestor && pids.contains(&process.pid)).collect()
}

/// What a report says of `processes`.
pub fn describe(processes: Vec<Process>) -> Vec<ProcessEntry> {
    processes
        .into_iter()
        .take(REPORTED_MAX)
        .map(|process| {
            // Its beginning: a process chooses where its command line lies, and how long it is.
            let file = Path::new("/proc").join(process.pid.to_string()).join("cmdline");
            let mut command = first_bytes(&file).unwrap_or_default();
            while command.last() == Some(&0) {
                command.pop();
            }
            command.truncate(COMMAND_MAX);
            for byte in &mut command {
                if *byte == 0 {
                    *byte = b' ';
                }
            }
            if command.is_empty() {
                command = [b"[", &process.name[..], b"]"].concat();
            }
            ProcessEntry { pid: process.pid, parent: process.parent, command: ByteString::from(command) }
        })
        .collect()
}

/// Resident memory of this process, bytes; 0 if unknown.
pub fn own_rss_bytes() -> u64 {
    fs::read("/proc/self/status").ok().and_then(|status| parse_rss(&status)).unwrap_or(0)
}

fn parse_rss(status: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(status);
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// `/proc/<pid>/stat` as in proc(5). The name is in parentheses and may itself hold any byte, so the last one counts.
fn parse_stat(stat: &[u8]) -> Option<Process> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let name = stat.get(open + 1..close)?.to_vec();
    let pid = std::str::from_utf8(stat.get(..open)?).ok()?.trim().parse().ok()?;
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse().ok();
    Some(Process {
        pid,
        name,
        zombie: matches!(state, "Z" | "X"),
        parent: number()?,
        group: number()?,
        session: number()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, session: i32) -> Process {
        Process { pid, parent, group: session, session, zombie: false, name: Vec::new() }
    }

    #[test]
    fn reads_a_line_whose_name_holds_parentheses_and_spaces() {
        let parsed = parse_stat(b"42 (a) (b c) Z 7 40 41 34816 42 4194560 1\n").unwrap();
        assert_eq!(
            parsed,
            Process { pid: 42, parent: 7, group: 40, session: 41, zombie: true, name: b"a) (b c".to_vec() }
        );
    }

    #[test]
    fn refuses_lines_that_are_cut() {
        for line in [&b""[..], b"42", b"42 (a", b"42 (a)", b"42 (a) S 1", b"x (a) S 1 2 3", b") 1 ("] {
            assert_eq!(parse_stat(line), None, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn finds_descendants_and_orphans_of_their_sessions_but_no_stranger() {
        let table = vec![
            process(1, 0, 1),
            process(10, 1, 1),  // the agent
            process(9, 10, 9),  // the build: a smaller number than its parent
            process(8, 9, 8),   // made a session of its own
            process(12, 1, 8),  // orphan in it
            process(13, 1, 9),  // orphan in the build's session
            process(14, 1, 14), // somebody else
        ];
        let mut found: Vec<i32> = select(table, 10, Some(9)).iter().map(|process| process.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [8, 9, 12, 13]);
    }

    #[test]
    fn reads_resident_memory() {
        assert_eq!(parse_rss(b"Name:\tx\nVmRSS:\t     12 kB\n"), Some(12 * 1024));
        assert_eq!(parse_rss(b"VmRSS: lots\n"), None);
    }
}
