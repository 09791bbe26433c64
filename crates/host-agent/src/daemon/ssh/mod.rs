//! Logging in over ssh: a listener on 127.0.0.1, one long-lived slot behind it, an `sshd` for each connection.
//!
//! The daemon relays bytes and understands none of them. What it knows of a connection is what that connection's `sshd` logs:
//! who has logged in, and when it ends. Keys are `sshd`'s matter; how many may try, and for how long, is decided here,
//! where no fault of a guest's timers can put it off.

mod connection;
mod gate;
mod log_lines;
mod prefix;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tracing::{info, warn};

use super::{Daemon, Mode};
use crate::config::Config;
use crate::control::message::SshStatus;
use crate::ssh::keys::{KeyError, KeyFiles};
use gate::Gate;
use prefix::Prefix;

/// Why nobody can log in.
#[derive(Debug, Error)]
pub enum SshError {
    /// No keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// No listener.
    #[error("failed to listen on {address} for ssh: {error}; choose another `ssh.port`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}

/// What can be logged in to.
#[derive(Debug)]
pub(super) struct Ssh {
    port: u16,
    gate: Gate,
    prefix: Arc<Prefix>,
}

impl Ssh {
    /// Reads or makes the keys and listens, if that is configured.
    pub(super) async fn open(config: &Config) -> Result<Option<(Arc<Self>, TcpListener)>, SshError> {
        if !config.ssh.enable {
            return Ok(None);
        }
        let port = config.ssh.port.get();
        let files = KeyFiles::new(&config.ssh, &config.state_directory);
        let login = files.open(port)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener =
            TcpListener::bind(address).await.map_err(|error| SshError::Listen { address, error })?;
        info!(%address, key = %files.client.display(), "ssh");
        let ssh = Self {
            port,
            gate: Gate::new(config.ssh.max_unauthenticated.get(), config.ssh.max_sessions.get()),
            prefix: Arc::new(Prefix::new(login)),
        };
        Ok(Some((Arc::new(ssh), listener)))
    }

    /// Accepts until aborted, or until the daemon takes nothing new.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, daemon: Arc<Daemon>) {
        let mut mode = daemon.mode.subscribe();
        let mut number = 0;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = mode.wait_for(|mode| *mode != Mode::Running) => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    number += 1;
                    let (ssh, daemon) = (Arc::clone(&self), Arc::clone(&daemon));
                    tokio::spawn(async move { connection::serve(&ssh, &daemon, stream, number).await });
                }
                Err(error) => {
                    warn!(%error, "failed to accept an ssh connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Ends all sessions and the slot that they are in.
    pub(super) async fn stop(&self, daemon: &Daemon) {
        self.prefix.stop(&daemon.pool, "the daemon was stopped").await;
    }

    pub(super) fn status(&self) -> SshStatus {
        let (unauthenticated, sessions) = self.gate.inside();
        SshStatus { port: self.port, slot: self.prefix.slot(), unauthenticated, sessions }
    }
}
