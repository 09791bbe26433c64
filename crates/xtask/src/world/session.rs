//! Nix in a world: commands as whoever builds there, and what they say of the store.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::daemon::{self, HostDaemon};
use super::limited::{self, Finished, Running, wait_until};
use super::{FrontEnd, Mode, PROJECT, World, accounts};

/// Most time for one Nix command, unless a test says otherwise.
pub const LIMIT: Duration = Duration::from_secs(90);

const NIX_DAEMON_SOCKET: &str = "/nix/var/nix/daemon-socket/socket";

/// A world with Nix set up in it and our daemon running.
#[derive(Debug)]
pub struct Session {
    /// The world.
    pub world: World,
    /// Our daemon; tests that kill it put another one here.
    pub daemon: Option<HostDaemon>,
    nix_daemon: Option<Running>,
}

/// What to build and how.
#[derive(Debug, Clone)]
pub struct Build {
    file: String,
    attributes: Vec<String>,
    arguments: Vec<String>,
    limit: Duration,
}

/// A build that has ended.
#[derive(Debug)]
pub struct Built {
    /// nix-build itself.
    pub finished: Finished,
    /// The output paths that it printed.
    pub outputs: Vec<PathBuf>,
}

impl Build {
    /// `attribute` of the fixture file `file`.
    pub fn of(file: &str, attribute: &str) -> Self {
        Self::at(&Path::new(PROJECT).join("fixtures").join(file), attribute)
    }

    /// `attribute` of any file.
    pub fn at(file: &Path, attribute: &str) -> Self {
        Self {
            file: file.display().to_string(),
            attributes: vec![attribute.into()],
            arguments: Vec::new(),
            limit: LIMIT,
        }
    }

    /// The fixture file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// One more attribute of the same file.
    #[must_use]
    pub fn and(mut self, attribute: &str) -> Self {
        self.attributes.push(attribute.into());
        self
    }

    /// More arguments for nix-build.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// `nix-build` of it, given one without arguments.
    pub fn command(&self, nix_build: Command) -> Command {
        let mut command = self.instantiation(nix_build);
        command.arg("--no-out-link");
        command
    }

    /// `nix-instantiate` of it, given one without arguments.
    pub fn instantiation(&self, mut nix_instantiate: Command) -> Command {
        nix_instantiate.arg(&self.file);
        for attribute in &self.attributes {
            nix_instantiate.args(["-A", attribute]);
        }
        nix_instantiate.args(&self.arguments);
        nix_instantiate
    }

    /// May take this long.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

impl Session {
    /// Sets up Nix.
    pub fn new(world: World) -> Result<Self> {
        daemon::configure(&world, "")?;
        std::fs::create_dir_all("/run/nix-conf")?;
        let session = Self { world, daemon: None, nix_daemon: None };
        let init = session.run_as_root("nix-store", &["--init"])?;
        ensure!(init.status.success(), "nix-store --init failed: {}", String::from_utf8_lossy(&init.stderr));
        Ok(session)
    }

    /// Starts our daemon, which prints on our standard error if it is to be `visible`, and Nix's, if the mode asks
    /// for one.
    pub fn start_daemons(&mut self, visible: bool) -> Result<()> {
        self.daemon = Some(HostDaemon::start(&self.world, visible)?);
        self.resume_nix_daemon()
    }

    /// Starts Nix's daemon as the mode has it, if it has one.
    pub fn resume_nix_daemon(&mut self) -> Result<()> {
        match self.world.mode {
            Mode::SingleUser => Ok(()),
            Mode::Daemon => self.start_nix_daemon(&mut self.root_command("nix-daemon")),
        }
    }

    /// Ends Nix's daemon, for tests that start another one.
    pub fn stop_nix_daemon(&mut self) {
        self.nix_daemon = None;
    }

    /// Starts Nix's daemon by this command, and waits until it listens.
    pub fn start_nix_daemon(&mut self, command: &mut Command) -> Result<()> {
        // One that was killed leaves its socket behind.
        let _ = std::fs::remove_file(NIX_DAEMON_SOCKET);
        let mut running = limited::start(command)?;
        let listening = wait_until(Duration::from_secs(20), || {
            if !running.is_running()? {
                bail!("nix-daemon ended: {}", String::from_utf8_lossy(&running.stderr_so_far()?));
            }
            Ok(std::os::unix::net::UnixStream::connect(NIX_DAEMON_SOCKET).is_ok())
        })?;
        ensure!(listening, "nix-daemon does not listen");
        self.nix_daemon = Some(running);
        Ok(())
    }

    /// Replaces our daemon by one with these configuration lines besides the usual ones.
    pub fn restart_daemon(&mut self, lines: &str) -> Result<()> {
        if let Some(old) = self.daemon.take() {
            old.stop()?;
        }
        daemon::configure(&self.world, lines)?;
        self.daemon = Some(HostDaemon::start(&self.world, false)?);
        Ok(())
    }

    /// Ends both daemons; ours must end well.
    pub fn close(&mut self) -> Result<()> {
        self.nix_daemon = None;
        if let Some(daemon) = self.daemon.take() {
            let status = daemon.stop()?;
            ensure!(status.success(), "the daemon ended with {status}:\n{}", daemon::log_tail());
        }
        Ok(())
    }

    /// Whether the version of Nix is at least this.
    pub fn nix_at_least(&self, major: u32, minor: u32) -> bool {
        let mut parts = self.world.nix.split('.').map_while(|part| part.parse::<u32>().ok());
        (parts.next(), parts.next()) >= (Some(major), Some(minor))
    }

    /// The configuration of the Nix that builds, if it comes to us by this way.
    pub fn nix_config(&self, front_end: FrontEnd) -> String {
        let group = match self.world.mode {
            Mode::SingleUser => "",
            Mode::Daemon => "nixbld",
        };
        let way_in = match front_end {
            FrontEnd::Hook => {
                format!("build-hook = {}\nexperimental-features = nix-command\n", daemon::HOOK)
            }
            FrontEnd::ExternalBuilder => self.external_builders(),
        };
        format!(
            "{way_in}build-users-group = {group}\nsandbox = false\nsubstituters =\nmax-jobs = 2\ncores = 2\n"
        )
    }

    /// Settings with which Nix hands builds over, and asks no hook, not even its own.
    fn external_builders(&self) -> String {
        let builder = serde_json::json!([{
            "systems": ["x86_64-darwin"],
            "program": daemon::program(&self.world),
            "args": ["external-builder", "--config", daemon::CONFIG],
        }]);
        format!(
            "build-hook =\nexternal-builders = {builder}\nexperimental-features = nix-command external-builders\n"
        )
    }

    /// A Nix command as root on the local store.
    pub fn root_command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("NIX_CONFIG", self.nix_config(self.world.front_end))
            .env("NIX_CONF_DIR", "/run/nix-conf")
            .env("DARLING_BUILDER_CONFIG", daemon::CONFIG);
        command
    }

    /// A Nix command as whoever builds in this world.
    pub fn command(&self, program: &str) -> Command {
        match self.world.mode {
            Mode::SingleUser => self.root_command(program),
            Mode::Daemon => {
                let mut command = Command::new(program);
                command
                    .env("NIX_REMOTE", "daemon")
                    .env("NIX_CONF_DIR", "/run/nix-conf")
                    .env("NIX_CONFIG", "experimental-features = nix-command\n")
                    .env("HOME", accounts::USER_HOME)
                    .current_dir(accounts::USER_HOME)
                    .uid(accounts::USER_UID)
                    .gid(accounts::USER_UID);
                command
            }
        }
    }

    fn run_as_root(&self, program: &str, arguments: &[&str]) -> Result<Finished> {
        limited::run(self.root_command(program).args(arguments), LIMIT)
    }

    /// nix-build, not yet started.
    pub fn build_command(&self, build: &Build) -> Command {
        build.command(self.command("nix-build"))
    }

    /// Builds and waits.
    pub fn build(&self, build: &Build) -> Result<Built> {
        let finished = limited::run(&mut self.build_command(build), build.limit)?;
        Ok(Built::from(finished))
    }

    /// The derivation that a build would build.
    pub fn instantiate(&self, build: &Build) -> Result<PathBuf> {
        let mut command = build.instantiation(self.command("nix-instantiate"));
        let finished = limited::run(&mut command, LIMIT)?.must_succeed()?;
        let text = String::from_utf8(finished.stdout)?;
        Ok(PathBuf::from(text.lines().next().context("no derivation")?))
    }

    /// Lines that `nix-store` prints for these arguments.
    pub fn query(&self, arguments: &[&str], path: &Path) -> Result<Vec<String>> {
        let mut command = self.command("nix-store");
        let finished = limited::run(command.args(arguments).arg(path), LIMIT)?.must_succeed()?;
        Ok(String::from_utf8_lossy(&finished.stdout).lines().map(str::to_owned).collect())
    }

    /// The stored log of a derivation.
    pub fn log(&self, derivation: &Path) -> Result<Vec<u8>> {
        let mut command = self.command("nix-store");
        // nix-store pages to a terminal only.
        Ok(limited::run(command.arg("-l").arg(derivation), LIMIT)?.must_succeed()?.stdout)
    }

    /// Whether a path is valid and its contents are what the database says.
    pub fn verify(&self, path: &Path) -> Result<()> {
        let mut command = self.root_command("nix-store");
        limited::run(command.arg("--verify-path").arg(path), LIMIT)?.must_succeed()?;
        Ok(())
    }
}

impl From<Finished> for Built {
    fn from(finished: Finished) -> Self {
        let text = String::from_utf8_lossy(&finished.stdout);
        let outputs =
            text.lines().filter(|line| line.starts_with("/nix/store/")).map(PathBuf::from).collect();
        Self { finished, outputs }
    }
}

impl Finished {
    /// An error with all that was printed, unless it succeeded.
    pub fn must_succeed(self) -> Result<Self> {
        if self.status.success() && !self.timed_out {
            return Ok(self);
        }
        bail!("{}", self.describe())
    }

    /// What was run, how it ended and the end of what it printed.
    pub fn describe(&self) -> String {
        let how = if self.timed_out { "killed: took too long".into() } else { self.status.to_string() };
        let tail = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(6000)..]).into_owned();
            let lines: Vec<_> = text.lines().map(|line| format!("    {line}")).collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        };
        format!(
            "{} ({how} after {:.2} s)\n  stdout:\n{}\n  stderr:\n{}",
            self.command,
            self.wall.as_secs_f64(),
            tail(&self.stdout),
            tail(&self.stderr)
        )
    }
}

impl Built {
    /// An error with all that was printed, unless it succeeded.
    pub fn succeeds(self) -> Result<Self> {
        Ok(Self { finished: self.finished.must_succeed()?, outputs: self.outputs })
    }

    /// The only output, or the first.
    pub fn output(&self) -> Result<&Path> {
        Ok(self
            .outputs
            .first()
            .with_context(|| format!("no output path in: {}", self.finished.describe()))?)
    }

    /// An error unless it failed with this exit status.
    pub fn fails_with(self, status: i32) -> Result<Self> {
        ensure!(
            self.finished.status.code() == Some(status) && !self.finished.timed_out,
            "expected exit status {status}, but: {}",
            self.finished.describe()
        );
        Ok(self)
    }

    /// An error unless it failed in whatever way by itself.
    pub fn fails(self) -> Result<Self> {
        ensure!(
            self.finished.status.code().is_some_and(|code| code != 0) && !self.finished.timed_out,
            "expected a failure, but: {}",
            self.finished.describe()
        );
        Ok(self)
    }

    /// An error unless standard error contains `text`.
    pub fn says(self, text: &str) -> Result<Self> {
        let stderr = String::from_utf8_lossy(&self.finished.stderr);
        ensure!(stderr.contains(text), "expected {text:?} in: {}", self.finished.describe());
        Ok(self)
    }
}
