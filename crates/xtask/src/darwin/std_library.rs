//! A Rust toolchain that has, or can compile, the standard library for the guest.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use super::{TARGET, install};
use crate::progress;
use crate::workspace::Workspace;

/// Where the standard library comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Source {
    /// The first of the others that works
    #[default]
    Auto,
    /// The compiler in use has it, or rustup adds it
    Installed,
    /// Compiled from Debian's rust-web-src with Debian's rustc-web
    Debian,
}

/// A toolchain to build with.
#[derive(Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The one in use.
    InUse,
    /// Debian's, which compiles the standard library as well. Its compiler must be of the sources' version.
    Debian,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InUse => "the standard library of the compiler in use",
            Self::Debian => {
                "a standard library compiled from Debian's sources (takes minutes the first time)"
            }
        })
    }
}

/// Debian's compiler, its cargo, and the sources.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Where Debian puts them.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

impl Toolchain {
    /// The toolchain to use; installs what is missing.
    pub fn find(source: Source) -> Result<Self> {
        match source {
            Source::Installed => {
                ensure!(
                    in_use_has_it() || rustup_adds_it(),
                    "the compiler in use has no standard library for {TARGET}; run: rustup target add {TARGET}"
                );
                Ok(Self::InUse)
            }
            Source::Debian => Self::debian(),
            Source::Auto if in_use_has_it() || rustup_adds_it() => Ok(Self::InUse),
            Source::Auto => Self::debian().with_context(|| {
                format!("rustup can't supply {TARGET}, and the other way is closed as well")
            }),
        }
    }

    fn debian() -> Result<Self> {
        if !debian_is_complete() {
            install::apt(
                &DEBIAN_PACKAGES,
                "compiling the standard library takes Debian's compiler and its sources",
            )?;
        }
        if !debian_is_complete() {
            bail!(
                "{DEBIAN_RUSTC} has no sources of its own version, although {} are installed",
                DEBIAN_PACKAGES.join(", ")
            );
        }
        Ok(Self::Debian)
    }

    /// Builds the agent; the path of what the linker wrote.
    pub fn build(&self, workspace: &Workspace, directory: &Path, linker: &Path) -> Result<PathBuf> {
        let (mut command, target_directory) = match self {
            Self::InUse => {
                (Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())), "build")
            }
            Self::Debian => {
                let mut command = Command::new(DEBIAN_CARGO);
                // What runs this may be another toolchain's cargo.
                for name in ["RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTDOC", "CARGO"] {
                    command.env_remove(name);
                }
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                (command, "build-debian")
            }
        };
        let target_directory = directory.join(target_directory);
        // Without one, rustc asks a program of macOS where the SDK is, and warns that it is missing.
        let no_sdk = directory.join("no-sdk");
        std::fs::create_dir_all(&no_sdk)?;
        command
            .current_dir(&workspace.project)
            .args([
                "build",
                "--locked",
                "--profile",
                "agent",
                "--package",
                "darwin-agent",
                "--target",
                TARGET,
            ])
            .arg("--target-dir")
            .arg(&target_directory)
            .env("CARGO_TARGET_X86_64_APPLE_DARWIN_LINKER", linker)
            .env("CARGO_PROFILE_AGENT_STRIP", "false")
            .env("MACOSX_DEPLOYMENT_TARGET", "11.0")
            .env("SDKROOT", &no_sdk)
            .env_remove("CARGO_BUILD_TARGET")
            .env_remove("RUSTFLAGS")
            .stdin(Stdio::null());
        if *self == Self::Debian {
            command.arg("-Zbuild-std=std,panic_abort");
        }
        ensure!(command.status().context("failed to run cargo")?.success(), "cargo build failed");
        Ok(target_directory.join(TARGET).join("agent/darwin-agent"))
    }
}

/// Whether the compiler in use comes with the standard library for the guest.
fn in_use_has_it() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    printed(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))
        .is_some_and(|directory| holds_std(Path::new(&directory)))
}

fn holds_std(directory: &Path) -> bool {
    directory.read_dir().is_ok_and(|mut entries| {
        entries
            .any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libstd-")))
    })
}

fn rustup_adds_it() -> bool {
    if printed(Command::new("rustup").arg("--version")).is_none() {
        return false;
    }
    progress(&format!("adding the standard library for {TARGET} with rustup …"));
    let added = Command::new("rustup")
        .args(["target", "add", TARGET])
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success());
    added && in_use_has_it()
}

/// Whether Debian's compiler is there, with sources where it looks for them.
fn debian_is_complete() -> bool {
    Path::new(DEBIAN_CARGO).exists()
        && printed(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN"))
            .is_some_and(|root| Path::new(&root).join("lib/rustlib/src/rust/library/Cargo.lock").exists())
}

/// The first line that a command prints, if it succeeds.
fn printed(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}
