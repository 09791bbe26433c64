//! A prefix from its launch to the agent's connection, and what is to be watched of it afterwards.
//!
//! Launcher → socket of shellspawn (watched for) → store view and `/build` bound into the container → shellspawn is asked
//! to start the agent → the agent connects. Each step is taken as soon as the kernel says that it can be; shellspawn alone
//! is asked again, because its socket is there a moment before it listens.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::logins::Logins;
use super::shellspawn::{self, Program};
use super::socket_watch::SocketWatch;
use super::vital::VitalProcesses;
use super::{
    AGENT_NAME, PREFIX, PREFIX_HOME, Plan, SYSTEM_ROOT, binds, launcher, remark_repair, signal_repair,
};
use crate::guest::login_streams::LoginStreams;
use crate::guest::{how_it_ended, is_ready};
use crate::slot::plan::BootPlan;
use crate::slot::questions::{Answer, Asked, Call, Listener};
use crate::slot::root::AGENT_DIR;
use crate::slot::supervisor::Supervisor;

/// Between two attempts to reach shellspawn.
const REFUSED_PAUSE: Duration = Duration::from_millis(1);

/// How often shellspawn may lose an agent before it has connected.
const ATTEMPTS: u32 = 5;

/// Darling in one slot.
#[derive(Debug)]
pub struct Boot {
    uid: u32,
    store: PathBuf,
    shared_bytes: u64,
    log: File,
    launcher: Pid,
    stage: Stage,
    attempts: u32,
    supervisor: Supervisor,
    vital: VitalProcesses,
    logins: Logins,
    started: Instant,
}

#[derive(Debug)]
enum Stage {
    /// Until the socket of shellspawn is there.
    Booting(SocketWatch),
    /// Until it takes a connection. Holds the container's root, as the container sees it.
    Reaching(OwnedFd),
    /// It was asked to start the agent, which is killed when this connection closes.
    Started { container: OwnedFd, shellspawn: UnixStream },
    /// The agent is there, started through this connection.
    Connected {
        container: OwnedFd,
        #[expect(dead_code, reason = "kept open, see Started")]
        shellspawn: UnixStream,
    },
    /// Between two stages.
    Moving,
}

impl Boot {
    pub(super) fn start(plan: &Plan, boot: &BootPlan, log: &File) -> io::Result<Self> {
        let socket = Path::new(PREFIX).join(shellspawn::SOCKET);
        let watch = SocketWatch::new(Path::new(PREFIX_HOME), socket)?;
        let started = Instant::now();
        let (launcher, supervisor) = launcher::boot(plan, boot, log)?;
        Ok(Self {
            uid: boot.uid,
            store: boot.store.clone(),
            shared_bytes: boot.tmpfs_bytes,
            log: log.try_clone()?,
            launcher,
            stage: Stage::Booting(watch),
            attempts: 0,
            supervisor,
            vital: VitalProcesses::default(),
            logins: Logins::default(),
            started,
        })
    }

    /// One of the slot's processes has ended.
    pub(in crate::guest) fn ended(&mut self, pid: Pid, status: &WaitStatus) -> Result<(), String> {
        // It ends by itself when the prefix could not be booted.
        if pid == self.launcher && matches!(self.stage, Stage::Booting(_)) {
            return Err(format!("Darling's launcher {} before its prefix was up", how_it_ended(status)));
        }
        Ok(())
    }

    /// What it waits for.
    pub(in crate::guest) fn watched(&self) -> Vec<BorrowedFd<'_>> {
        let stage = match &self.stage {
            Stage::Booting(watch) => Some(watch.events()),
            Stage::Started { shellspawn, .. } => Some(shellspawn.as_fd()),
            Stage::Reaching(_) | Stage::Connected { .. } | Stage::Moving => None,
        };
        let calls = std::iter::once(self.supervisor.listener());
        stage.into_iter().chain(calls).chain(self.vital.watched()).chain(self.logins.watched()).collect()
    }

    /// Does what can be done now.
    pub(in crate::guest) fn proceed(&mut self) -> Result<(), String> {
        if is_ready(self.supervisor.listener()) {
            // Without it a crashing program takes its script along: better no build than such a one.
            let answered = self.supervisor.answer(repaired);
            answered.map_err(|error| format!("failed to supervise signals in Darling: {error}"))?;
        }
        if let Some(reason) = self.vital.ended() {
            return Err(reason);
        }
        self.logins.forget_ended();
        match &mut self.stage {
            Stage::Booting(watch) => {
                let there = watch
                    .is_there()
                    .map_err(|error| format!("failed to watch Darling's prefix come up: {error}"))?;
                match there {
                    true => self.prefix_is_up(),
                    false if server_is_dead() => Err("Darling's server ended while it was booting".into()),
                    false => Ok(()),
                }
            }
            Stage::Reaching(_) => self.start_agent(),
            Stage::Started { shellspawn, .. } if is_ready(shellspawn.as_fd()) => self.turned_away(),
            Stage::Started { .. } | Stage::Connected { .. } | Stage::Moving => Ok(()),
        }
    }

    /// The agent has connected, from this process.
    pub(in crate::guest) fn agent_is(&mut self, pid: Pid) {
        self.note(&format!("the agent has connected as process {pid} of the slot"));
        self.stage = match std::mem::replace(&mut self.stage, Stage::Moving) {
            Stage::Started { container, shellspawn } => Stage::Connected { container, shellspawn },
            stage => stage,
        };
        self.supervisor.agent_is(pid);
        // If it is gone already, its connection says so.
        let _ = self.vital.add("the agent", pid);
    }

    /// How long to wait for what is [`watched`](Self::watched) before trying again anyway.
    pub(in crate::guest) fn patience(&self) -> Option<Duration> {
        match self.stage {
            // The server's death is seen by no descriptor until it is known.
            Stage::Booting(_) => Some(Duration::from_millis(250)),
            Stage::Reaching(_) => Some(REFUSED_PAUSE),
            Stage::Started { .. } | Stage::Connected { .. } | Stage::Moving => None,
        }
    }

    pub(in crate::guest) fn describe(&self) -> String {
        match self.stage {
            Stage::Booting { .. } => "Darling's prefix did not come up (no shellspawn socket)".into(),
            Stage::Reaching(_) => "Darling's prefix is up, but its shellspawn takes no connection".into(),
            Stage::Started { .. } => "Darling's prefix is up and the agent was started".into(),
            Stage::Connected { .. } | Stage::Moving => "the agent has connected once".into(),
        }
    }

    fn prefix_is_up(&mut self) -> Result<(), String> {
        self.note("the prefix is up");
        let prefix = Path::new(PREFIX);
        let server = server().ok_or("failed to learn which process is Darling's server")?;
        self.vital = VitalProcesses::of_server(server)
            .map_err(|error| format!("failed to watch Darling's server: {error}"))?;
        let container = binds::into_container(server, prefix, &self.store, self.shared_bytes)
            .map_err(|error| format!("failed to show the store and /build inside Darling: {error}"))?;
        // It would wake up after whole seconds to run a program that nobody waits for.
        let _ = kill(self.launcher, Signal::SIGKILL);
        self.stage = Stage::Reaching(container);
        self.start_agent()
    }

    /// Its end of the connection was closed before the agent connected.
    fn turned_away(&mut self) -> Result<(), String> {
        if self.attempts >= ATTEMPTS {
            return Err(format!("Darling's shellspawn did not start the agent in {ATTEMPTS} attempts"));
        }
        self.note("shellspawn has dropped the agent, once more");
        self.stage = match std::mem::replace(&mut self.stage, Stage::Moving) {
            Stage::Started { container, .. } => Stage::Reaching(container),
            stage => stage,
        };
        Ok(())
    }

    /// Has a connection served by an `sshd` of its own.
    pub(in crate::guest) fn log_in(&mut self, number: u32, streams: LoginStreams) {
        let shellspawn = match &self.stage {
            Stage::Connected { container, .. } => reach_shellspawn(container),
            _ => Err(io::Error::other("Darling's prefix is not up")),
        };
        self.logins.start(shellspawn, self.uid, number, streams);
    }

    /// Ends that `sshd`, if it has not ended.
    pub(in crate::guest) fn end_login(&mut self, number: u32) {
        self.logins.end(number);
    }

    fn start_agent(&mut self) -> Result<(), String> {
        let Stage::Reaching(container) = &self.stage else { return Ok(()) };
        let started = reach_shellspawn(container).and_then(|shellspawn| {
            let null = File::open("/dev/null")?;
            let program = Program {
                path: &format!("{SYSTEM_ROOT}{AGENT_DIR}/{AGENT_NAME}"),
                arguments: &[&format!("{SYSTEM_ROOT}{AGENT_DIR}/a")],
                environment: &["PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/var/empty", "LANG=C"],
                id: self.uid,
                streams: [null.as_fd(), self.log.as_fd(), self.log.as_fd()],
            };
            shellspawn::start(&shellspawn, &program)?;
            Ok((shellspawn, container.try_clone()?))
        });
        match started {
            Ok((shellspawn, container)) => {
                self.attempts += 1;
                self.stage = Stage::Started { container, shellspawn };
                self.note("shellspawn was asked to start the agent");
                Ok(())
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::NotFound
                        | io::ErrorKind::BrokenPipe
                        | io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(format!("failed to start the agent in Darling: {error}")),
        }
    }

    fn note(&self, what: &str) {
        use std::io::Write;
        let _ = writeln!(&self.log, "[{:.3} s] {what}", self.started.elapsed().as_secs_f64());
    }
}

/// Answers calls by the repair that each is for.
fn repaired(listener: &Listener, asked: Asked) -> Answer {
    let done = match asked.call {
        Call::KillGroup(signal) => signal_repair::signal_caller(listener, asked, signal).map(|()| 0),
        Call::Write(address) => {
            remark_repair::is_remark(listener, asked, address).then_some(i64::from(remark_repair::LENGTH))
        }
        Call::KillEveryone(_) => None,
    };
    done.map_or(Answer::LetHappen, Answer::Done)
}

/// A connection to the container's shellspawn. Its socket is known by the inode of the container's overlay, so the way to
/// it leads through a descriptor of that mount.
fn reach_shellspawn(container: &OwnedFd) -> io::Result<UnixStream> {
    UnixStream::connect(format!("/proc/self/fd/{}/{}", container.as_raw_fd(), shellspawn::SOCKET))
}

/// The prefix's server, from the file that the launcher writes. Empty for a moment: it is written after it is opened.
fn server() -> Option<Pid> {
    let pid = fs::read_to_string(Path::new(PREFIX).join(".init.pid")).ok()?;
    pid.trim().parse().ok().map(Pid::from_raw)
}

/// Whether the server was started and is gone: the launcher itself would go on waiting for 15 s.
fn server_is_dead() -> bool {
    let Some(pid) = server() else { return false };
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the name, which is in parentheses and may hold anything.
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')),
        Err(_) => true,
    }
}
