//! `cargo xtask bench darling`: what is asked of Darling as a guest, each figure beside that of the stand-in or of bare
//! Linux, taken in turns in one run.
//!
//! Figures of slots and agents are taken beside the agent, by the example `guest_figures` of host-agent; those of a whole
//! build are times of `nix-build`, and the daemon's own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::samples::{Samples, head, row};
use super::trivial::{self, LIMIT};
use crate::binaries::{self, Profile};
use crate::flags::DarlingBenchFlags;
use crate::task::Task;
use crate::workspace::{Workspace, cargo};
use crate::world::daemon;
use crate::world::limited::{self, wait_until};
use crate::world::session::Session;
use crate::world::{Guest, TARGET, World, possible};
use crate::{darling, progress};

const EXAMPLE: &str = "guest_figures";
/// What the example does in each round.
const SPAWNS: u32 = 200;
const LOG_MIB: u32 = 32;
/// Most time for the example, in each round.
const ROUND_LIMIT: Duration = Duration::from_secs(120);

/// From the time that a slot is ready to the build that takes it.
const SETTLE: Duration = Duration::from_secs(1);

/// What is wanted, milliseconds.
const COLD_SLOT: f64 = 500.0;
const WARM_SLOT: f64 = 20.0;
const OVER_LOCAL: f64 = 70.0;

/// Where something was measured: the example's name for it, and ours.
const PLACES: [(&str, &str); 3] =
    [("darling", "inside Darling"), ("linux", "inside the stand-in"), ("bare", "on bare Linux")];

/// Makes the world and measures; `false` if something takes longer than is wanted.
pub fn run(workspace: &Workspace, flags: &DarlingBenchFlags) -> Result<bool> {
    if darling::on_path().is_none() {
        println!("skipped: `darling` is not on PATH");
        return Ok(true);
    }
    if let Err(reason) = possible() {
        bail!("the measurement {reason}");
    }
    let nix = darling::prepare(workspace)?;
    binaries::build(workspace, Profile::Release)?;
    let build = ["build", "--quiet", "--release", "-p", "host-agent", "--example", EXAMPLE];
    ensure!(cargo(&workspace.project).args(build).status()?.success(), "cargo build failed");
    let task = Task::DarlingFigures { rounds: flags.rounds };
    let world = World::inside_darling(workspace, nix, Profile::Release, task, 3600);
    Ok(world.run()?.1)
}

/// Measures, in the world this process is in.
pub fn inside(world: World, rounds: u32) -> Result<bool> {
    println!("Nix {}, {rounds} rounds, load at the start: {}", world.nix, load()?);
    progress("slots, agents, processes, logs …");
    let figures = Figures::take(&world, rounds)?;
    let mut good = figures.show()?;
    progress("trivial builds …");
    let mut session = Session::new(world)?;
    session.start_daemons(false)?;
    good &= builds(&session, rounds)?;
    session.close()?;
    println!("load at the end: {}", load()?);
    Ok(good)
}

fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// Samples by place and figure.
struct Figures(BTreeMap<String, BTreeMap<String, Vec<f64>>>);

impl Figures {
    fn take(world: &World, rounds: u32) -> Result<Self> {
        let example = Path::new(TARGET).join(&world.profile).join("examples").join(EXAMPLE);
        let mut command = Command::new(example);
        command.args([rounds, SPAWNS, LOG_MIB].map(|number| number.to_string()));
        for (guest, uid_base) in [(Guest::Darling, 2_100_000_000_u32), (Guest::Linux, 2_110_000_000)] {
            let name = guest.as_str();
            let config = format!("/run/figures-{name}.toml");
            let agent = daemon::agent(world, guest);
            let text = format!(
                "guest = \"{name}\"\nagent = \"{}\"\nstate-directory = \"/nix/var/figures-{name}\"\nuid-base = {uid_base}\n",
                agent.display()
            );
            fs::write(&config, text)?;
            command.arg(config);
        }
        let taken = limited::run(&mut command, ROUND_LIMIT * (rounds + 1))?.must_succeed()?;
        Ok(Self(serde_json::from_slice(&taken.stdout).context("failed to understand the figures")?))
    }

    /// Prints a table of one figure, with a line below it for each place where it was taken.
    fn table(&self, title: &str, figure: &str, besides: impl Fn(f64) -> Option<String>) -> Result<f64> {
        head(title);
        let mut in_darling = None;
        let mut lines = Vec::new();
        for (place, name) in PLACES {
            let Some(times) = self.0.get(place).and_then(|figures| figures.get(figure)) else { continue };
            let samples = Samples::from_milliseconds(times);
            row(name, &samples);
            in_darling = in_darling.or_else(|| (place == "darling").then(|| samples.median()));
            lines.extend(besides(samples.median()).map(|text| format!("{name}: {text}")));
        }
        lines.iter().for_each(|line| println!("{line}"));
        in_darling.with_context(|| format!("no {figure} was measured inside Darling"))
    }
    /// Prints all tables; `false` if something takes longer than is wanted.
    fn show(&self) -> Result<bool> {
        let none = |_| None;
        let cold = self.table("cold slot to the agent's handshake", "boot", none)?;
        self.table("to the agent and back", "ping", none)?;
        let warm = self.table("warm slot to the builder's exec", "executed", none)?;
        self.table("warm slot to the builder's first byte", "first-byte", none)?;
        self.table("the builder's end to its report", "end", none)?;
        let spawns = format!("{SPAWNS} programs, run by a shell one by one");
        self.table(&spawns, "spawns", |time| {
            Some(format!("{:.0} spawns a second", f64::from(SPAWNS) * 1e3 / time))
        })?;
        let log = format!("{LOG_MIB} MiB of log, through the pseudo-terminal");
        let megabytes = f64::from(LOG_MIB << 20) / 1e6;
        self.table(&log, "log", |time| Some(format!("{:.0} MB a second", megabytes * 1e3 / time)))?;
        println!();
        Ok(wanted("cold slot to handshake", cold, COLD_SLOT) & wanted("warm slot to exec", warm, WARM_SLOT))
    }
}

/// Says how a median compares with what is wanted; whether it is good.
fn wanted(what: &str, median: f64, most: f64) -> bool {
    let good = median <= most;
    println!("{what}: {median:.1} ms, wanted {most} at most: {}", if good { "met" } else { "NOT met" });
    good
}

/// Trivial builds, locally and through the hook in turns; `false` if the hook costs more than is wanted.
fn builds(session: &Session, rounds: u32) -> Result<bool> {
    let (mut local, mut hook) = (Samples::default(), Samples::default());
    let mut phases: BTreeMap<&str, Samples> = BTreeMap::new();
    // The first round warms caches and does not count.
    for round in 0..=rounds {
        wait_until(LIMIT, || Ok(has_spare_slot(&daemon::status(&session.world)?)))?;
        // A spare slot is used when it has been idle for a while.
        std::thread::sleep(SETTLE);
        let times = [trivial::local(session, round, None)?, trivial::hook(session, round, None)?];
        if round > 0 {
            local.push(times[0]);
            hook.push(times[1]);
            for (phase, time) in last_phases(&daemon::status(&session.world)?)? {
                phases.entry(phase).or_default().push(time);
            }
        }
    }
    head(&format!("a trivial build by Nix {}", session.world.nix));
    row("built locally on Linux, no sandbox", &local);
    row("through the hook, inside Darling, warm slot", &hook);
    for phase in PHASES {
        row(&format!("    of which {phase}"), phases.get(phase).context("the daemon tells no such phase")?);
    }
    println!();
    Ok(wanted("the hook beyond a local build", hook.median() - local.median(), OVER_LOCAL))
}

fn has_spare_slot(status: &Value) -> bool {
    let slots = status["slots"].as_array().map(Vec::as_slice).unwrap_or_default();
    slots.iter().any(|slot| slot["state"] == "warm") && !slots.iter().any(|slot| slot["state"] == "booting")
}

/// What the daemon reports of a build, in order.
const PHASES: [&str; 5] = ["booting", "preparing", "building", "stopping", "publishing"];

fn last_phases(status: &Value) -> Result<Vec<(&'static str, Duration)>> {
    let timings = &status["recent"][0]["timings"];
    let time = |phase: &'static str| {
        let time = serde_json::from_value(timings[phase].clone())
            .with_context(|| format!("failed to understand how long {phase} took"))?;
        Ok((phase, time))
    };
    PHASES.into_iter().map(time).collect()
}
