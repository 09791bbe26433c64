//! `host-agent nix-conf`: what it puts in place makes the Nix here build through us without any other setting.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{NotHere, cases};
use crate::world::Mode;
use crate::world::accounts;
use crate::world::daemon;
use crate::world::etc::WritableEtc;
use crate::world::limited;
use crate::world::session::{Built, LIMIT, Session};

/// Where the program is, as if it were installed.
const INSTALLED: &str = "/run/darling-builder/bin";

/// What any Nix in a world needs, and nothing of ours.
const WORLD_CONF: &str = "sandbox = false\nsubstituters =\nmax-jobs = 2\n";

/// A line as an administrator may have left it.
const LAST_LINE: &str = "cores = 2";

cases! {
    Everywhere: what_nix_conf_applies_is_enough, a_hook_by_choice_is_enough,
        the_daemons_environment_is_enough_where_nix_conf_is_ignored, a_running_nix_daemon_is_the_nix_that_counts;
}

fn a_running_nix_daemon_is_the_nix_that_counts(session: &mut Session) -> Result<()> {
    let mut command = Command::new(daemon::program(&session.world));
    let finished = limited::run(command.args(["nix-conf", "--config", daemon::CONFIG]), LIMIT)?;
    let said = String::from_utf8(finished.must_succeed()?.stderr)?;
    let minor: Vec<_> = session.world.nix.split('.').take(2).collect();
    ensure!(said.contains(&format!("found Nix {}:", minor.join("."))), "{said}");
    ensure!(said.contains("nix-daemon, process") == (session.world.mode == Mode::Daemon), "{said}");
    Ok(())
}

fn what_nix_conf_applies_is_enough(session: &mut Session) -> Result<()> {
    in_a_machine(session, |session, machine| machine.applied_builds(session, &[], "auto"))
}

fn a_hook_by_choice_is_enough(session: &mut Session) -> Result<()> {
    if !session.nix_at_least(2, 32) {
        return Err(NotHere("the hook is what this Nix gets without being asked".into()).into());
    }
    in_a_machine(session, |session, machine| {
        machine.applied_builds(session, &["--front-end", "build-hook"], "hook")
    })
}

fn the_daemons_environment_is_enough_where_nix_conf_is_ignored(session: &mut Session) -> Result<()> {
    let ignored = session.nix_at_least(2, 25) && !session.nix_at_least(2, 34);
    if !ignored || session.world.mode == Mode::SingleUser {
        return Err(NotHere("for a nix-daemon of 2.25 to 2.33 only".into()).into());
    }
    in_a_machine(session, |session, machine| {
        machine.etc.write("systemd/system/nix-daemon.service", "[Service]\nExecStart=nix-daemon\n")?;
        fs::create_dir_all("/run/systemd/system")?;
        let built = machine.applied_builds(session, &[], "environment");
        fs::remove_dir_all("/run/systemd")?;
        let said = built?;
        ensure!(said.contains("systemctl daemon-reload"), "{said}");
        Ok(said)
    })
}

/// Runs `test` with the program installed, `/etc` writable and nothing set; then everything is as it was.
fn in_a_machine(
    session: &mut Session,
    test: impl FnOnce(&mut Session, &Machine) -> Result<String>,
) -> Result<()> {
    session.stop_nix_daemon();
    let result = Machine::new(session).and_then(|machine| test(session, &machine));
    fs::remove_dir_all(INSTALLED)?;
    session.resume_nix_daemon()?;
    result.map(drop)
}

/// A machine on which `host-agent` has just been installed.
struct Machine {
    etc: WritableEtc,
}

impl Machine {
    fn new(session: &Session) -> Result<Self> {
        fs::create_dir_all(INSTALLED)?;
        fs::copy(daemon::program(&session.world), program())?;
        let hook = Path::new(INSTALLED).join("darling-builder-hook");
        std::os::unix::fs::symlink("host-agent", hook)?;
        let etc = WritableEtc::new()?;
        etc.write("darling-builder/config.toml", &fs::read_to_string(daemon::CONFIG)?)?;
        let group = match session.world.mode {
            Mode::SingleUser => "",
            Mode::Daemon => "nixbld",
        };
        etc.write("nix/nix.conf", &format!("build-users-group = {group}\n{WORLD_CONF}{LAST_LINE}"))?;
        Ok(Self { etc })
    }

    /// What `nix-conf --apply` says, if a build then succeeds and `--remove` gives everything back.
    fn applied_builds(&self, session: &mut Session, flags: &[&str], salt: &str) -> Result<String> {
        let before = files()?;
        let salt = format!("{salt} {}", session.world.mode.as_str());
        self.builds(session, &salt)?.fails().context("without settings")?;
        let said = nix_conf(&[&["--apply"], flags].concat())?;
        let applied = files()?;
        ensure!(applied != before, "nothing was changed: {said}");
        self.builds(session, &salt)?.succeeds().with_context(|| format!("with {applied:#?}"))?;
        let again = nix_conf(&[&["--apply"], flags].concat())?;
        ensure!(again.starts_with("nothing changed") && files()? == applied, "the second time: {again}");
        nix_conf(&["--remove"])?;
        let after = files()?;
        ensure!(after == before, "after --remove there is {after:#?}");
        self.builds(session, &format!("{salt} removed"))?.fails().context("with the settings removed")?;
        Ok(said)
    }

    /// Builds as whoever builds here, with what is in `/etc` alone.
    fn builds(&self, session: &mut Session, salt: &str) -> Result<Built> {
        let succeeded = builds_so_far(session)?;
        if session.world.mode == Mode::Daemon {
            let mut command = Command::new("nix-daemon");
            if let Some(value) = environment_of_unit()? {
                command.env("NIX_CONFIG", value);
            }
            session.start_nix_daemon(&mut command)?;
        }
        let mut command = Command::new("nix-build");
        command.args(["/project/fixtures/settings.nix", "--no-out-link", "--argstr", "salt", salt]);
        if session.world.mode == Mode::Daemon {
            let user = accounts::USER_UID;
            command.current_dir(accounts::USER_HOME).env("HOME", accounts::USER_HOME).uid(user).gid(user);
        }
        let finished = limited::run(&mut command, LIMIT);
        session.stop_nix_daemon();
        let built = Built::from(finished?);
        let ours = builds_so_far(session)? - succeeded;
        ensure!(
            ours == u64::from(built.finished.status.success()),
            "{ours} builds by us: {}",
            built.finished.describe()
        );
        Ok(built)
    }
}

fn program() -> PathBuf {
    Path::new(INSTALLED).join("host-agent")
}

fn nix_conf(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program());
    let finished = limited::run(command.arg("nix-conf").args(arguments), LIMIT)?.must_succeed()?;
    Ok(String::from_utf8(finished.stdout)?)
}

fn builds_so_far(session: &Session) -> Result<u64> {
    daemon::status(&session.world)?["succeeded"].as_u64().context("the status counts no builds")
}

/// What systemd would give nix-daemon.
fn environment_of_unit() -> Result<Option<String>> {
    let drop_in = Path::new("/etc/systemd/system/nix-daemon.service.d/darling-builder.conf");
    if !drop_in.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(drop_in)?;
    let line = text.lines().find_map(|line| line.strip_prefix("Environment=\"NIX_CONFIG="));
    Ok(line.and_then(|line| line.strip_suffix('"')).map(|value| value.replace("\\n", "\n")))
}

/// Everything that could be changed, with contents.
fn files() -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    let mut ahead = ["/etc/nix", "/etc/xdg", "/etc/systemd", "/root"].map(PathBuf::from).to_vec();
    while let Some(path) = ahead.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                ahead.push(entry?.path());
            }
            found.insert(path, "directory".into());
        } else if path.is_file() {
            let text = fs::read(&path)?;
            found.insert(path, String::from_utf8_lossy(&text).into_owned());
        }
    }
    // Nix's own caches.
    found.retain(|path, _| !path.starts_with("/root/.cache") && !path.starts_with("/root/.local"));
    Ok(found)
}
