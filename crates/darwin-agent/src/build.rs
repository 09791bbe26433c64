//! The one process of this agent, from its start to the last message about it.
//!
//! When the process has ended, what it left behind is killed and reaped first, then the rest of its output is read,
//! then its end is reported: nothing of a build works on after the host has heard that it is over.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libc::pid_t;
use protocol::message::{Exit, FromAgent, Usage};

use crate::child;
use crate::input::Input;
use crate::outbox::Outbox;
use crate::reaper::{self, Reaped, Wait};
use crate::request::Ready;
use crate::streams::{self, Opened};
use crate::{process_table, pump};

/// How long to go on killing what does not go away (it may belong to another user, or hang in the kernel).
const KILL_FOR: Duration = Duration::from_secs(5);

/// Between two looks at what is left.
const KILL_AGAIN: Duration = Duration::from_millis(1);

/// Small: the threads keep their buffers on the heap.
const STACK: usize = 256 << 10;

/// The process, as other threads see it.
#[derive(Debug, Clone)]
pub struct Build {
    state: Arc<Mutex<State>>,
    exclusive_uid: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was started yet.
    Waiting,
    /// The process runs, or has ended and was not reaped: its id and group are its own.
    Running { pid: pid_t },
    /// The process is gone; what it left is being killed, its output being read.
    Stopping { pid: pid_t },
    /// Its end was reported.
    Ended,
}

/// How far the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not started.
    Before,
    /// Started, and its end not reported.
    During,
    /// Its end was reported (or is on its way to the host).
    After,
}

impl Build {
    /// Nothing runs yet. `exclusive_uid`: everything of this user may be killed at the end.
    pub fn new(exclusive_uid: bool) -> Self {
        Self { state: Arc::new(Mutex::new(State::Waiting)), exclusive_uid }
    }

    /// Starts the process; from here on the outbox gets `Started`, `Output` and `Exited`. Returns the way to its stdin, if it
    /// was to have one.
    pub fn start(&self, ready: Ready, outbox: Arc<Outbox>) -> Option<Input> {
        self.try_start(&ready, &outbox).unwrap_or_else(|exit| {
            self.refuse(exit, &outbox);
            None
        })
    }

    /// Reports a process that can't be started.
    pub fn refuse(&self, exit: Exit, outbox: &Outbox) {
        *self.lock() = State::Ended;
        outbox.send(FromAgent::Exited { exit, usage: Usage::default() });
    }

    fn try_start(&self, ready: &Ready, outbox: &Arc<Outbox>) -> Result<Option<Input>, Exit> {
        let Opened { theirs, sources, sink } = streams::open(ready.streams)
            .map_err(|error| Exit::SpawnFailed { step: error.step.to_owned(), errno: error.errno })?;
        let input = sink.map(|sink| Input::start(sink, outbox.clone())).transpose().map_err(thread_failed)?;
        let (ended_read, ended_write) = io::pipe().map_err(thread_failed)?;
        let start = Instant::now();
        let pid = child::start(&ready.command, theirs).map_err(|error| ready.explain(error))?;
        *self.lock() = State::Running { pid };
        outbox.send(FromAgent::Started { pid });

        let build = self.clone();
        let outbox = outbox.clone();
        let started = thread::Builder::new().name("build".into()).stack_size(STACK).spawn(move || {
            let pump = {
                let outbox = outbox.clone();
                thread::Builder::new()
                    .name("pump".into())
                    .stack_size(STACK)
                    .spawn(move || pump::run(&outbox, sources, ended_read, start))
            };
            let (exit, usage) = build.wait_for_end(pid, start);
            build.kill_rest(pid);
            drop(ended_write);
            let exit = match pump {
                Ok(pump) => {
                    let _ = pump.join();
                    exit
                }
                Err(error) => thread_failed(error),
            };
            *build.lock() = State::Ended;
            outbox.send(FromAgent::Exited { exit, usage });
        });
        if let Err(error) = started {
            self.kill_all();
            return Err(thread_failed(error));
        }
        Ok(input)
    }

    /// Waits for the process. Its id stays taken until `state` says that it has ended, so that a signal from the host
    /// can't reach a stranger.
    fn wait_for_end(&self, pid: pid_t, start: Instant) -> (Exit, Usage) {
        #[cfg(target_os = "linux")]
        // Orphans come here as well (see `adopt_orphans`) and are reaped as they end.
        while let Ok(ended) = reaper::wait_for_an_end() {
            if ended == pid {
                *self.lock() = State::Stopping { pid };
                signal_group(pid, libc::SIGKILL);
                break;
            }
            let _ = reaper::wait(Wait::For(ended));
        }
        let reaped = reaper::wait(Wait::For(pid));
        let wall = start.elapsed();
        *self.lock() = State::Stopping { pid };
        match reaped {
            Ok(Some(reaped)) => (exit_of(&reaped), usage_of(&reaped, wall)),
            Ok(None) => lost(pid, libc::ECHILD, wall),
            Err(error) => lost(pid, error.raw_os_error().unwrap_or(libc::ECHILD), wall),
        }
    }

    /// Kills and reaps what the process left behind.
    fn kill_rest(&self, pid: pid_t) {
        if !cfg!(target_os = "linux") {
            signal_group(pid, libc::SIGKILL);
        }
        let deadline = Instant::now() + KILL_FOR;
        loop {
            let children = reap_ended();
            // As everyone's foster parent this program has children as long as anything is left.
            if cfg!(target_os = "linux") && !children {
                return;
            }
            let left = if self.exclusive_uid { self.kill_user(pid) } else { kill_below(pid) };
            if !cfg!(target_os = "linux") && !left && !children {
                return;
            }
            if Instant::now() >= deadline {
                eprintln!("darwin-agent: some processes of the build do not go away");
                return;
            }
            thread::sleep(KILL_AGAIN);
        }
    }

    /// Kills every process of this user but this one. Whether there were any.
    fn kill_user(&self, pid: pid_t) -> bool {
        // macOS does not spare the caller; without that guarantee only what is known to be the build's is killed.
        if cfg!(target_os = "linux") { reaper::kill(-1, libc::SIGKILL).is_ok() } else { kill_below(pid) }
    }

    /// Sends a signal to the process's group, if it runs.
    pub fn signal(&self, signal: i32) {
        let state = self.lock();
        if let State::Running { pid } = *state {
            signal_group(pid, signal);
        }
    }

    /// Session of the process until its end is reported.
    pub fn session(&self) -> Option<pid_t> {
        match *self.lock() {
            State::Running { pid } | State::Stopping { pid } => Some(pid),
            State::Waiting | State::Ended => None,
        }
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        match *self.lock() {
            State::Waiting => Phase::Before,
            State::Running { .. } | State::Stopping { .. } => Phase::During,
            State::Ended => Phase::After,
        }
    }

    /// Kills everything of the build, at once and without a report: the host is gone.
    pub fn kill_all(&self) {
        let state = *self.lock();
        let (State::Running { pid } | State::Stopping { pid }) = state else {
            return;
        };
        self.signal(libc::SIGKILL);
        let deadline = Instant::now() + KILL_FOR;
        loop {
            let left = if self.exclusive_uid {
                self.kill_user(pid);
                process_table::below(own_pid(), Some(pid)).iter().any(|process| !process.zombie)
            } else {
                kill_below(pid)
            };
            if !left || Instant::now() >= deadline {
                return;
            }
            thread::sleep(KILL_AGAIN);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills what `/proc` shows below this program and in the build's session. Whether something was left to kill.
fn kill_below(session: pid_t) -> bool {
    let mut left = false;
    for process in process_table::below(own_pid(), Some(session)) {
        if !process.zombie {
            left = true;
            let _ = reaper::kill(process.pid, libc::SIGKILL);
        }
    }
    left
}

/// Reaps every child that has ended; whether there are others.
fn reap_ended() -> bool {
    loop {
        match reaper::wait(Wait::AnyEnded) {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

fn signal_group(group: pid_t, signal: i32) {
    // ESRCH: everyone in it has gone already.
    let _ = reaper::kill(-group, signal);
}

fn own_pid() -> pid_t {
    nix::unistd::getpid().as_raw()
}

fn exit_of(reaped: &Reaped) -> Exit {
    if libc::WIFSIGNALED(reaped.status) {
        Exit::Signal(libc::WTERMSIG(reaped.status))
    } else {
        Exit::Code(libc::WEXITSTATUS(reaped.status))
    }
}

fn usage_of(reaped: &Reaped, wall: Duration) -> Usage {
    // getrusage(2): KiB on Linux, bytes on macOS. Darling passes on what Linux says.
    let unit = if process_table::kernel_is_linux() { 1024 } else { 1 };
    Usage {
        wall_micros: wall.as_micros() as u64,
        user_micros: micros(&reaped.usage.ru_utime),
        system_micros: micros(&reaped.usage.ru_stime),
        max_rss_bytes: (reaped.usage.ru_maxrss as u64).saturating_mul(unit),
    }
}

fn micros(time: &libc::timeval) -> u64 {
    (time.tv_sec as u64).saturating_mul(1_000_000).saturating_add(time.tv_usec as u64)
}

/// The kernel no longer knows the process: its result is unknown, which must not look like success.
fn lost(pid: pid_t, errno: i32, wall: Duration) -> (Exit, Usage) {
    let usage = Usage { wall_micros: wall.as_micros() as u64, ..Usage::default() };
    (Exit::SpawnFailed { step: format!("wait for process {pid}, which was running"), errno }, usage)
}

fn thread_failed(error: io::Error) -> Exit {
    Exit::SpawnFailed {
        step: "threads and pipes of the agent".to_owned(),
        errno: error.raw_os_error().unwrap_or(libc::EAGAIN),
    }
}
