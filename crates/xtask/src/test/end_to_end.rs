//! The end-to-end tests of one world, run inside it.

use std::time::Instant;

use anyhow::Result;

use super::cases::{self, Case};
use super::report::{Outcome, Verdict};
use crate::world::daemon;
use crate::world::leftovers::Before;
use crate::world::session::Session;
use crate::world::{REPORT, World};

/// Runs every case of this world whose name contains `only`, then looks for what is left behind.
pub fn run(world: World, only: Option<&str>) -> Result<bool> {
    let prefix = world.title();
    let mut outcomes = Vec::new();
    let before = Before::look()?;
    let mut session = Session::new(world)?;
    session.start_daemons(false)?;
    for theme in cases::THEMES {
        for case in theme.cases {
            let name = format!("{}::{}", theme.name, case.name);
            if only.is_some_and(|only| !name.contains(only))
                || !(theme.runs_in(&session.world) && case.runs_in(&session.world))
            {
                continue;
            }
            let outcome = run_case(&mut session, case, format!("{prefix} {name}"));
            println!("{}", outcome.line());
            outcomes.push(outcome);
        }
    }
    let started = Instant::now();
    let verdict = match session.close().and_then(|()| before.left(&session)) {
        Ok(left) if left.is_empty() => Verdict::Passed,
        Ok(left) => Verdict::Failed(left.join("\n")),
        Err(error) => Verdict::Failed(format!("{error:#}")),
    };
    let seconds = started.elapsed().as_secs_f64();
    let outcome = Outcome { name: format!("{prefix} leaves_nothing_behind"), seconds, verdict };
    println!("{}", outcome.line());
    outcomes.push(outcome);
    let passed = !outcomes.iter().any(|outcome| matches!(outcome.verdict, Verdict::Failed(_)));
    std::fs::write(REPORT, serde_json::to_vec(&outcomes)?)?;
    Ok(passed)
}

fn run_case(session: &mut Session, case: &Case, name: String) -> Outcome {
    let started = Instant::now();
    let result = (case.run)(session);
    let seconds = started.elapsed().as_secs_f64();
    let verdict = match result {
        Ok(()) => Verdict::Passed,
        Err(error) => match error.downcast_ref::<cases::NotHere>() {
            Some(reason) => Verdict::Skipped(reason.0.clone()),
            None => Verdict::Failed(format!("{error:#}\n  daemon's log:\n{}", daemon::log_tail())),
        },
    };
    Outcome { name, seconds, verdict }
}
