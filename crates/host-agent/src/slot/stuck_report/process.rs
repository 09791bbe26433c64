//! One process of a slot, as a report shows it.

use crate::slot::own_proc::OwnProc;

/// Most that is read of each file of a process, bytes; of all together at most 4 KiB.
const STAT_BYTES: usize = 1024;
const WAIT_CHANNEL_BYTES: usize = 128;
const SYSTEM_CALL_BYTES: usize = 256;
const COMMAND_BYTES: usize = 512;
const _: () = assert!(STAT_BYTES + WAIT_CHANNEL_BYTES + SYSTEM_CALL_BYTES + COMMAND_BYTES <= 4096);

/// Most characters of a command line that are shown.
pub(super) const COMMAND_MAX: usize = 100;

/// Most levels of the tree that are shown as such.
const DEPTH_MAX: usize = 40;

/// Clock ticks a second in /proc (`USER_HZ`, 100 on every architecture that has builders).
const TICKS: f64 = 100.0;

/// One process of the slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Number in the slot.
    pub pid: i32,
    /// Number of the parent in the slot; 0 if that is outside.
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
    /// Command line, as it can be printed.
    pub command: String,
}

impl Process {
    pub(super) fn read(proc: &OwnProc, pid: i32) -> Option<Self> {
        let read = |name: &str, most: usize| proc.read(pid, name, most);
        let stat = String::from_utf8_lossy(&read("stat", STAT_BYTES).ok()?).into_owned();
        // The name is in parentheses and may hold anything.
        let (name, rest) = stat.split_once(" (")?.1.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        // Numbered from 3 on in proc_pid_stat(5).
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let wait_channel = printable(&read("wchan", WAIT_CHANNEL_BYTES).unwrap_or_default(), COMMAND_MAX);
        let system_call =
            String::from_utf8_lossy(&read("syscall", SYSTEM_CALL_BYTES).unwrap_or_default()).into_owned();
        Some(Self {
            pid,
            parent: number(4)? as i32,
            state: fields.first()?.chars().next()?,
            cpu: (number(14)? + number(15)?) as f64 / TICKS,
            threads: number(20)? as u32,
            wait_channel: if matches!(&*wait_channel, "" | "0") { "-".into() } else { wait_channel },
            system_call: system_call_name(&system_call),
            command: command(&read("cmdline", COMMAND_BYTES).unwrap_or_default(), name.as_bytes()),
        })
    }

    pub(super) fn line(&self, depth: usize) -> String {
        let threads = if self.threads > 1 { format!(" ({} threads)", self.threads) } else { String::new() };
        format!(
            "{:>7}  {}  {:>8.2} s  {:<44}  {:indent$}{}{threads}",
            self.pid,
            self.state,
            self.cpu,
            format!("{} / {}", self.wait_channel, self.system_call),
            "",
            self.command,
            indent = depth.min(DEPTH_MAX) * 2
        )
    }
}

/// As text that does nothing to a terminal and looks like nothing else: printable ASCII, anything else a question mark, at
/// most so many characters.
pub(crate) fn printable(bytes: &[u8], most: usize) -> String {
    let shown = |byte: &u8| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '?' };
    let mut text: String = bytes.iter().take(most).map(shown).collect();
    if bytes.len() > most {
        text.push('…');
    }
    text
}

/// A command line, or the name if there is none.
pub(super) fn command(cmdline: &[u8], name: &[u8]) -> String {
    let words: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
    match words.is_empty() {
        true => printable(&[b"[", name, b"]"].concat(), COMMAND_MAX),
        false => printable(&words.join(&b' '), COMMAND_MAX),
    }
}

/// The first word of /proc/PID/syscall, named if it is one that processes wait in (x86_64).
pub(super) fn system_call_name(text: &str) -> String {
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
        number => return format!("call {}", printable(number.as_bytes(), COMMAND_MAX)),
    };
    name.into()
}
