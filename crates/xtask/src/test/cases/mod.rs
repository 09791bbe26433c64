//! The end-to-end tests: each builds a fixture through the hook or the external builder and says what must come of it.

mod attributes;
mod bad_input;
mod both_guests;
mod cancellation;
mod daemon_life;
mod external;
mod failures;
mod fixed;
mod hermetic;
mod logs;
mod network;
mod oracle;
mod outputs;
mod references;
mod refused;
mod same_as_local;
mod scale_out;
mod scheduling;
mod settings;
mod ssh;
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
    /// As `SingleUser`, and only with Darling as the guest.
    DarlingGuest,
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
            Place::DarlingGuest => world.mode == Mode::SingleUser && world.guest == Guest::Darling,
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

/// Tests of one theme.
#[derive(Debug)]
pub struct Theme {
    /// Goes before the tests' names.
    pub name: &'static str,
    /// The tests, in the order they run.
    pub cases: &'static [Case],
    /// Ways in that they are for.
    front_ends: &'static [FrontEnd],
}

impl Theme {
    const fn new(name: &'static str, cases: &'static [Case], front_ends: &'static [FrontEnd]) -> Self {
        Self { name, cases, front_ends }
    }

    /// Whether it is for the world's way in.
    pub fn runs_in(&self, world: &World) -> bool {
        self.front_ends.contains(&world.front_end)
    }
}

const ALL: &[FrontEnd] = &[FrontEnd::Hook, FrontEnd::ExternalBuilder];
const HOOK: &[FrontEnd] = &[FrontEnd::Hook];
const EXTERNAL_BUILDER: &[FrontEnd] = &[FrontEnd::ExternalBuilder];

/// All tests by theme, in the order they run.
pub const THEMES: &[Theme] = &[
    Theme::new("outputs", outputs::CASES, ALL),
    Theme::new("references", references::CASES, ALL),
    Theme::new("fixed", fixed::CASES, ALL),
    Theme::new("attributes", attributes::CASES, ALL),
    Theme::new("same_as_local", same_as_local::CASES, ALL),
    Theme::new("failures", failures::CASES, ALL),
    Theme::new("logs", logs::CASES, ALL),
    Theme::new("scheduling", scheduling::CASES, ALL),
    Theme::new("refused", refused::CASES, HOOK),
    Theme::new("external", external::CASES, EXTERNAL_BUILDER),
    Theme::new("hermetic", hermetic::CASES, ALL),
    Theme::new("network", network::CASES, ALL),
    Theme::new("cancellation", cancellation::CASES, ALL),
    Theme::new("daemon_life", daemon_life::CASES, ALL),
    Theme::new("settings", settings::CASES, HOOK),
    Theme::new("ssh", ssh::CASES, HOOK),
    Theme::new("oracle", oracle::THROUGH_A_HOOK, HOOK),
    Theme::new("oracle", oracle::CASES, EXTERNAL_BUILDER),
    Theme::new("scale_out", scale_out::CASES, EXTERNAL_BUILDER),
    Theme::new("bad_input", bad_input::CASES, HOOK),
    Theme::new("both_guests", both_guests::CASES, HOOK),
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

    /// nix-build's exit status when an output is not as it must be. Nix itself finds that if it registers outputs.
    pub fn status_of_rejection(&self) -> i32 {
        match self.world.front_end {
            FrontEnd::ExternalBuilder => 1,
            FrontEnd::Hook => self.status_of_failure(),
        }
    }

    /// nix-build's exit status when a fixed output has another hash. That of a hook may be the network's fault, see below.
    pub fn status_of_wrong_hash(&self) -> i32 {
        match self.world.front_end {
            FrontEnd::ExternalBuilder => self.status_of(102),
            FrontEnd::Hook => self.status_of_fixed_failure(),
        }
    }

    /// An error that skips the test unless Nix comes by this way.
    pub fn only_through(&self, front_end: FrontEnd, why: &str) -> Result<()> {
        if self.world.front_end == front_end { Ok(()) } else { Err(NotHere(why.into()).into()) }
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
