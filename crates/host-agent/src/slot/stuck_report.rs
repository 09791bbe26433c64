//! What a slot was doing when it was given up: every process with what it waits for, taken from the slot's own procfs before
//! anything is killed.
//!
//! A build that hangs in Darling can rarely be made to hang again under a debugger; these lines in its log are all that
//! anybody will have. But who hangs may do so on purpose, and what is read is his: so much is read and no more, and it is
//! read by a thread of which nobody expects that it ends ([`super::own_proc`] says why it may not). After [`LIMIT`] what
//! there is by then is the report. Such threads don't pile up: there are [`READERS`] at most, and who finds none free
//! has no report.

mod process;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use super::own_proc::OwnProc;
use crate::guest::GuestPlan;
use crate::guest::darling::remarks::Remarks;

pub use process::Process;
pub(crate) use process::printable;

/// Longest time for a report. A healthy slot's takes some milliseconds.
const LIMIT: Duration = Duration::from_secs(1);

/// Threads that may be reading at once.
static READERS: Semaphore = Semaphore::const_new(4);

/// Most lines of a report.
const LINES_MAX: usize = 200;

/// Most bytes of a report.
const BYTES_MAX: usize = 64 << 10;

/// Most processes that are read.
const READ_MAX: usize = 512;

/// Most processes that are listed.
const PROCESSES_MAX: usize = 140;

/// `slot-init` in its slot.
const SLOT_INIT: i32 = 1;

/// One of the things that are found out.
enum Piece {
    Process(Process),
    /// What the guest says.
    Guest(Vec<String>),
}

/// Where they are sent; fails when nobody waits for more.
type Pieces = mpsc::Sender<Piece>;

/// The report's lines, for the slot that has this procfs. Takes [`LIMIT`] at most.
pub async fn take(proc: OwnProc, guest: GuestPlan, remarks: &Remarks) -> Vec<String> {
    let read = move |pieces: &Pieces| read(&proc, &guest, pieces);
    let (pieces, lacking) = gather(&READERS, LIMIT, read).await;
    let mut processes = Vec::new();
    let mut about_guest = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Process(process) => processes.push(process),
            Piece::Guest(lines) => about_guest.extend(lines),
        }
    }
    render(&processes, &about_guest, &remarks.lines(), lacking)
}

/// Reads everything, in a thread of its own.
fn read(proc: &OwnProc, guest: &GuestPlan, pieces: &Pieces) -> Option<()> {
    let mut processes = Vec::new();
    for pid in proc.processes(READ_MAX).ok()?.into_iter().filter(|pid| *pid != SLOT_INIT) {
        if let Some(process) = Process::read(proc, pid) {
            processes.push(process.clone());
            pieces.blocking_send(Piece::Process(process)).ok()?;
        }
    }
    pieces.blocking_send(Piece::Guest(guest.diagnose(proc, &processes))).ok()
}

/// What `read` has sent within the limit, and why that is not all.
async fn gather(
    readers: &'static Semaphore,
    limit: Duration,
    read: impl FnOnce(&Pieces) -> Option<()> + Send + 'static,
) -> (Vec<Piece>, Option<String>) {
    let deadline = Instant::now() + limit;
    let Ok(Ok(permit)) = timeout_at(deadline, readers.acquire()).await else {
        let lacking = "there is no report: those of other slots have not ended yet";
        return (Vec::new(), Some(lacking.into()));
    };
    let (sender, mut receiver) = mpsc::channel(1);
    // None of the runtime's: that waits for its own when it ends.
    let reader = std::thread::Builder::new().name("stuck-report".into()).spawn(move || {
        read(&sender);
        drop(permit);
    });
    if let Err(error) = reader {
        return (Vec::new(), Some(format!("there is no report: failed to start its thread: {error}")));
    }
    let mut pieces = Vec::new();
    loop {
        match timeout_at(deadline, receiver.recv()).await {
            Ok(Some(piece)) => pieces.push(piece),
            Ok(None) => return (pieces, None),
            Err(_) => {
                let lacking = format!("that is all that could be read of it within {limit:?}");
                return (pieces, Some(lacking));
            }
        }
    }
}

fn render(
    processes: &[Process],
    guest: &[String],
    remarks: &[String],
    lacking: Option<String>,
) -> Vec<String> {
    let more = if processes.len() + 1 >= READ_MAX { " or more" } else { "" };
    let mut lines = vec![format!("in the slot when it was given up, {}{more} processes:", processes.len())];
    lines.push(format!("    pid  state      cpu  {:<44}  command", "waits in / system call"));
    let pids: HashSet<i32> = processes.iter().map(|process| process.pid).collect();
    let mut children: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
    for process in processes {
        // What has come from elsewhere, or whose parent has gone meanwhile, is shown like a child of `slot-init`.
        let parent = if pids.contains(&process.parent) { process.parent } else { SLOT_INIT };
        children.entry(parent).or_default().push(process);
    }
    let mut to_show: Vec<(&Process, usize)> =
        children.get(&SLOT_INIT).into_iter().flatten().rev().map(|process| (*process, 0)).collect();
    let mut shown = 0;
    while let Some((process, depth)) = to_show.pop() {
        shown += 1;
        if shown > PROCESSES_MAX {
            lines.push(format!("    … and {} more", processes.len() - PROCESSES_MAX));
            break;
        }
        lines.push(process.line(depth));
        to_show
            .extend(children.get(&process.pid).into_iter().flatten().rev().map(|child| (*child, depth + 1)));
    }
    lines.extend(lacking);
    lines.extend(guest.iter().chain(remarks).cloned());
    lines.truncate(LINES_MAX);
    let mut bytes = 0;
    lines.retain(|line| {
        bytes += line.len();
        bytes <= BYTES_MAX
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::process::{COMMAND_MAX, command, system_call_name};
    use super::*;

    fn process(pid: i32, parent: i32, state: char, command: &str) -> Process {
        Process {
            pid,
            parent,
            state,
            cpu: f64::from(pid) / 8.0,
            threads: (pid % 2 + 1) as u32,
            wait_channel: "unix_stream_read".into(),
            system_call: "recvmsg".into(),
            command: command.into(),
        }
    }

    #[test]
    fn a_report_shows_the_tree_then_what_the_guest_says() {
        let processes = [
            process(2, 1, 'S', "darlingserver /var/d/p"),
            process(4, 2, 'S', "/sbin/launchd"),
            process(5, 4, 'Z', "[true]"),
            process(6, 4, 'S', "bash -e builder.sh"),
            process(8, 6, 'R', "cc -v"),
            process(9, 0, 'S', "from outside"),
        ];
        let guest = ["the server's timer is not armed".to_owned()];
        let remarks = ["Unimplemented syscall (413): 3 times".to_owned()];
        let lacking = Some("that is all that could be read".to_owned());
        insta::assert_snapshot!(render(&processes, &guest, &remarks, lacking).join("\n"), @"
        in the slot when it was given up, 6 processes:
            pid  state      cpu  waits in / system call                        command
              2  S      0.25 s  unix_stream_read / recvmsg                    darlingserver /var/d/p
              4  S      0.50 s  unix_stream_read / recvmsg                      /sbin/launchd
              5  Z      0.62 s  unix_stream_read / recvmsg                        [true] (2 threads)
              6  S      0.75 s  unix_stream_read / recvmsg                        bash -e builder.sh
              8  R      1.00 s  unix_stream_read / recvmsg                          cc -v
              9  S      1.12 s  unix_stream_read / recvmsg                    from outside (2 threads)
        that is all that could be read
        the server's timer is not armed
        Unimplemented syscall (413): 3 times
        ");
    }

    #[test]
    fn a_report_is_bounded_whatever_runs() {
        let longest = "x".repeat(COMMAND_MAX);
        // Each the child of the one before, and a circle that nothing leads to.
        let mut processes: Vec<Process> =
            (2..READ_MAX as i32 - 1).map(|pid| process(pid, pid - 1, 'S', &longest)).collect();
        processes.extend([process(5000, 5001, 'S', "x"), process(5001, 5000, 'S', "x")]);
        let guest = vec!["line".to_owned(); 1000];
        let lines = render(&processes, &guest, &guest, None);
        assert_eq!(lines.len(), LINES_MAX);
        assert!(lines.iter().map(String::len).sum::<usize>() <= BYTES_MAX);
        assert!(lines[0].ends_with("511 or more processes:"), "{}", lines[0]);
        assert!(lines.iter().any(|line| line.contains("and 371 more")), "{lines:#?}");
        let long = render(&processes[..1], &vec!["y".repeat(BYTES_MAX / 4); 100], &guest, None);
        assert!(long.iter().map(String::len).sum::<usize>() <= BYTES_MAX);
    }

    #[test]
    fn this_process_is_read_as_what_it_is() {
        let proc = OwnProc::new(std::fs::File::open("/proc").unwrap().into()).unwrap();
        let own = Process::read(&proc, std::process::id() as i32).unwrap();
        assert!(own.command.contains("host_agent"), "{own:?}");
        assert!(matches!(own.state, 'R' | 'S') && own.threads > 1, "{own:?}");
        assert_eq!(system_call_name("230 0x0 0x1"), "clock_nanosleep");
        assert_eq!(system_call_name("999 0x0"), "call 999");
    }

    #[test]
    fn what_a_process_calls_itself_is_harmless_to_a_terminal() {
        assert_eq!(command(b"a\0\0\x1b[2J\0\r\n\0", b"n"), "a ?[2J ??");
        // One of C1, and what turns the direction of text, in UTF-8.
        assert_eq!(command("a\u{9b}2J\0b\u{202e}\0".as_bytes(), b"n"), "a??2J b???");
        assert_eq!(command(b"", b"k\x1b]0;x\x07"), "[k?]0;x?]");
        assert_eq!(command(&[b'x'; 500], b"n").chars().count(), COMMAND_MAX + 1);
        assert_eq!(system_call_name("\x1b[2J"), "call ?[2J");
    }

    async fn in_time<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(10), what).await.expect("waited for who can't be read")
    }

    #[tokio::test]
    async fn who_can_not_be_read_ends_the_report_and_not_what_waits_for_it() {
        static READERS: Semaphore = Semaphore::const_new(2);
        const LIMIT: Duration = Duration::from_millis(200);
        let (until, hold) = std::sync::mpsc::channel::<()>();
        let hold = std::sync::Arc::new(std::sync::Mutex::new(hold));
        // As for a process whose memory is not there: one has been read, and the next never is.
        let blocks = || {
            let hold = std::sync::Arc::clone(&hold);
            move |pieces: &Pieces| {
                pieces.blocking_send(Piece::Process(process(2, 1, 'D', "first"))).ok()?;
                let _ = hold.lock().unwrap().recv();
                Some(())
            }
        };
        for _ in 0..2 {
            let (pieces, lacking) = in_time(gather(&READERS, LIMIT, blocks())).await;
            assert_eq!(pieces.len(), 1);
            assert_eq!(lacking.unwrap(), "that is all that could be read of it within 200ms");
        }
        // They have not ended, so there are no more of them.
        let third = gather(&READERS, LIMIT, |_| panic!("a third one was started"));
        let (pieces, lacking) = in_time(third).await;
        assert_eq!((pieces.len(), READERS.available_permits()), (0, 0));
        assert!(lacking.unwrap().contains("have not ended yet"));
        drop(until);
        let (_, lacking) = in_time(gather(&READERS, LIMIT * 25, |_| Some(()))).await;
        assert_eq!(lacking, None, "once they have ended there are reports again");
    }
}
