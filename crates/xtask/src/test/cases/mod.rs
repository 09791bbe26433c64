//! The end-to-end tests: each builds a fixture through the hook and says what must come of it.

mod outputs;

use std::fmt;

use anyhow::Result;

use crate::world::session::Session;
use crate::world::{Guest, Mode, World};

/// One test.
#[derive(Debug)]
pub struct Case {
    /// The behaviour it shows.
    pub name: &'static str,
    /// Where it is worth running.
    pub place: Place,
    /// The test; an error says what was seen instead.
    pub run: fn(&mut Session) -> Result<()>,
}

/// Where a test is worth running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Whoever builds.
    Everywhere,
    /// What it shows does not depend on who builds.
    SingleUser,
    /// It is about the Nix daemon.
    NixDaemon,
    /// Its builder needs Linux (`/proc`, bash's `/dev/tcp`).
    LinuxGuest,
}

/// Returned as an error by a test that can't run in this world.
#[derive(Debug)]
pub struct NotHere(pub String);

impl fmt::Display for NotHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotHere {}

impl Case {
    /// Whether it runs in this world.
    pub fn runs_in(&self, world: &World) -> bool {
        match self.place {
            Place::Everywhere => true,
            Place::SingleUser => world.mode == Mode::SingleUser,
            Place::NixDaemon => world.mode == Mode::Daemon,
            Place::LinuxGuest => world.mode == Mode::SingleUser && world.guest == Guest::Linux,
        }
    }
}

/// A list of cases: the function's name is the test's.
macro_rules! cases {
    ($($place:ident: $($name:ident),+;)+) => {
        /// The tests of this theme.
        pub const CASES: &[crate::test::cases::Case] = &[$($(crate::test::cases::Case {
            name: stringify!($name),
            place: crate::test::cases::Place::$place,
            run: $name,
        }),+),+];
    };
}
use cases;

/// All tests by theme, in the order they run.
pub const THEMES: &[(&str, &[Case])] = &[("outputs", outputs::CASES)];
