//! The end-to-end tests: each builds a fixture through the hook and says what must come of it.

mod attributes;
mod bad_input;
mod cancellation;
mod daemon_life;
mod failures;
mod fixed;
mod hermetic;
mod logs;
mod outputs;
mod references;
mod refused;
mod same_as_local;
mod scheduling;
mod store_object;

use std::fmt;

use anyhow::Result;

use crate::world::session::Session;
use crate::world::{FrontEnd, Guest, Mode, World};

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
    /// As `SingleUser`, and its builder needs Linux (`/proc`, bash's `/dev/tcp`).
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
pub const THEMES: &[(&str, &[Case])] = &[
    ("outputs", outputs::CASES),
    ("references", references::CASES),
    ("fixed", fixed::CASES),
    ("attributes", attributes::CASES),
    ("same_as_local", same_as_local::CASES),
    ("failures", failures::CASES),
    ("logs", logs::CASES),
    ("scheduling", scheduling::CASES),
    ("refused", refused::CASES),
    ("hermetic", hermetic::CASES),
    ("cancellation", cancellation::CASES),
    ("daemon_life", daemon_life::CASES),
    ("bad_input", bad_input::CASES),
];

impl Session {
    /// This status, unless a Nix daemon is between, whose client is not told.
    fn status_of(&self, status: i32) -> i32 {
        if self.world.mode == Mode::Daemon { 1 } else { status }
    }

    /// nix-build's exit status when a builder failed. A hook's status says "permanent failure" to Nix before 2.29 only,
    /// and a client of a Nix daemon is not told.
    pub fn status_of_failure(&self) -> i32 {
        match self.world.front_end {
            FrontEnd::ExternalBuilder => self.status_of(100),
            FrontEnd::Hook if self.nix_at_least(2, 29) => 1,
            FrontEnd::Hook => self.status_of(100),
        }
    }

    /// nix-build's exit status when the builder of a fixed output failed: that may be the network's fault, so Nix never
    /// takes it as permanent.
    pub fn status_of_fixed_failure(&self) -> i32 {
        1
    }

    /// nix-build's exit status when a build took too long.
    pub fn status_of_timeout(&self) -> i32 {
        match self.world.front_end {
            FrontEnd::ExternalBuilder => self.status_of(101),
            FrontEnd::Hook if self.nix_at_least(2, 29) => 1,
            FrontEnd::Hook => self.status_of(101),
        }
    }
}
