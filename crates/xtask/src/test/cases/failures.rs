//! Builders that fail or don't end: exit statuses, messages, and what is left.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cases;
use crate::world::daemon;
use crate::world::limited::wait_until;
use crate::world::session::{Build, Session};
use crate::world::{FrontEnd, Guest};

const FILE: &str = "failures.nix";

cases! {
    Everywhere: exit_statuses_are_told, the_last_lines_are_shown, time_limit, a_builder_that_does_not_exist,
        what_a_builder_started_does_not_outlive_it;
    SingleUser: signals_are_told, silence_limit, log_limit_of_nix, half_an_output_does_not_appear,
        a_kept_build_directory_is_named, limits_of_the_daemon;
}

fn exit_statuses_are_told(session: &mut Session) -> Result<()> {
    let status = session.status_of_failure();
    for (attribute, code) in [("exit-1", "1"), ("exit-42", "42"), ("exit-100", "100")] {
        let built = session.build(&Build::of(FILE, attribute))?.fails_with(status)?;
        built.says(&format!("failed with exit code {code}"))?;
    }
    Ok(())
}

fn the_last_lines_are_shown(session: &mut Session) -> Result<()> {
    let build = Build::of(FILE, "exit-1").with(&["--no-build-output"]);
    session.build(&build)?.fails()?.says("last words")?;
    Ok(())
}

fn signals_are_told(session: &mut Session) -> Result<()> {
    let status = session.status_of_failure();
    session.build(&Build::of(FILE, "killed"))?.fails_with(status)?.says("signal 9")?;
    session.build(&Build::of(FILE, "crashed"))?.fails_with(status)?.says("signal 11")?;
    Ok(())
}

fn a_builder_that_does_not_exist(session: &mut Session) -> Result<()> {
    let status = session.status_of_failure();
    session.build(&Build::of(FILE, "no-builder"))?.fails_with(status)?.says("/no/such/builder")?;
    session.build(&Build::of(FILE, "directory-as-builder"))?.fails_with(status)?.says("/usr")?;
    if session.world.guest == Guest::Darling {
        // Darling runs a script without looking at its mode.
        return Ok(());
    }
    session.build(&Build::of(FILE, "not-executable"))?.fails_with(status)?.says("ermission denied")?;
    Ok(())
}

fn what_a_builder_started_does_not_outlive_it(session: &mut Session) -> Result<()> {
    for attribute in ["background", "fork-bomb-lite"] {
        let built = session.build(&Build::of(FILE, attribute).within(Duration::from_secs(10)))?.succeeds()?;
        session.sound(built.output()?)?;
    }
    let left: Vec<_> =
        daemon::slot_processes()?.into_iter().filter(|(_, command)| command.contains("sleep 733")).collect();
    ensure!(left.is_empty(), "still there: {left:?}");
    Ok(())
}

fn time_limit(session: &mut Session) -> Result<()> {
    let build = Build::of(FILE, "endless").with(&["--timeout", "1"]).within(Duration::from_secs(15));
    session.build(&build)?.fails_with(session.status_of_timeout())?.says("timed out after 1 seconds")?;
    Ok(())
}

fn silence_limit(session: &mut Session) -> Result<()> {
    let build = Build::of(FILE, "silent").with(&["--max-silent-time", "1"]).within(Duration::from_secs(15));
    session.build(&build)?.fails_with(session.status_of_timeout())?.says("1 seconds")?;
    Ok(())
}

fn log_limit_of_nix(session: &mut Session) -> Result<()> {
    let build = Build::of(FILE, "talkative").with(&["-Q", "--option", "max-build-log-size", "100000"]);
    session.build(&build.within(Duration::from_secs(20)))?.fails()?.says("100000 bytes")?;
    Ok(())
}

fn half_an_output_does_not_appear(session: &mut Session) -> Result<()> {
    let build = Build::of(FILE, "exit-half-done");
    let derivation = session.instantiate(&build)?;
    session.build(&build)?.fails_with(session.status_of_failure())?.says("exit code 3")?;
    let output = session.output_named(&derivation, "out")?;
    ensure!(!output.exists(), "{} is there", output.display());
    Ok(())
}

fn a_kept_build_directory_is_named(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "exit-1").with(&["--keep-failed"]))?.fails()?;
    let text = String::from_utf8_lossy(&built.finished.stderr).into_owned();
    let named = text.split(['\'', '"', ' ', '\n']).map(PathBuf::from);
    // Ours, or Nix's own.
    let (ours, nixs) = (Path::new(daemon::STATE).join("kept/0"), Path::new("/nix/var/nix/builds"));
    let is_kept = |path: &PathBuf| (path.starts_with(&ours) || path.starts_with(nixs)) && path.is_dir();
    let kept = named.into_iter().find(is_kept);
    let kept = kept.with_context(|| format!("no build directory named in: {}", built.finished.describe()))?;
    if kept.starts_with(&ours) {
        for path in [&kept, &ours] {
            let metadata = fs::metadata(path)?;
            let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
            ensure!((mode, owner) == (0o700, 0), "{} is {owner}'s, mode {mode:o}", path.display());
        }
    }
    // Nix's is inside another one.
    let whole = kept.ancestors().find(|path| path.parent() == Some(nixs));
    fs::remove_dir_all(whole.unwrap_or(&kept))?;
    if kept.starts_with(&ours) {
        fs::remove_dir(&ours)?;
    }
    Ok(())
}

fn limits_of_the_daemon(session: &mut Session) -> Result<()> {
    session.restart_daemon("[limits]\nwall-seconds = 3\nlog-bytes = 100000\noutput-bytes = 1000000\n")?;
    let result = (|| {
        // A program can't tell Nix that it was our limit.
        let timeout = match session.world.front_end {
            FrontEnd::Hook => session.status_of_timeout(),
            FrontEnd::ExternalBuilder => session.status_of_failure(),
        };
        session.build(&Build::of(FILE, "endless"))?.fails_with(timeout)?.says("timed out")?;
        session.build(&Build::of(FILE, "talkative").with(&["-Q"]))?.fails()?.says("100000 bytes")?;
        for attribute in ["large", "large-file"] {
            session.build(&Build::of("outputs.nix", attribute))?.fails()?.says("1000000 bytes")?;
        }
        let idle = || Ok(daemon::busy_slots(&session.world)?.is_empty());
        ensure!(wait_until(Duration::from_secs(2), idle)?, "a slot is still busy");
        Ok(())
    })();
    session.restart_daemon("")?;
    result
}
