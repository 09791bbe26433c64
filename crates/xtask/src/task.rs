//! What runs inside a world.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::packages::{self, Package};
use crate::world::init;
use crate::{bench, demo, in_world, test};

/// What runs inside a world.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Task {
    /// End-to-end tests whose name contains the text.
    Test {
        /// Part of the name.
        only: Option<String>,
    },
    /// The demo.
    Demo,
    /// `bench overhead`.
    Overhead {
        /// Rounds.
        rounds: u32,
    },
    /// `bench darling`.
    DarlingFigures {
        /// Rounds.
        rounds: u32,
    },
    /// Packages from source.
    Packages {
        /// Which.
        packages: Vec<Package>,
        /// How many at once.
        jobs: usize,
    },
    /// Any command.
    Command {
        /// Program and arguments.
        words: Vec<String>,
        /// With our daemon running.
        daemon: bool,
    },
}

impl Task {
    /// Name of a directory below cargo's target directory that outlives the world: its `nix` is the world's `/nix`, and
    /// the whole is [`crate::world::KEPT`] there.
    pub fn kept(&self) -> Option<&'static str> {
        match self {
            Task::Packages { .. } => Some(packages::KEPT),
            _ => None,
        }
    }
}

/// Does the task of the world that this process is in; `false` if its result is bad.
pub fn run() -> Result<bool> {
    let world = init::world()?;
    match world.task.clone() {
        Task::Test { only } => test::end_to_end::run(world, only.as_deref()),
        Task::Demo => demo::inside(world),
        Task::Overhead { rounds } => bench::overhead::inside(world, rounds),
        Task::DarlingFigures { rounds } => bench::darling::inside(world, rounds),
        Task::Packages { packages, jobs } => packages::inside(world, &packages, jobs),
        Task::Command { words, daemon } => in_world::inside(world, &words, daemon),
    }
}
