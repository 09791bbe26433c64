//! The configuration file (TOML), read by the daemon and by the front ends; unknown keys are errors.
//!
//! Found by `--config`, else the environment variable [`CONFIG_ENV`], else [`DEFAULT_PATH`] if that exists, else the
//! defaults. An unreadable or wrong file is always an error, never silently the defaults.

use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use crate::request::BuildLimits;
use crate::slot::confinement::Confinement;
use crate::slot::uids::NOT_THE_DAEMONS;
use crate::ssh::settings::SshConfig;

/// Where the configuration is by default.
pub const DEFAULT_PATH: &str = "/etc/darling-builder/config.toml";

/// Environment variable that names the configuration file; a hook can't be given arguments by every Nix.
pub const CONFIG_ENV: &str = "DARLING_BUILDER_CONFIG";

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Unix socket between front ends and daemon; at most 107 bytes.
    pub socket: PathBuf,
    /// Systems that builds are taken for.
    pub systems: Vec<String>,
    /// What runs inside a slot.
    pub guest: GuestKind,
    /// Builds at once; by default one per two cores and per 2 GiB of memory, whichever is fewer, at least one.
    pub max_jobs: Option<NonZeroU32>,
    /// Booted, idle slots kept ready; by default as many as builds may run at once, at most two.
    pub warm_slots: Option<u32>,
    /// Seconds without a build after which spare slots are dropped; the next build boots its own. 0 keeps them.
    pub idle_timeout_seconds: u64,
    /// Whether a build whose slot stalled (time stands still inside) is run once more, in a fresh one.
    pub retry_stalled: bool,
    /// Builds that may wait beyond those that run; more are postponed (Nix asks again after five seconds).
    pub queue_limit: u32,
    /// The daemon's directory: slots with their build directories and outputs, kept build directories. On the store's
    /// file system, so that an output leaves by a rename.
    pub state_directory: PathBuf,
    /// The store.
    pub store_directory: PathBuf,
    /// System features offered; a derivation that requires others is refused.
    pub supported_features: Vec<String>,
    /// System features of which a derivation must require at least these.
    pub mandatory_features: Vec<String>,
    /// Weight among the machines of `nix.buildMachines`, for `machine-spec`.
    pub speed_factor: NonZeroU32,
    /// Members of this group may ask for builds, besides root.
    pub build_group: String,
    /// Uids that may ask for builds, besides root and the build group.
    pub allowed_uids: Vec<u32>,
    /// First uid of slots.
    pub uid_base: u32,
    /// Uids from there on that are slots'; none may be an account's. They are used in rotation.
    pub uid_count: u32,
    /// Whether builders can make user namespaces, in which each is root.
    pub allow_user_namespaces: bool,
    /// What fixed-output builds have for a network.
    pub fixed_output_network: FixedOutputNetwork,
    /// pasta(1), which gives them one of their own; by default the first on `PATH`.
    pub pasta: Option<PathBuf>,
    /// The agent for the configured guest; by default beside this program, else in `../libexec/darling-builder`.
    pub agent: Option<PathBuf>,
    /// Limits of every build.
    pub limits: LimitsConfig,
    /// What only the external builder asks for.
    pub external_builder: ExternalBuilderConfig,
    /// What only the `darling` guest has.
    pub darling: DarlingConfig,
    /// Logging in to a guest.
    pub ssh: SshConfig,
}

/// What runs inside a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestKind {
    /// Darling, found by `darling.launcher`, else on `PATH`.
    Darling,
    /// The stand-in: Linux builders that merely say `x86_64-darwin`; for tests and demonstrations.
    Linux,
}

/// What fixed-output builds have for a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FixedOutputNetwork {
    /// As `Pasta` where that is installed and works, else as `Host`.
    Auto,
    /// One of their own, which pasta(1) joins to the host's.
    Pasta,
    /// The host's.
    Host,
}

impl GuestKind {
    /// As written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            GuestKind::Darling => "darling",
            GuestKind::Linux => "linux",
        }
    }
}

/// Limits of every build; 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LimitsConfig {
    /// Seconds a builder may run.
    pub wall_seconds: u64,
    /// Seconds a builder may be silent.
    pub silence_seconds: u64,
    /// Bytes a builder may print.
    pub log_bytes: u64,
    /// Bytes (NAR size) that the outputs of one derivation may have together.
    pub output_bytes: u64,
    /// Size of a slot's `/tmp`, and of a Darling prefix, bytes each.
    pub tmpfs_bytes: u64,
    /// Processes and threads that a slot may have at once; by default 64 a core, and 4096 at least.
    pub processes: Option<u64>,
}

/// What the external builder does when the daemon can't take its build: Nix has begun that build already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExternalBuilderConfig {
    /// As many builds run and wait as may.
    pub when_busy: WhenUnavailable,
    /// Seconds to wait then; 0 is without end.
    pub busy_wait_seconds: u64,
    /// No daemon runs.
    pub when_absent: WhenUnavailable,
    /// Seconds to wait then; 0 is without end.
    pub absent_wait_seconds: u64,
}

/// What to do when the daemon can't take a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenUnavailable {
    /// Wait.
    Wait,
    /// Let the build fail.
    Fail,
}

impl Default for ExternalBuilderConfig {
    fn default() -> Self {
        Self {
            when_busy: WhenUnavailable::Wait,
            busy_wait_seconds: 0,
            when_absent: WhenUnavailable::Wait,
            // Long enough for a restart.
            absent_wait_seconds: 60,
        }
    }
}

/// What only the `darling` guest has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DarlingConfig {
    /// The launcher, by path; the setuid bit is not needed. By default `darling` on `PATH`.
    pub launcher: Option<PathBuf>,
    /// Whether a signal that kills a process is kept from killing its whole process group, as stock Darling lets it.
    pub signal_repair: bool,
    /// Whether programs run without address randomisation, which stock Darling does not always survive.
    pub address_randomisation_off: bool,
    /// Whether a short sleep inside, ten times a second, keeps stock Darling's timers from being lost.
    pub tick: bool,
    /// Where one can log in: whether a remark of stock Darling's is kept out of what commands print.
    pub remark_repair: bool,
    /// Where one can log in: whether terminals have the names without which nobody gets one.
    pub terminal_names: bool,
}

impl Default for DarlingConfig {
    fn default() -> Self {
        Self {
            launcher: None,
            signal_repair: true,
            address_randomisation_off: true,
            tick: true,
            remark_repair: true,
            terminal_names: true,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: "/run/darling-builder/daemon.sock".into(),
            systems: vec!["x86_64-darwin".into()],
            guest: GuestKind::Darling,
            max_jobs: None,
            warm_slots: None,
            idle_timeout_seconds: 900,
            retry_stalled: true,
            queue_limit: 64,
            state_directory: "/nix/var/darling-builder".into(),
            store_directory: "/nix/store".into(),
            supported_features: vec!["big-parallel".into()],
            mandatory_features: Vec::new(),
            speed_factor: NonZeroU32::MIN,
            build_group: "nixbld".into(),
            allowed_uids: Vec::new(),
            uid_base: 2_000_000_000,
            uid_count: 1 << 16,
            allow_user_namespaces: false,
            fixed_output_network: FixedOutputNetwork::Auto,
            pasta: None,
            agent: None,
            limits: LimitsConfig::default(),
            external_builder: ExternalBuilderConfig::default(),
            darling: DarlingConfig::default(),
            ssh: SshConfig::default(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            wall_seconds: 0,
            silence_seconds: 0,
            log_bytes: 0,
            output_bytes: 0,
            tmpfs_bytes: 2 << 30,
            processes: None,
        }
    }
}

impl LimitsConfig {
    /// These limits as a build has them.
    pub fn of_a_build(&self) -> BuildLimits {
        let some = |value: u64| (value > 0).then_some(value);
        BuildLimits {
            wall: some(self.wall_seconds).map(Duration::from_secs),
            silence: some(self.silence_seconds).map(Duration::from_secs),
            log_bytes: some(self.log_bytes),
            output_bytes: some(self.output_bytes),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("failed to read the configuration {path}: {error}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file says something it can't.
    #[error("failed to understand the configuration {path}:\n{error}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        error: Box<toml::de::Error>,
    },
    /// A value is of the right type and still impossible.
    #[error("failed to accept the configuration {path}: `{key}` {problem}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

impl Config {
    /// Finds and reads the configuration; `path` is what `--config` said.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        if let Some(path) = path {
            return Self::read(path);
        }
        if let Some(path) = std::env::var_os(CONFIG_ENV) {
            return Self::read(Path::new(&path));
        }
        match Self::read(Path::new(DEFAULT_PATH)) {
            Err(ConfigError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            result => result,
        }
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        Self::parse(&text, path)
    }

    /// Understands a configuration; `path` is for messages only.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), error: Box::new(error) })?;
        config.check().map_err(|(key, problem)| ConfigError::Value {
            path: path.to_owned(),
            key,
            problem,
        })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        use std::os::unix::ffi::OsStrExt;
        for (key, path) in [
            ("socket", &self.socket),
            ("state-directory", &self.state_directory),
            ("store-directory", &self.store_directory),
        ] {
            if !path.is_absolute() {
                return Err((key, format!("must be an absolute path, not '{}'", path.display())));
            }
        }
        let socket_len = self.socket.as_os_str().as_bytes().len();
        if socket_len > 107 {
            return Err((
                "socket",
                format!("is {socket_len} bytes long; the address of a Unix socket holds 107"),
            ));
        }
        if self.systems.is_empty() {
            return Err(("systems", "names no system; leave it out for x86_64-darwin".into()));
        }
        if self.uid_base < 1000 {
            return Err((
                "uid-base",
                format!("{} is in the range of system accounts; use 2000000000", self.uid_base),
            ));
        }
        let fewest = NOT_THE_DAEMONS * 2;
        if self.uid_count < fewest {
            return Err((
                "uid-count",
                format!("must be {fewest} or more, since a uid is not to come back soon"),
            ));
        }
        // Darwin's uids are signed: a larger one would be root's inside Darling.
        if self.uid_base > (i32::MAX as u32).saturating_sub(self.uid_count) {
            return Err((
                "uid-base",
                format!("is too high: Darwin takes uids up to {}, and {} are used", i32::MAX, self.uid_count),
            ));
        }
        if self.limits.tmpfs_bytes < 16 << 20 {
            return Err((
                "limits.tmpfs-bytes",
                "is less than 16 MiB: nothing could be built in such a slot".into(),
            ));
        }
        self.ssh.check()
    }

    /// Builds at once.
    pub fn jobs(&self) -> u32 {
        self.max_jobs.map(NonZeroU32::get).unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
            let memory = total_memory_bytes().unwrap_or(u64::MAX);
            (cores / 2).min(memory >> 31).clamp(1, 64) as u32
        })
    }

    /// Under what guests are started.
    pub fn confinement(&self) -> Confinement {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let processes = self.limits.processes.unwrap_or_else(|| (cores * 64).max(4096));
        Confinement {
            processes: (processes > 0).then_some(processes),
            user_namespaces: self.allow_user_namespaces,
        }
    }

    /// Booted, idle slots kept ready.
    pub fn warm(&self) -> u32 {
        self.warm_slots.unwrap_or_else(|| self.jobs().min(2))
    }
}

fn total_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Keys that serde knows, out of its own complaint about one that it does not.
    fn known(table: &str) -> BTreeSet<String> {
        let text = if table.is_empty() { "zz = 1".into() } else { format!("[{table}]\nzz = 1") };
        let message = Config::parse(&text, Path::new("x")).unwrap_err().to_string();
        let names = message.split_once("expected").unwrap().1;
        names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// First cells of the tables below a heading line of the documentation.
    fn documented(page: &str, from: &str, to: Option<&str>) -> BTreeSet<String> {
        let page = page.split_once(from).unwrap().1;
        let page = to.map_or(page, |to| page.split_once(to).unwrap().0);
        page.lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(key, _)| key.to_owned()))
            .collect()
    }

    #[test]
    fn the_documentation_names_exactly_the_keys_there_are() {
        let page = include_str!("../../../docs/configuration.md");
        let mut top = known("");
        for table in ["limits", "external-builder", "darling", "ssh"] {
            assert!(top.remove(table));
        }
        assert_eq!(documented(page, "# Configuration", Some("\n`[limits]`")), top);
        assert_eq!(documented(page, "\n`[limits]`", Some("\n`[external-builder]`")), known("limits"));
        let external = documented(page, "\n`[external-builder]`", Some("\n`[darling]`"));
        assert_eq!(external, known("external-builder"));
        assert_eq!(documented(page, "\n`[darling]`", Some("\n`[ssh]`")), known("darling"));
        assert_eq!(documented(page, "\n`[ssh]`", None), known("ssh"));
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(Config::parse("", Path::new("x")).unwrap(), Config::default());
    }

    #[test]
    fn values_that_cannot_be_are_refused_with_what_would_be_right() {
        let refused = |text: &str| Config::parse(text, Path::new("x")).unwrap_err().to_string();
        insta::assert_snapshot!(refused("socket = \"relative\""));
        insta::assert_snapshot!(refused("systems = []"));
        insta::assert_snapshot!(refused("uid-base = 100"));
        insta::assert_snapshot!(refused("uid-base = 2147483000"));
        insta::assert_snapshot!(refused("[limits]\ntmpfs-bytes = 0"));
        insta::assert_snapshot!(refused("[ssh]\nclient-key = \"key\""));
    }
}
