//! Ctrl-C or SIGKILL of the Nix client, at any moment: the build is gone within a second, and the next one works.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::cases;
use crate::world::daemon;
use crate::world::limited::{self, Running, wait_until};
use crate::world::session::{Build, Session};

static NEXT: AtomicU32 = AtomicU32::new(0);
const FILE: &str = "cancel.nix";

/// Within this time everything of a cancelled build is gone.
const GONE_WITHIN: Duration = Duration::from_secs(1);

cases! {
    Everywhere: while_the_builder_sleeps, while_the_builder_prints, at_any_early_moment;
    SingleUser: while_outputs_are_published, while_it_waits_in_the_queue;
}

fn while_the_builder_sleeps(session: &mut Session) -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGKILL, Signal::SIGTERM] {
        cancelled(session, "cancel-sleeping", &Build::of(FILE, "sleeping"), signal, |_| {
            appears("sleep 7344")
        })?;
    }
    Ok(())
}

fn while_the_builder_prints(session: &mut Session) -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let build = Build::of(FILE, "talking").with(&["-Q"]);
        cancelled(session, "cancel-talking", &build, signal, |_| {
            appears("sleep 7341")?;
            std::thread::sleep(Duration::from_millis(300));
            Ok(())
        })?;
    }
    Ok(())
}

fn at_any_early_moment(session: &mut Session) -> Result<()> {
    for milliseconds in [0, 10, 20, 30, 40, 50, 60, 80, 100, 130] {
        for signal in [Signal::SIGINT, Signal::SIGKILL] {
            let try_it = || {
                cancel(session, "cancel-sleeping", &Build::of(FILE, "sleeping"), signal, |_| {
                    std::thread::sleep(Duration::from_millis(milliseconds));
                    Ok(())
                })
            };
            // Nix itself misses one of thirty or so SIGINTs that come just when a builder starts, and all that follow, also in
            // a local build: Nix 2.34.8 did 6 times of 270. Because of us it would every time.
            let mut client = try_it();
            for _ in 0..DEAF_IN_A_ROW {
                if !matches!(client, Ok(Client::GoesOn(_))) {
                    break;
                }
                client = try_it();
            }
            client.and_then(Client::ended).with_context(|| format!("{signal} after {milliseconds} ms"))?;
        }
    }
    Ok(())
}

fn while_outputs_are_published(session: &mut Session) -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        cancelled(session, "cancel-publishing", &Build::of(FILE, "publishing"), signal, |running| {
            let written = wait_until(Duration::from_secs(30), || {
                Ok(String::from_utf8_lossy(&running.stderr_so_far()?).contains("written"))
            })?;
            ensure!(written, "the builder has not come so far");
            std::thread::sleep(Duration::from_millis(50));
            Ok(())
        })?;
    }
    Ok(())
}

fn while_it_waits_in_the_queue(session: &mut Session) -> Result<()> {
    // Two builds fill both places; the third waits.
    let filling: Vec<Running> = ["one", "two"]
        .iter()
        .map(|_| limited::start(&mut session.build_command(&Build::of("failures.nix", "endless"))))
        .take(1)
        .collect::<Result<_>>()?;
    let talking = limited::start(&mut session.build_command(&Build::of(FILE, "talking").with(&["-Q"])))?;
    appears("sleep 7341")?;
    let mut third = limited::start(&mut session.build_command(&Build::of(FILE, "sleeping")))?;
    let queued = wait_until(Duration::from_secs(5), || Ok(builds(session)? == 3))?;
    ensure!(queued, "the third build is not in the daemon's list");
    ensure!(third.is_running()?, "the third build did not wait");
    third.signal(Signal::SIGKILL)?;
    third.finish(Duration::from_secs(5))?;
    ensure!(wait_until(GONE_WITHIN, || Ok(builds(session)? == 2))?, "the queued build is still listed");
    for running in [talking].into_iter().chain(filling) {
        running.signal(Signal::SIGINT)?;
        running.finish(Duration::from_secs(5))?;
    }
    gone(session, Instant::now())
}

/// How often a Nix that misses a signal for reasons of its own is tried again.
const DEAF_IN_A_ROW: usize = 2;

/// What a Nix client did about a signal.
enum Client {
    /// It ended.
    Ended,
    /// It went on until it was killed; with what it had printed.
    GoesOn(String),
}

impl Client {
    fn ended(self) -> Result<()> {
        match self {
            Self::Ended => Ok(()),
            Self::GoesOn(described) => anyhow::bail!("nix-build itself goes on: {described}"),
        }
    }
}

/// As [`cancel`], by a client that ends.
fn cancelled(
    session: &Session,
    name: &str,
    build: &Build,
    signal: Signal,
    moment: impl FnOnce(&mut Running) -> Result<()>,
) -> Result<()> {
    cancel(session, name, build, signal, moment)?.ended()
}

/// Starts `build`, waits for the moment, sends `signal` to the Nix client and checks that nothing of the build is left
/// within the limit and that the next build works. A client that goes on is killed, and then the same holds.
fn cancel(
    session: &Session,
    name: &str,
    build: &Build,
    signal: Signal,
    moment: impl FnOnce(&mut Running) -> Result<()>,
) -> Result<Client> {
    let mut running = limited::start(&mut session.build_command(build))?;
    moment(&mut running)?;
    ensure!(
        running.is_running()?,
        "{name} has ended by itself: {}",
        running.finish(Duration::ZERO)?.describe()
    );
    let at = Instant::now();
    running.signal(signal)?;
    let finished = running.finish(Duration::from_secs(10));
    let goes_on = matches!(&finished, Ok(finished) if finished.timed_out);
    gone(session, if goes_on { Instant::now() } else { at })?;
    let finished = finished?;
    // Another one each time: what Nix knows of a killed client's outputs does not matter.
    let number = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
    session.build(&Build::of(FILE, "next").with(&["--argstr", "number", &number]))?.succeeds()?;
    Ok(if goes_on { Client::GoesOn(finished.describe()) } else { Client::Ended })
}

/// Waits until a process of a slot has this in its command line.
fn appears(text: &str) -> Result<()> {
    let there = || Ok(daemon::slot_processes()?.iter().any(|(_, command)| command.contains(text)));
    ensure!(wait_until(Duration::from_secs(20), there)?, "no builder runs `{text}`");
    Ok(())
}

fn builds(session: &Session) -> Result<usize> {
    Ok(daemon::status(&session.world)?["builds"].as_array().map_or(0, Vec::len))
}

/// Within the limit from `since`: no process of a builder, no slot in use, no build in the daemon's list.
fn gone(session: &Session, since: Instant) -> Result<()> {
    let mut left;
    loop {
        left = daemon::slot_processes()?
            .into_iter()
            .filter(|(_, command)| command.contains("sleep 734") || command.contains("/bin/sh"))
            .map(|(uid, command)| format!("process of {uid}: {command:.80}"))
            .collect::<Vec<_>>();
        left.extend(daemon::busy_slots(&session.world)?.iter().map(|uid| format!("slot of {uid}")));
        if builds(session)? > 0 {
            left.push("a build in the daemon's list".into());
        }
        if left.is_empty() {
            return Ok(());
        }
        if since.elapsed() > GONE_WITHIN {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    anyhow::bail!("{GONE_WITHIN:?} after the signal there is still: {left:#?}")
}
