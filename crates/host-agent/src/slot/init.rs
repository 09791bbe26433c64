//! `host-agent slot-init`: the first process of a slot. Single-threaded, root, pid 1 of the slot's pid namespace.
//!
//! It makes the root, starts the guest, hands the agent's connection to the daemon, shows inputs when told to, keeps
//! the guest's clock going, and reaps orphans. It ends when the daemon's socket does, whatever the reason, or its guest, and
//! everything in the slot ends with it: nothing outlives a build, not even the daemon's death.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use protocol::frame;
use protocol::hello::{Channel, Hello};

use super::host_listeners::HostTargets;
use super::plan::{AgentGreeting, BootPlan, FromSlot, SlotNetwork, ToSlot};
use super::root::{self, AGENT_DIR};
use super::store_view::StoreView;
use super::tick::{Ticker, Trouble};
use super::{capabilities, keyring, loopback, pasta, rights};
use crate::guest::Launched;
use crate::guest::login_streams::LoginStreams;

/// proc(5). The host's /proc, before the slot has its own: it knows this process as well.
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// How long a guest may take from its start to the agent's two connections.
const BOOT_LIMIT: Duration = Duration::from_secs(15);

/// Most of what pasta prints that is looked at.
const SAID_BYTES: u64 = 4096;

/// Runs the slot on the daemon's socket; returns when the slot is to end.
pub fn run(daemon: UnixStream) {
    let mut slot = match boot(&daemon) {
        Ok(Some(slot)) => slot,
        Ok(None) => return,
        Err(reason) => {
            let _ = rights::send(&daemon, &FromSlot::Failed(reason), &[]);
            return;
        }
    };
    while let Some(event) = slot.next_event(&daemon) {
        let message = match event {
            Event::Message(ToSlot::Show(names), _) => {
                match names.iter().try_for_each(|name| slot.view.show(name)) {
                    Ok(()) => continue,
                    Err(error) => FromSlot::Failed(error.to_string()),
                }
            }
            Event::Message(ToSlot::Login(number), attached) => {
                log_in(&mut slot.guest, number, attached);
                continue;
            }
            Event::Message(ToSlot::EndLogin(number), _) => {
                slot.guest.end_login(number);
                continue;
            }
            Event::Message(ToSlot::ShowEnd, _) => FromSlot::Shown,
            Event::Message(ToSlot::Boot(_) | ToSlot::TryPasta(..), _) => {
                FromSlot::Failed("the slot is booted already".into())
            }
            Event::Stalled(late) => FromSlot::Stalled(late.as_millis() as u64),
            Event::GuestEnded(reason) => {
                // Nothing can be done in here any more: a slot that waits for its build must not be taken for one that can.
                let _ = rights::send(&daemon, &FromSlot::Failed(reason), &[]);
                return;
            }
        };
        if rights::send(&daemon, &message, &[]).is_err() {
            return;
        }
    }
}

fn log_in(guest: &mut Launched, number: u32, attached: Vec<OwnedFd>) {
    let Ok([connection, log]) = <[OwnedFd; 2]>::try_from(attached) else { return };
    guest.log_in(number, LoginStreams::new(connection, log));
}

/// A booted slot.
struct Slot {
    view: StoreView,
    children: SignalFd,
    ticker: Ticker,
    guest: Launched,
    /// Gives the slot its network, if it has one that needs that.
    pasta: Option<Pid>,
}

enum Event {
    Message(ToSlot, Vec<OwnedFd>),
    Stalled(Duration),
    GuestEnded(String),
}

fn boot(daemon: &UnixStream) -> Result<Option<Slot>, String> {
    let plan: BootPlan = match rights::receive(daemon).map_err(|error| error.to_string())? {
        Some((ToSlot::Boot(plan), _)) => *plan,
        Some((ToSlot::TryPasta(plan, host), _)) => return try_pasta(daemon, &plan, &host),
        Some(_) => return Err("the first message to a slot must be its plan".into()),
        None => return Ok(None),
    };
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    become_nobodys().map_err(|error| format!("failed to give up what the daemon has: {error}"))?;
    take_a_builders_chance_when_memory_runs_out(Path::new(OOM_SCORE))
        .map_err(|error| format!("failed to set the slot's OOM score: {error}"))?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block().map_err(|error| format!("failed to block signals: {error}"))?;
    let children = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|error| format!("failed to watch the slot's processes: {error}"))?;

    // Opened before the host's tree is gone.
    let mut log = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&plan.log)
        .map_err(|error| format!("failed to open {}: {error}", plan.log.display()))?;
    let pasta = match &plan.network {
        SlotNetwork::Loopback => {
            loopback::up()
                .map_err(|error| format!("failed to bring up the slot's loopback interface: {error}"))?;
            None
        }
        SlotNetwork::Host => None,
        SlotNetwork::Pasta(plan) => Some(pasta::enter(plan, &log).map_err(|error| error.to_string())?),
    };
    let store = root::enter(&plan).map_err(|error| error.to_string())?;
    // Before anything else runs, so that it is what was mounted there.
    let proc = open("/proc", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|error| format!("failed to open the slot's /proc: {error}"))?;
    let view = open(&plan.store, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|error| format!("failed to open the store view: {error}"))?;

    let socket = format!("{AGENT_DIR}/a");
    let listener =
        UnixListener::bind(&socket).map_err(|error| format!("failed to make the agent's socket: {error}"))?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666))
        .map_err(|error| format!("failed to open the agent's socket to the guest: {error}"))?;
    let mut launched =
        plan.guest.launch(&plan, &log).map_err(|error| format!("failed to start the guest: {error}"))?;
    let connections = accept_agent(&listener, daemon, &children, &mut launched);
    // The builder will have the agent's uid: it must find no socket that still accepts.
    let _ = std::fs::remove_file(&socket);
    let Some((control, tick, greeting)) = connections.map_err(|reason| {
        let _ = writeln!(log, "{reason}");
        reason
    })?
    else {
        return Ok(None);
    };
    rights::send(daemon, &FromSlot::Booted(greeting), &[control.as_fd(), proc.as_fd()])
        .map_err(|error| error.to_string())?;
    let ticker = Ticker::new(tick, plan.guest.ticks())
        .map_err(|error| format!("failed to start the slot's tick: {error}"))?;
    let pasta = pasta.map(|child| Pid::from_raw(child.id() as i32));
    Ok(Some(Slot { view: StoreView::new(store, view), children, ticker, guest: launched, pasta }))
}

/// Whether pasta can give a network that keeps the host out of reach is tried where it would: in a process that ends with the daemon's
/// socket.
fn try_pasta(
    daemon: &UnixStream,
    plan: &pasta::PastaPlan,
    host: &HostTargets,
) -> Result<Option<Slot>, String> {
    let (said, log) = std::io::pipe().map_err(|error| error.to_string())?;
    become_nobodys().map_err(|error| format!("failed to give up what the daemon has: {error}"))?;
    let log = std::fs::File::from(OwnedFd::from(log));
    if let Err(error) = pasta::enter(plan, &log) {
        drop(log);
        return Err(with_what_was_said(&error, said));
    }
    let reached = host
        .reached(pasta::INTERFACE)
        .map_err(|error| format!("failed to try what pasta's network reaches: {error}"))?;
    if let Some(reached) = reached {
        return Err(format!("pasta gives a network from which {reached} of this machine can be reached"));
    }
    rights::send(daemon, &FromSlot::Shown, &[]).map_err(|error| error.to_string())?;
    Ok(None)
}

/// An error of pasta's, with the last thing that it has printed, if it has. All that could still print is gone or killed.
fn with_what_was_said(error: &pasta::PastaError, said: impl Read) -> String {
    let mut printed = Vec::new();
    let _ = said.take(SAID_BYTES).read_to_end(&mut printed);
    let printed = String::from_utf8_lossy(&printed);
    match printed.lines().rfind(|line| !line.trim().is_empty()) {
        Some(last) => format!("{error}; it says: {}", last.trim().escape_debug()),
        None => error.to_string(),
    }
}

/// Gives up what a daemon has from whoever started it: his terminal, which `/dev/tty` would lead to, his keys, and rights that
/// nothing here uses.
fn become_nobodys() -> Result<(), Box<dyn std::error::Error>> {
    nix::unistd::setsid()?;
    keyring::join_new()?;
    Ok(capabilities::keep(&capabilities::KEPT)?)
}

/// The daemon may be one that the kernel is to spare; its builders are not.
fn take_a_builders_chance_when_memory_runs_out(score: &Path) -> std::io::Result<()> {
    match std::fs::read_to_string(score)?.starts_with('-') {
        true => std::fs::write(score, "0"),
        false => Ok(()),
    }
}

/// Waits for the agent's control connection and its tick connection; `None` if the daemon went away meanwhile.
fn accept_agent(
    listener: &UnixListener,
    daemon: &UnixStream,
    children: &SignalFd,
    launched: &mut Launched,
) -> Result<Option<(UnixStream, UnixStream, AgentGreeting)>, String> {
    let deadline = Instant::now() + BOOT_LIMIT;
    let mut control = None;
    let mut tick = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!(
                "the agent did not connect within {} s; {}",
                BOOT_LIMIT.as_secs(),
                launched.describe()
            ));
        }
        let mut watched: Vec<PollFd<'_>> = [listener.as_fd(), daemon.as_fd(), children.as_fd()]
            .into_iter()
            .chain(launched.watched())
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut watched, launched.patience(left)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(format!("failed to wait for the agent: {error}")),
        }
        let ready = |index: usize| watched[index].any().unwrap_or(false);
        let (listening, gone, reap) = (ready(0), ready(1), ready(2));
        drop(watched);
        if gone {
            return Ok(None);
        }
        if reap {
            let _ = children.read_signal();
            for (pid, status) in reap_all() {
                launched.ended(pid, &status)?;
            }
        }
        launched.proceed()?;
        if listening {
            let (connection, _) =
                listener.accept().map_err(|error| format!("failed to accept the agent: {error}"))?;
            match greet(&connection)? {
                (Channel::Control, greeting) => {
                    if let Ok(peer) = getsockopt(&connection, PeerCredentials) {
                        launched.agent_is(Pid::from_raw(peer.pid()));
                    }
                    control = Some((connection, greeting));
                }
                (Channel::Tick, _) => tick = Some(connection),
            }
        }
        (control, tick) = match (control, tick) {
            (Some((control, greeting)), Some(tick)) => return Ok(Some((control, tick, greeting))),
            not_yet => not_yet,
        };
    }
}

/// How long an agent may take to greet, however few bytes it sends at a time.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// Reads what comes until then.
struct Until<'a>(&'a UnixStream, Instant);

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.1.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        self.0.set_read_timeout(Some(left))?;
        match self.0.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(std::io::ErrorKind::TimedOut.into())
            }
            result => result,
        }
    }
}

/// Reads and answers the agent's greeting.
fn greet(mut connection: &UnixStream) -> Result<(Channel, AgentGreeting), String> {
    let failed = |error: &dyn std::fmt::Display| format!("failed to shake hands with the agent: {error}");
    let theirs: Hello = frame::read(&mut Until(connection, Instant::now() + GREETING_LIMIT))
        .map_err(|error| failed(&error))?
        .ok_or_else(|| failed(&"it closed the connection"))?;
    let ours = Hello::ours(theirs.channel, concat!("host-agent ", env!("CARGO_PKG_VERSION")));
    frame::write(&mut connection, &ours).map_err(|error| failed(&error))?;
    let agreed = ours.agree(&theirs).map_err(|error| failed(&error))?;
    connection.set_read_timeout(None).map_err(|error| failed(&error))?;
    let greeting =
        AgentGreeting { identity: theirs.identity, version: agreed.version, features: agreed.features };
    Ok((theirs.channel, greeting))
}

/// Every child that has ended.
fn reap_all() -> Vec<(Pid, WaitStatus)> {
    let mut ended = Vec::new();
    while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
        match status.pid() {
            Some(pid) => ended.push((pid, status)),
            None => break,
        }
    }
    ended
}

impl Slot {
    /// The next thing to act on; `None` when the daemon has gone.
    fn next_event(&mut self, daemon: &UnixStream) -> Option<Event> {
        loop {
            let [mut daemon_ready, mut tick_ready, mut reap, mut guest_ready] = [false; 4];
            {
                // A guest that closed its tick connection is reported as ready for ever; the daemon learns of its end
                // through the control connection.
                let tick = match self.ticker.is_open() {
                    true => vec![self.ticker.timer(), self.ticker.connection()],
                    false => Vec::new(),
                };
                let ticks = tick.len();
                let mut polled: Vec<PollFd<'_>> = [daemon.as_fd(), self.children.as_fd()]
                    .into_iter()
                    .chain(tick)
                    .chain(self.guest.watched())
                    .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                    .collect();
                match poll(&mut polled, PollTimeout::NONE) {
                    Ok(_) => {
                        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
                        daemon_ready = ready(&polled[0]);
                        reap = ready(&polled[1]);
                        tick_ready = polled[2..2 + ticks].iter().any(ready);
                        guest_ready = polled[2 + ticks..].iter().any(ready);
                    }
                    Err(Errno::EINTR) => {}
                    Err(_) => return None,
                }
            }
            if guest_ready && let Err(reason) = self.guest.proceed() {
                return Some(Event::GuestEnded(reason));
            }
            if reap {
                let _ = self.children.read_signal();
                for (pid, status) in reap_all() {
                    if self.pasta == Some(pid) {
                        let reason =
                            format!("pasta, which gave the slot its network, has ended ({status:?})");
                        return Some(Event::GuestEnded(reason));
                    }
                    if let Err(reason) = self.guest.ended(pid, &status) {
                        return Some(Event::GuestEnded(reason));
                    }
                }
            }
            if tick_ready && let Some(trouble) = self.ticker.proceed() {
                return Some(match trouble {
                    Trouble::Late(late) => Event::Stalled(late),
                    Trouble::MadeUp => {
                        Event::GuestEnded("the agent answered ticks that were never sent".into())
                    }
                });
            }
            if daemon_ready {
                return match rights::receive(daemon) {
                    Ok(Some((message, attached))) => Some(Event::Message(message, attached)),
                    Ok(None) | Err(_) => None,
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pasta_says_last_stands_behind_how_it_ended() {
        let ended = pasta::PastaError::Ended("exit status: 1".into());
        let text = with_what_was_said(&ended, &b"No IPv6\nFailed to open \x1b /dev/net/tun\n\n"[..]);
        assert!(text.ends_with("; it says: Failed to open \\u{1b} /dev/net/tun"), "{text}");
        assert_eq!(with_what_was_said(&ended, &b""[..]), ended.to_string());
    }

    #[test]
    fn a_slot_gives_up_the_daemons_protection_and_keeps_a_worse_score() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (before, after) in [("-500\n", "0"), ("0\n", "0\n"), ("300\n", "300\n")] {
            std::fs::write(file.path(), before).unwrap();
            take_a_builders_chance_when_memory_runs_out(file.path()).unwrap();
            assert_eq!(std::fs::read_to_string(file.path()).unwrap(), after);
        }
    }
}
