//! A daemon that is not there, that dies, that comes back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cases;
use crate::world::FrontEnd;
use crate::world::daemon::{self, HostDaemon};
use crate::world::limited::{self, wait_until};
use crate::world::session::{Build, LIMIT, Session};

cases! {
    Everywhere: a_dead_daemon_is_said_once_and_at_once, a_killed_daemon_takes_its_builds_along_and_comes_back;
    SingleUser: status_tells_what_runs, sigterm_ends_it_cleanly;
}

fn a_dead_daemon_is_said_once_and_at_once(session: &mut Session) -> Result<()> {
    session.only_through(FrontEnd::Hook, "an external builder waits, which is tested with it")?;
    session.daemon.take().context("no daemon")?.stop()?;
    let started = Instant::now();
    let built = session.build(&Build::of("scheduling.nix", "forlorn"));
    let took = started.elapsed();
    let linux = session.build(&Build::of("scheduling.nix", "linux"));
    session.daemon = Some(HostDaemon::start(&session.world, false)?);
    let built = built?.fails()?.says("failed to reach the darling-builder daemon")?;
    let said = String::from_utf8_lossy(&built.finished.stderr).matches("failed to reach the darling").count();
    ensure!(said == 1, "said {said} times: {}", built.finished.describe());
    ensure!(took < Duration::from_secs(3), "took {took:?}");
    linux?.succeeds()?;
    Ok(())
}

fn a_killed_daemon_takes_its_builds_along_and_comes_back(session: &mut Session) -> Result<()> {
    let running = limited::start(&mut session.build_command(&Build::of("cancel.nix", "sleeping")))?;
    let builder = || Ok(daemon::slot_processes()?.iter().any(|(_, command)| command.contains("sleep 7344")));
    ensure!(wait_until(Duration::from_secs(20), builder)?, "the builder does not start");
    session.daemon.take().context("no daemon")?.kill()?;
    let at = Instant::now();
    let none = || Ok(daemon::slot_processes()?.is_empty());
    let all_gone = wait_until(Duration::from_secs(1), none)?;
    let left = daemon::slot_processes()?;
    let finished = running.finish(Duration::from_secs(30))?;
    session.daemon = Some(HostDaemon::start(&session.world, false)?);
    ensure!(all_gone, "after {:?} there is still {left:?}", at.elapsed());
    ensure!(!finished.timed_out && !finished.status.success(), "{}", finished.describe());
    let text = String::from_utf8_lossy(&finished.stderr).into_owned();
    ensure!(text.contains("daemon"), "no word of the daemon in: {}", finished.describe());
    let next = session.build(&Build::of("cancel.nix", "next"))?.succeeds()?;
    let mut delete = session.root_command("nix-store");
    limited::run(delete.arg("--delete").arg(next.output()?), LIMIT)?.must_succeed()?;
    Ok(())
}

fn status_tells_what_runs(session: &mut Session) -> Result<()> {
    let running = limited::start(&mut session.build_command(&Build::of("cancel.nix", "sleeping")))?;
    let building = wait_until(Duration::from_secs(20), || {
        Ok(daemon::slot_processes()?.iter().any(|(_, command)| command.contains("sleep 7344")))
    })?;
    let status = daemon::status(&session.world)?;
    running.signal(nix::sys::signal::Signal::SIGINT)?;
    running.finish(Duration::from_secs(10))?;
    ensure!(building, "the builder does not start");
    let build = &status["builds"][0];
    let derivation = build["derivation"].as_str().unwrap_or_default();
    // An external builder is not told the derivation, only its outputs.
    ensure!(derivation.trim_end_matches(".drv").ends_with("-cancel-sleeping"), "{status:#}");
    ensure!(status["guest"] == session.world.guest.as_str(), "{status:#}");
    ensure!(
        status["slots"].as_array().is_some_and(|slots| slots.iter().any(|slot| slot["state"] == "busy")),
        "{status:#}"
    );
    let idle = || Ok(daemon::busy_slots(&session.world)?.is_empty());
    ensure!(wait_until(Duration::from_secs(2), idle)?, "the slot stays busy");
    Ok(())
}

fn sigterm_ends_it_cleanly(session: &mut Session) -> Result<()> {
    let status = session.daemon.take().context("no daemon")?.stop()?;
    let left = daemon::slot_processes()?;
    let socket = std::path::Path::new(daemon::SOCKET).exists();
    session.daemon = Some(HostDaemon::start(&session.world, false)?);
    ensure!(status.success(), "it ended with {status}");
    ensure!(left.is_empty(), "still there: {left:?}");
    ensure!(!socket, "its socket is still there");
    Ok(())
}
