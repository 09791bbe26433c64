//! Every command and flag, each defined once.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::darwin::std_library::Source;
use crate::packages::Package;
use crate::vm_test::Backend;
use crate::world::FrontEnd;

/// Development tasks of darling-builder.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
pub struct Flags {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the main job: a real Nix builds a small package for x86_64-darwin through hook, daemon and slot
    Demo(DemoFlags),
    /// Run every check: format, lints, unit tests, then the fixtures through real Nix of several versions
    Test(TestFlags),
    /// Measure
    Bench {
        /// What to measure.
        #[command(subcommand)]
        what: BenchCommand,
    },
    /// Build GNU packages from source for x86_64-darwin inside Darling, and print a table of how far each came
    Packages(PackagesFlags),
    /// Install the product in a machine of its own and try it in twelve stages (see docs/vm-test.md)
    VmTest(VmTestFlags),
    /// Run the stages in the machine that this is (used by the machines of vm-test)
    #[command(hide = true)]
    VmStages {
        /// What to do, JSON
        #[arg(long, value_name = "FILE")]
        plan: PathBuf,
    },
    /// Run a command in a world as the tests have it: root, Nix single-user, the daemon and the hook set up
    InWorld(InWorldFlags),
    /// Unpack Debian's Nix packages of several suites below target/nix-roots, as root directories to run them in
    NixRoots {
        /// Which version
        #[arg(long, default_value = "all", value_name = "VERSION|all")]
        nix: String,
    },
    /// Write nixos/options.md from the options of the NixOS module
    NixosOptions,
    /// Cross-build darwin-agent for the guest (x86_64-apple-darwin) into target/darwin, and check the result
    Darwin(DarwinFlags),
    /// Build what users install into target/dist: an archive and a Debian package, with checksums
    Dist(DistFlags),
    /// First process of a world (used by the other commands)
    #[command(hide = true)]
    WorldInit {
        /// Description of the world, JSON.
        spec: PathBuf,
    },
    /// What runs in a world (used by the other commands)
    #[command(hide = true)]
    WorldTask,
}

/// Flags of `darwin`.
#[derive(Debug, Default, Args)]
pub struct DarwinFlags {
    /// Link with this zig instead of one fetched from PyPI
    #[arg(long, value_name = "PROGRAM")]
    pub zig: Option<PathBuf>,
    /// Where the standard library comes from
    #[arg(long, value_enum, default_value = "auto")]
    pub std: Source,
    /// Build nothing, only check this file
    #[arg(long, value_name = "FILE")]
    pub check: Option<PathBuf>,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoFlags {
    /// Which Nix to show it with
    #[arg(long, default_value = "2.8.0", value_name = "VERSION")]
    pub nix: String,
    /// Use the stand-in guest even if Darling is there
    #[arg(long)]
    pub stand_in: bool,
}

/// Flags of `dist`.
#[derive(Debug, Default, Args)]
pub struct DistFlags {
    /// Take this agent for the guest instead of cross-building one
    #[arg(long, value_name = "FILE")]
    pub darwin_agent: Option<PathBuf>,
}

/// Flags of `packages`.
#[derive(Debug, Args)]
pub struct PackagesFlags {
    /// Only this one; may be given several times
    #[arg(long, value_enum, value_name = "NAME")]
    pub only: Vec<Package>,
    /// How many to build at once
    #[arg(long, default_value = "1", value_name = "N")]
    pub jobs: std::num::NonZeroU8,
    /// Build again what earlier runs have built
    #[arg(long)]
    pub fresh: bool,
}

/// Flags of `vm-test`.
#[derive(Debug, Args)]
pub struct VmTestFlags {
    /// Where; by default the best that works, and it says which and why
    #[arg(long, value_enum, value_name = "PLACE")]
    pub backend: Option<Backend>,
    /// Only these stages
    #[arg(long, value_name = "N[,M]", value_delimiter = ',')]
    pub stage: Vec<u8>,
    /// What runs inside slots; by default Darling if this machine has it (but not where the processor is emulated)
    #[arg(long, value_enum, default_value = "auto")]
    pub guest: GuestFlag,
    /// Leave the machine running, with the product installed, and say how to enter it
    #[arg(long)]
    pub keep: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Write the JUnit report there [default: target/vm-test/junit.xml]
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Break what this stage tests, to see that it fails; later stages are left out
    #[arg(long = "break", value_name = "N")]
    pub broken: Option<u8>,
}

/// What runs inside slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GuestFlag {
    /// What fits
    Auto,
    /// Darling, of this machine
    Darling,
    /// The stand-in
    StandIn,
}

/// Flags of `test`.
#[derive(Debug, Args)]
pub struct TestFlags {
    /// Which Nix to run the fixtures through
    #[arg(long, default_value = "all", value_name = "VERSION|all")]
    pub nix: String,
    /// Only end-to-end tests whose name contains this; leaves out format, lints and unit tests
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
    /// Run the fixtures and the hostile builds on Darling as well
    #[arg(long)]
    pub darling: bool,
    /// Only through this way in
    #[arg(long, value_enum, value_name = "NAME")]
    pub front_end: Option<FrontEndFlag>,
    /// Leave out format, lints and unit tests
    #[arg(long)]
    pub end_to_end: bool,
}

/// Ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FrontEndFlag {
    /// The setting `build-hook`
    Hook,
    /// The setting `external-builders`
    ExternalBuilder,
}

impl From<FrontEndFlag> for FrontEnd {
    fn from(flag: FrontEndFlag) -> Self {
        match flag {
            FrontEndFlag::Hook => FrontEnd::Hook,
            FrontEndFlag::ExternalBuilder => FrontEnd::ExternalBuilder,
        }
    }
}

/// Flags of `in-world`.
#[derive(Debug, Args)]
pub struct InWorldFlags {
    /// Which Nix
    #[arg(long, default_value = "2.8.0", value_name = "VERSION")]
    pub nix: String,
    /// Nix alone, without our daemon
    #[arg(long)]
    pub no_daemon: bool,
    /// The command, and its arguments
    #[arg(trailing_var_arg = true, required = true)]
    pub command: Vec<String>,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// What a build through the hook costs beyond the same build made locally, and beside Nix's own remote builder
    Overhead(OverheadFlags),
    /// Slots, agent, processes, log and a trivial build inside Darling, each beside the stand-in or bare Linux
    Darling(DarlingBenchFlags),
    /// Hash and reference scan of a large output, beside nix-store --dump | sha256sum
    Hash(HashFlags),
}

/// Flags of `bench overhead`.
#[derive(Debug, Args)]
pub struct OverheadFlags {
    /// Which Nix
    #[arg(long, default_value = "2.8.0", value_name = "VERSION")]
    pub nix: String,
    /// Rounds; each way builds once a round
    #[arg(long, default_value_t = 15, value_name = "N")]
    pub rounds: u32,
}

/// Flags of `bench darling`.
#[derive(Debug, Args)]
pub struct DarlingBenchFlags {
    /// Rounds; each thing is measured once a round in each place
    #[arg(long, default_value_t = 15, value_name = "N")]
    pub rounds: u32,
}

/// Flags of `bench hash`.
#[derive(Debug, Args)]
pub struct HashFlags {
    /// Size of the output, MiB
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    pub mib: u64,
    /// Rounds; each way runs once a round
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub rounds: u32,
}
