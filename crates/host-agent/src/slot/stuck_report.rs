//! What a slot was doing when it was given up: every process with what it waits for, taken from the host's /proc before
//! anything is killed.
//!
//! A build that hangs in Darling can rarely be made to hang again under a debugger; these lines in its log are all that
//! anybody will have.

use std::collections::BTreeMap;
use std::fs;

use crate::guest::GuestPlan;
use crate::guest::darling::remarks::Remarks;

/// Most lines of a report.
const LINES_MAX: usize = 200;

/// Most processes that are listed.
const PROCESSES_MAX: usize = 140;

/// Most characters of a command line.
const COMMAND_MAX: usize = 100;

/// Clock ticks a second in /proc (`USER_HZ`, 100 on every architecture that has builders).
const TICKS: f64 = 100.0;

/// One process of the slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Number on the host.
    pub pid: i32,
    /// Number of the parent on the host.
    pub parent: i32,
    /// State, as in proc_pid_stat(5).
    pub state: char,
    /// Processor time, seconds.
    pub cpu: f64,
    /// Threads.
    pub threads: u32,
    /// Kernel function it sleeps in.
    pub wait_channel: String,
    /// System call it is in.
    pub system_call: String,
    /// Command line.
    pub command: String,
}

/// The report's lines for the slot whose first process is `slot_init`, a pid on the host. Reads much of /proc; blocking.
pub fn take(slot_init: i32, guest: &GuestPlan, remarks: &Remarks) -> Vec<String> {
    let processes = below(slot_init, all_processes());
    let about_guest = guest.diagnose(slot_init, &processes);
    render(slot_init, &processes, &about_guest, &remarks.lines())
}

fn render(slot_init: i32, processes: &[Process], guest: &[String], remarks: &[String]) -> Vec<String> {
    let mut lines = vec![format!("in the slot when it was given up, {} processes:", processes.len())];
    lines.push(format!("    pid  state      cpu  {:<44}  command", "waits in / system call"));
    let mut children: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
    for process in processes {
        children.entry(process.parent).or_default().push(process);
    }
    let mut to_show: Vec<(&Process, usize)> =
        children.get(&slot_init).into_iter().flatten().rev().map(|process| (*process, 0)).collect();
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
    lines.extend(guest.iter().chain(remarks).take(LINES_MAX - lines.len()).cloned());
    lines
}

impl Process {
    fn line(&self, depth: usize) -> String {
        let threads = if self.threads > 1 { format!(" ({} threads)", self.threads) } else { String::new() };
        format!(
            "{:>7}  {}  {:>8.2} s  {:<44}  {:indent$}{}{threads}",
            self.pid,
            self.state,
            self.cpu,
            format!("{} / {}", self.wait_channel, self.system_call),
            "",
            self.command,
            indent = depth * 2
        )
    }

    fn read(pid: i32) -> Option<Self> {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
        let stat = String::from_utf8_lossy(&read("stat")?).into_owned();
        // The name is in parentheses and may hold anything.
        let (name, rest) = stat.split_once(" (")?.1.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        // Numbered from 3 on in proc_pid_stat(5).
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let wait_channel = String::from_utf8_lossy(&read("wchan").unwrap_or_default()).into_owned();
        let system_call = String::from_utf8_lossy(&read("syscall").unwrap_or_default()).into_owned();
        Some(Self {
            pid,
            parent: number(4)? as i32,
            state: fields.first()?.chars().next()?,
            cpu: (number(14)? + number(15)?) as f64 / TICKS,
            threads: number(20)? as u32,
            wait_channel: if matches!(&*wait_channel, "" | "0") { "-".into() } else { wait_channel },
            system_call: system_call_name(&system_call),
            command: command(&read("cmdline").unwrap_or_default(), name),
        })
    }
}

fn command(cmdline: &[u8], name: &str) -> String {
    let text = String::from_utf8_lossy(cmdline);
    let words: Vec<&str> = text.split('\0').filter(|word| !word.is_empty()).collect();
    let line = if words.is_empty() { format!("[{name}]") } else { words.join(" ") };
    let mut line: String =
        line.chars().map(|char| if char.is_control() { ' ' } else { char }).take(COMMAND_MAX + 1).collect();
    if line.chars().count() > COMMAND_MAX {
        line.pop();
        line.push('…');
    }
    line
}

/// The first word of /proc/PID/syscall, named if it is one that processes wait in (x86_64).
fn system_call_name(text: &str) -> String {
    let number = text.split_ascii_whitespace().next().unwrap_or("-");
    let name = match number {
        "0" => "read",
        "1" => "write",
        "7" => "poll",
        "16" => "ioctl",
        "23" => "select",
        "34" => "pause",
        "35" => "nanosleep",
        "42" => "connect",
        "43" => "accept",
        "45" => "recvfrom",
        "46" => "sendmsg",
        "47" => "recvmsg",
        "61" => "wait4",
        "73" => "flock",
        "128" => "rt_sigtimedwait",
        "130" => "rt_sigsuspend",
        "202" => "futex",
        "230" => "clock_nanosleep",
        "232" => "epoll_wait",
        "247" => "waitid",
        "270" => "pselect6",
        "271" => "ppoll",
        "281" => "epoll_pwait",
        "-1" | "-" | "" => "none",
        "running" => "running",
        number => return format!("call {number}"),
    };
    name.into()
}

fn all_processes() -> Vec<Process> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Process::read).collect()
}

/// Those that descend from `ancestor`, in order of their numbers.
fn below(ancestor: i32, mut processes: Vec<Process>) -> Vec<Process> {
    let parents: BTreeMap<i32, i32> = processes.iter().map(|process| (process.pid, process.parent)).collect();
    let descends = |mut pid: i32| {
        // Bounded: numbers may have been reused between two looks, and made a circle.
        for _ in 0..parents.len() {
            match parents.get(&pid) {
                Some(parent) if *parent == ancestor => return true,
                Some(parent) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    processes.retain(|process| descends(process.pid));
    processes.sort_by_key(|process| process.pid);
    processes
}

#[cfg(test)]
mod tests {
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
            process(12, 10, 'S', "darlingserver /var/d/p"),
            process(14, 12, 'S', "/sbin/launchd"),
            process(16, 14, 'S', "bash -e builder.sh"),
            process(18, 16, 'R', "cc -v"),
            process(15, 14, 'Z', "[true]"),
        ];
        let guest = ["the server's timer is not armed".to_owned()];
        let remarks = ["Unimplemented syscall (413): 3 times".to_owned()];
        insta::assert_snapshot!(render(10, &processes, &guest, &remarks).join("\n"), @"
        in the slot when it was given up, 5 processes:
            pid  state      cpu  waits in / system call                        command
             12  S      1.50 s  unix_stream_read / recvmsg                    darlingserver /var/d/p
             14  S      1.75 s  unix_stream_read / recvmsg                      /sbin/launchd
             16  S      2.00 s  unix_stream_read / recvmsg                        bash -e builder.sh
             18  R      2.25 s  unix_stream_read / recvmsg                          cc -v
             15  Z      1.88 s  unix_stream_read / recvmsg                        [true] (2 threads)
        the server's timer is not armed
        Unimplemented syscall (413): 3 times
        ");
    }

    #[test]
    fn a_report_is_bounded_whatever_runs() {
        let mut processes: Vec<Process> = (2..1000).map(|pid| process(pid, pid - 1, 'S', "x")).collect();
        processes.push(process(5000, 4999, 'S', "not of this slot"));
        let processes = below(1, processes);
        assert_eq!(processes.len(), 998);
        let guest = vec!["line".to_owned(); 1000];
        let lines = render(1, &processes, &guest, &guest);
        assert_eq!(lines.len(), LINES_MAX);
        assert!(lines.iter().any(|line| line.contains("and 858 more")));
    }

    #[test]
    fn this_process_is_read_as_what_it_is() {
        let own = Process::read(std::process::id() as i32).unwrap();
        assert!(own.command.contains("host_agent"), "{own:?}");
        assert!(matches!(own.state, 'R' | 'S') && own.threads > 1, "{own:?}");
        assert_eq!(command(b"a\0\x1b[2J\0", "n"), "a  [2J");
        assert_eq!(command(b"", "kthread"), "[kthread]");
        assert_eq!(command(&[b'x'; 500], "n").chars().count(), COMMAND_MAX + 1);
        assert_eq!(system_call_name("230 0x0 0x1"), "clock_nanosleep");
        assert_eq!(system_call_name("999 0x0"), "call 999");
    }
}
