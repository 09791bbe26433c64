//! What runs inside a world.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::test;
use crate::world::init;

/// What runs inside a world.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Task {
    /// End-to-end tests whose name contains the text.
    Test {
        /// Part of the name.
        only: Option<String>,
    },
}

/// Does the task of the world that this process is in; `false` if its result is bad.
pub fn run() -> Result<bool> {
    let world = init::world()?;
    match world.task.clone() {
        Task::Test { only } => test::end_to_end::run(world, only.as_deref()),
    }
}
