//! The daemon: who may ask, which build runs when, what limits it.
//!
//! One a machine, as root. All that it holds of a build is a [`BuildRequest`](crate::request::BuildRequest) and the
//! connection it came by; when the connection ends, so does the build. Its state is in memory: after a crash there is
//! nothing to resume, only directories to clean up, and slots have died with the daemon's sockets.
//!
//! Any local user can connect, and those who may ask need not mean well. Each is judged at the `door` before it takes
//! anything; what uids take from each other is counted in `shares`; `session` and `places` have the deadlines of everything
//! that the daemon waits for.

mod admission;
mod agent;
mod build;
mod door;
mod given_directory;
mod inside;
mod listener;
mod outgoing;
mod outputs;
mod peer;
mod places;
mod pool;
mod pump;
mod readiness;
mod registry;
mod rights_of;
mod session;
mod shares;
mod shell;
mod ssh;
mod unread;

use std::path::Path;
use std::sync::Arc;

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::Config;
use crate::control::message::REQUESTS_MAX;
use crate::guest::{GuestError, GuestPlan};
use crate::slot::directory::{self, DirectoryError, StateDirectory};
use crate::slot::uid_range::UidRangeError;
use crate::slot::uids::Uids;
use door::Door;
use listener::ListenError;
use places::Places;
use pool::Pool;
use registry::Registry;
use shares::Shares;
use ssh::{Ssh, SshError};

/// Why the daemon can't run.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// Not root.
    #[error("failed to start: the daemon makes namespaces and mounts and must run as root")]
    NotRoot,
    /// Its directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Its slots' uids.
    #[error(transparent)]
    Uids(#[from] UidRangeError),
    /// Its guest.
    #[error("failed to prepare the guest: {0}")]
    Guest(#[from] GuestError),
    /// Its socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system.
    #[error("failed to {step}: {error}")]
    System {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// Nobody could log in.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The first slot did not boot, so no other will.
    #[error("failed to boot a first slot: {0}")]
    FirstSlot(String),
}

/// What the daemon is doing about its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing.
    Running,
    /// Finishing what runs, taking nothing new.
    Draining,
    /// Ending now.
    Stopping,
}

/// What all parts share.
#[derive(Debug)]
pub(crate) struct Daemon {
    config: Config,
    state: Arc<StateDirectory>,
    pool: Pool,
    door: Door,
    places: Places,
    /// Bytes of requests of all peers but root.
    requests: Shares,
    registry: Arc<Registry>,
    /// Of those who ask for the status.
    status_turn: tokio::sync::Mutex<()>,
    ssh: Option<Arc<Ssh>>,
    mode: watch::Sender<Mode>,
}

/// Runs until SIGTERM or SIGINT (stops at once), or SIGUSR1 and the end of the last build (drains).
pub fn run(config: Config) -> Result<(), DaemonError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(DaemonError::NotRoot);
    }
    let descriptors = raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| DaemonError::System { step: "start the runtime", error })?;
    let result = runtime.block_on(serve(config, descriptors));
    // Blocking tasks are short, but a slot that can't be ended (a process in uninterruptible sleep) must not hold up ours.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    result
}

async fn serve(config: Config, descriptors: usize) -> Result<(), DaemonError> {
    // Before anything is made, so that a signal at any moment is an orderly end.
    let step = |step| move |error| DaemonError::System { step, error };
    let mut terminate = signal(SignalKind::terminate()).map_err(step("watch for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(step("watch for SIGINT"))?;
    let mut drain = signal(SignalKind::user_defined1()).map_err(step("watch for SIGUSR1"))?;

    let guest = GuestPlan::new(&config)?;
    let state = Arc::new(StateDirectory::open(&config.state_directory)?);
    remove_leftovers(&state);
    if !state.shares_file_system_with(&config.store_directory) {
        warn!(
            "{} and {} are on different file systems: every output will be copied; set `state-directory`",
            config.state_directory.display(),
            config.store_directory.display()
        );
    }
    let (ssh, ssh_listener) = Ssh::open(&config).await?.unzip();
    let (mode, _) = watch::channel(Mode::Running);
    let registry = Arc::new(Registry::new());
    let uids = Uids::of_daemon(&config)?;
    let pool = Pool::new(config.clone(), Arc::clone(&state), guest, uids, Arc::clone(&registry));
    pool.prove().await.map_err(|error| DaemonError::FirstSlot(error.to_string()))?;
    let listener = listener::Listener::open(&config.socket)?;
    let daemon = Arc::new(Daemon {
        door: Door::new(&config, descriptors),
        places: Places::new(config.jobs(), config.queue_limit),
        requests: Shares::new(REQUESTS_MAX, REQUESTS_MAX),
        config,
        state,
        pool,
        registry,
        status_turn: tokio::sync::Mutex::default(),
        ssh,
        mode,
    });
    let keeper = tokio::spawn(Arc::clone(&daemon).keep_warm());
    let accepting = tokio::spawn(listener.serve(Arc::clone(&daemon)));
    let logins = daemon.ssh.clone().zip(ssh_listener);
    let logins = logins.map(|(ssh, listener)| tokio::spawn(ssh.serve(listener, Arc::clone(&daemon))));
    readiness::notify(&format!("READY=1\nSTATUS=idle, {} jobs", daemon.config.jobs()));
    info!(
        socket = %daemon.config.socket.display(),
        guest = daemon.config.guest.as_str(),
        jobs = daemon.config.jobs(),
        warm = daemon.config.warm(),
        "ready"
    );

    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: stopping"),
        _ = interrupt.recv() => info!("SIGINT: stopping"),
        _ = drain.recv() => {
            info!("SIGUSR1: finishing what runs, taking nothing new");
            readiness::notify("STATUS=draining");
            daemon.mode.send_replace(Mode::Draining);
            daemon.places.close();
            tokio::select! {
                () = daemon.places.idle() => info!("drained"),
                _ = terminate.recv() => info!("SIGTERM: stopping"),
                _ = interrupt.recv() => info!("SIGINT: stopping"),
            }
        }
    }
    readiness::notify("STOPPING=1");
    daemon.mode.send_replace(Mode::Stopping);
    accepting.abort();
    keeper.abort();
    if let Some(logins) = logins {
        logins.abort();
    }
    // Running builds tell their front ends why they end, and take their slots down.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(10), daemon.places.idle()).await;
    daemon.pool.empty().await;
    if let Some(ssh) = &daemon.ssh {
        ssh.stop(&daemon).await;
    }
    remove_leftovers(&daemon.state);
    listener::remove_socket(&daemon.config.socket);
    info!("stopped");
    Ok(())
}

impl Daemon {
    async fn keep_warm(self: Arc<Self>) {
        self.pool.keep_warm(self.config.warm() as usize).await;
    }
}

fn remove_leftovers(state: &StateDirectory) {
    for path in state.leftovers() {
        remove_directory(&path);
    }
}

/// Removes what a slot or its results have left; what can't be removed is said, and tried again at the next start.
fn remove_directory(path: &Path) {
    if let Err(error) = directory::remove(path) {
        warn!(path = %path.display(), %error, "failed to remove a directory");
    }
}

/// Sockets, pipes and pidfds of many builds: the soft limit of 1024 is too low. Returns how many descriptors there may be.
fn raise_file_limit() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(1 << 16), hard);
    }
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft as usize)
}
