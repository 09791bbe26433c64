//! `cargo xtask test`: format, lints, unit tests, then the fixtures through real Nix.

mod cases;
pub mod end_to_end;
mod report;
mod rust_checks;

use anyhow::Result;

use crate::binaries::{self, Profile};
use crate::flags::TestFlags;
use crate::task::Task;
use crate::workspace::Workspace;
use crate::world::{FrontEnd, Guest, Mode, Root, World, possible};
use crate::{darling, nix_roots, progress};
use report::{Outcome, Report, Verdict};

/// Tests of hostile builds inside Darling; those in the stand-in are unit tests.
const IN_DARLING: &str = "darling hostile";

/// Everything in one world must be over by then.
const WORLD_LIMIT_SECONDS: u64 = 900;

/// Runs the tests; `false` if one failed.
pub fn run(workspace: &Workspace, flags: &TestFlags) -> Result<bool> {
    let mut report = Report::default();
    if flags.only.is_none() && !flags.end_to_end {
        // The module for NixOS is evaluated with them. One that can't be had is reported further down.
        for release in nix_roots::select(&flags.nix)? {
            let _ = nix_roots::root(&workspace.target, release);
        }
        rust_checks::run(workspace, &mut report)?;
    }
    match possible() {
        Ok(()) => end_to_end(workspace, flags, &mut report)?,
        Err(reason) => report.skip_group("end-to-end", &reason),
    }
    report.finish();
    Ok(report.succeeded())
}

fn end_to_end(workspace: &Workspace, flags: &TestFlags, report: &mut Report) -> Result<()> {
    binaries::build(workspace, Profile::Debug)?;
    for release in nix_roots::select(&flags.nix)? {
        let root = match nix_roots::root(&workspace.target, release) {
            Ok(root) => root,
            Err(error) => {
                report.skip_group(&format!("nix-{}", release.version), &format!("{error:#}"));
                continue;
            }
        };
        for front_end in [FrontEnd::Hook, FrontEnd::ExternalBuilder] {
            if flags.front_end.is_some_and(|only| FrontEnd::from(only) != front_end) {
                continue;
            }
            if front_end == FrontEnd::ExternalBuilder && !release.has_external_builders() {
                let reason = "this Nix has no setting `external-builders` (2.32 and later do)";
                report.skip_group(&format!("nix-{} {}", release.version, front_end.as_str()), reason);
                continue;
            }
            for mode in [Mode::SingleUser, Mode::Daemon] {
                let root = Root::Unpacked(root.clone());
                let world = world(workspace, flags, release.version, root, mode, Guest::Linux);
                run_world(&World { front_end, ..world }, report)?;
            }
        }
    }
    if !flags.darling {
        return Ok(());
    }
    if darling::on_path().is_none() {
        for group in ["darling", IN_DARLING] {
            report.skip_group(group, "`darling` is not on PATH");
        }
        return Ok(());
    }
    let version = darling::prepare(workspace)?;
    if flags.only.is_none() && !flags.end_to_end {
        rust_checks::run_hostile_in_darling(workspace, IN_DARLING, report)?;
    }
    if flags.front_end.is_none_or(|only| FrontEnd::from(only) == FrontEnd::Hook) {
        let world = world(workspace, flags, &version, Root::Machine, Mode::SingleUser, Guest::Darling);
        run_world(&world, report)?;
    }
    if flags.front_end.is_some_and(|only| FrontEnd::from(only) == FrontEnd::Hook) {
        return Ok(());
    }
    // The machine's own Nix may have no such setting.
    for release in
        nix_roots::select(&flags.nix)?.into_iter().filter(|release| release.has_external_builders())
    {
        let root = Root::Unpacked(nix_roots::root(&workspace.target, release)?);
        let world = world(workspace, flags, release.version, root, Mode::SingleUser, Guest::Darling);
        run_world(&World { front_end: FrontEnd::ExternalBuilder, ..world }, report)?;
    }
    Ok(())
}

fn world(workspace: &Workspace, flags: &TestFlags, nix: &str, root: Root, mode: Mode, guest: Guest) -> World {
    World {
        nix: nix.into(),
        root,
        mode,
        guest,
        front_end: FrontEnd::Hook,
        project: workspace.project.clone(),
        target: workspace.target.clone(),
        profile: Profile::Debug.directory().into(),
        task: Task::Test { only: flags.only.clone() },
        limit_seconds: WORLD_LIMIT_SECONDS,
    }
}

fn run_world(world: &World, report: &mut Report) -> Result<()> {
    let group = world.title();
    progress(&format!("{group} …"));
    let (outcomes, succeeded) = world.run()?;
    let outcomes: Vec<Outcome> = match outcomes {
        Some(bytes) => serde_json::from_slice(&bytes)?,
        None => Vec::new(),
    };
    let failed = outcomes.iter().any(|outcome| matches!(outcome.verdict, Verdict::Failed(_)));
    report.add_group(&group, outcomes);
    if !succeeded && !failed {
        let reason = "the world ended before its tests did; see above".to_owned();
        report.add(
            &group,
            Outcome { name: format!("{group} world"), seconds: 0.0, verdict: Verdict::Failed(reason) },
        );
    }
    Ok(())
}
