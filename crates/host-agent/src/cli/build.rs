//! `host-agent build`: `nix-store --realise` with our hook, for this call only.
//!
//! Through `nix-store`, so that the build holds the locks and roots that every build holds and nothing of the system's
//! configuration changes. Nix before 2.10 can't give its hook arguments, so the hook is a symlink to this program whose
//! name says that it is the hook.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use ::nix::unistd::{AccessFlags, access, geteuid, mkdtemp};

use super::{HOOK_NAME, fail};
use crate::config::{CONFIG_ENV, Config};
use crate::control::client::Client;

/// Environment variable with lines of Nix configuration.
const NIX_CONFIG: &str = "NIX_CONFIG";

/// Whoever may write here may build without Nix's daemon.
const DATABASE: &str = "/nix/var/nix/db";

/// Builds `targets` (derivations, or `.drv!output`), with extra arguments for `nix-store`; returns its status.
pub fn run(
    config: &Config,
    config_path: Option<&Path>,
    targets: &[OsString],
    extra: &[OsString],
) -> ExitCode {
    if let Err(error) = Client::connect(&config.socket, "build") {
        return fail(&error);
    }
    let root = geteuid().is_root();
    if let Some(problem) = goes_through_daemon().filter(|_| !root) {
        return fail(&problem);
    }
    match realise(config_path, targets, extra, root) {
        Ok(status) => status,
        Err(error) => fail(&format!("failed to run `nix-store --realise`: {error}")),
    }
}

fn realise(
    config_path: Option<&Path>,
    targets: &[OsString],
    extra: &[OsString],
    root: bool,
) -> io::Result<ExitCode> {
    let place = PrivateDirectory::create()?;
    let hook = place.0.join(HOOK_NAME);
    symlink(std::env::current_exe()?, &hook)?;
    let mut command = Command::new("nix-store");
    if root {
        // Even where the environment says to go through the daemon.
        command.args(["--store", "local"]);
    }
    command.arg("--realise").args(extra).args(targets).env(NIX_CONFIG, nix_config(&hook));
    if let Some(path) = config_path {
        command.env(CONFIG_ENV, std::path::absolute(path)?);
    }
    let status = command.status()?;
    // As a shell has it, for what a signal ended.
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// What the caller has set, and our hook after it.
fn nix_config(hook: &Path) -> OsString {
    let mut config = std::env::var_os(NIX_CONFIG).unwrap_or_default();
    if !config.is_empty() {
        config.push("\n");
    }
    config.push("build-hook = ");
    config.push(hook);
    config.push("\n");
    config
}

/// Why our hook would not be used: without rights of our own to the store, Nix's daemon builds, with the hook of *its*
/// configuration.
fn goes_through_daemon() -> Option<String> {
    let remote = std::env::var_os("NIX_REMOTE").unwrap_or_default();
    let asked_for = remote == "daemon" || remote.as_bytes().starts_with(b"unix:");
    let owns_store = access(DATABASE, AccessFlags::W_OK).is_ok();
    (asked_for || !owns_store).then(|| {
        "Nix's daemon builds for you here, with the build hook of its own configuration: run this as root, or set \
         `build-hook` for the daemon (in /etc/nix/nix.conf; for Nix 2.25 to 2.33 in its environment variable NIX_CONFIG)"
            .to_owned()
    })
}

/// A directory that only we can write to, removed with what is in it.
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    fn create() -> io::Result<Self> {
        let template = std::env::temp_dir().join("darling-builder.XXXXXX");
        // No blanks in the hook's path: Nix splits the setting at them, and knows no quotes.
        let blank = template.as_os_str().as_bytes().iter().any(u8::is_ascii_whitespace);
        let template = if blank { PathBuf::from("/tmp/darling-builder.XXXXXX") } else { template };
        Ok(Self(mkdtemp(&template)?))
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
