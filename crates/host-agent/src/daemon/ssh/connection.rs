//! One connection: let in, served by an `sshd` of its own, and gone.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::super::Daemon;
use super::super::pump::stopping;
use super::Ssh;
use super::gate::Pass;
use super::log_lines::LogLines;
use super::prefix::Running;
use crate::ssh::login::{GRACE_SECONDS, logged_in};

/// For an `sshd` whose connection has ended, until it is killed; and for a connection whose `sshd` has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Until the death of a slot is told after what it has taken along.
const TOLD_SOON: Duration = Duration::from_millis(300);

/// Lines of one `sshd` that are logged.
const LOGGED_MAX: u32 = 100;

/// Serves it to its end.
pub(super) async fn serve(ssh: &Ssh, daemon: &Daemon, mut stream: TcpStream, number: u32) {
    let _ = stream.set_nodelay(true);
    let pass = match ssh.gate.enter(Instant::now()) {
        Ok(pass) => pass,
        Err(full) => return turn_away(stream, number, full.as_str()).await,
    };
    let mut mode = daemon.mode.subscribe();
    let grace = sleep(Duration::from_secs(GRACE_SECONDS));
    tokio::pin!(grace);
    let opened = tokio::select! {
        opened = open(ssh, daemon, &pass, number) => opened,
        () = pass.asked_to_leave() => Err(MAKES_ROOM.into()),
        () = &mut grace => Err(too_slow()),
        () = stopping(&mut mode) => return,
    };
    let (mut connection, running) = match opened {
        Ok(opened) => opened,
        Err(reason) => return turn_away(stream, number, &reason).await,
    };
    let relayed = tokio::select! {
        end = connection.relay(&mut stream, &pass, grace) => end,
        reason = running.died() => reason,
        () = stopping(&mut mode) => "the daemon was stopped".into(),
    };
    info!(connection = number, user = connection.user, end = relayed, "ssh connection ended");
    drop(stream);
    connection.end(&running).await;
}

const MAKES_ROOM: &str = "had not logged in when others wanted to";

fn too_slow() -> String {
    format!("had not logged in after {GRACE_SECONDS} s")
}

/// Tells the client why, which may be said before the protocol begins (RFC 4253, 4.2) and is shown by `ssh -v`.
async fn turn_away(mut stream: TcpStream, number: u32, reason: &str) {
    info!(connection = number, reason, "ssh connection turned away");
    let line: String = reason.lines().next().unwrap_or_default().chars().take(200).collect();
    let _ = timeout(LAST_WORDS, stream.write_all(format!("darling-builder: {line}\r\n").as_bytes())).await;
}

/// A connection whose `sshd` has begun to speak. A slot that dies before that is as good as none: there is another one.
async fn open(
    ssh: &Ssh,
    daemon: &Daemon,
    pass: &Pass,
    number: u32,
) -> Result<(Connection, Arc<Running>), String> {
    let mut retried = false;
    loop {
        let running = ssh.prefix.get(&daemon.pool, &daemon.registry, pass.is_alone()).await?;
        let mut connection = Connection::start(&running, daemon, number).await?;
        match connection.hear().await {
            Ok(()) => return Ok((connection, running)),
            Err(_) if !retried && timeout(TOLD_SOON, running.died()).await.is_ok() => retried = true,
            Err(reason) => {
                connection.end(&running).await;
                return Err(reason);
            }
        }
    }
}

struct Connection {
    number: u32,
    guest: UnixStream,
    /// What `sshd` has said and the client has not been told yet.
    heard: Vec<u8>,
    log: LogLines<UnixStream>,
    user: Option<String>,
}

impl Connection {
    async fn start(running: &Running, daemon: &Daemon, number: u32) -> Result<Self, String> {
        let failed = |error: io::Error| format!("failed to make a connection's descriptors: {error}");
        // A Unix socket: Darling's sshd refuses TCP connections, see `guest::darling`.
        let (guest, theirs) = pair().map_err(failed)?;
        let (log, their_log) = pair().map_err(failed)?;
        running.log_in(&daemon.pool, number, theirs.as_fd(), their_log.as_fd()).await?;
        Ok(Self { number, guest, heard: Vec::new(), log: LogLines::new(log), user: None })
    }

    /// Waits until `sshd` has said something, which it does first; else the last line of its log is the reason.
    async fn hear(&mut self) -> Result<(), String> {
        match self.guest.read_buf(&mut self.heard).await {
            Ok(0) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(format!("failed to hear sshd: {error}")),
        }
        let mut last = None;
        let log = &mut self.log;
        let number = self.number;
        let read = async {
            while let Ok(Some(line)) = log.next().await {
                debug!(connection = number, "sshd: {line}");
                last = Some(line);
            }
        };
        let _ = timeout(TOLD_SOON, read).await;
        Err(last.unwrap_or_else(|| "sshd ended at once".into()))
    }

    /// Relays until one of the ends, or its time, has come; returns which.
    async fn relay(
        &mut self,
        stream: &mut TcpStream,
        pass: &Pass,
        mut grace: std::pin::Pin<&mut tokio::time::Sleep>,
    ) -> String {
        let relayed = relay_bytes(stream, &mut self.guest, &self.heard);
        tokio::pin!(relayed);
        let mut lines = 0;
        let mut last = String::new();
        loop {
            tokio::select! {
                line = self.log.next() => match line {
                    Ok(Some(line)) => {
                        lines += 1;
                        if lines <= LOGGED_MAX {
                            debug!(connection = self.number, "sshd: {line}");
                        }
                        if self.user.is_none() && let Some(user) = logged_in(&line) {
                            info!(connection = self.number, user, "ssh login");
                            self.user = Some(user.to_owned());
                            if let Err(full) = pass.authenticated(user, Instant::now()) {
                                return full.as_str().into();
                            }
                        }
                        last = line;
                    }
                    Ok(None) | Err(_) => {
                        // What it has said last is still on its way.
                        let _ = timeout(LAST_WORDS, relayed).await;
                        return if last.is_empty() { "sshd ended".into() } else { format!("sshd ended: {last}") };
                    }
                },
                ended = &mut relayed => return ended.into(),
                () = pass.asked_to_leave(), if self.user.is_none() => return MAKES_ROOM.into(),
                () = &mut grace, if self.user.is_none() => return too_slow(),
            }
        }
    }

    /// Sees to it that nothing is left of it. Whoever has logged in gets a moment to end.
    async fn end(self, running: &Running) {
        let Self { number, guest, mut log, user, .. } = self;
        // The guest's end of it closes with this.
        drop(guest);
        if user.is_some() {
            let _ = timeout(LAST_WORDS, async { while let Ok(Some(_)) = log.next().await {} }).await;
        }
        running.end_login(number);
    }
}

/// One end for this program, and one for the guest.
fn pair() -> io::Result<(UnixStream, net::UnixStream)> {
    let (ours, theirs) = net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs))
}

/// Relays until one side has closed and the other has had time to do so too; says which was first.
async fn relay_bytes(client: &mut TcpStream, guest: &mut UnixStream, heard: &[u8]) -> &'static str {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_guest, mut to_guest) = guest.split();
    let inward = async {
        let _ = copy(&mut from_client, &mut to_guest).await;
        let _ = to_guest.shutdown().await;
        sleep(LAST_WORDS).await;
    };
    let outward = async {
        if to_client.write_all(heard).await.is_ok() {
            let _ = copy(&mut from_guest, &mut to_client).await;
        }
        let _ = to_client.shutdown().await;
    };
    tokio::select! {
        () = inward => "closed by the client",
        () = outward => {
            // What is unread when a TCP connection closes would cost the client the last that was sent to it.
            let _ = timeout(LAST_WORDS, copy(&mut from_client, &mut sink())).await;
            "closed"
        }
    }
}
