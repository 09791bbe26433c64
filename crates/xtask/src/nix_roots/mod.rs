//! Root directories with the Nix of several Debian suites, below `target/nix-roots/<version>`.
//!
//! Debian packages Nix in three generations that differ where it matters here (the hook setting, exit statuses, build
//! directories), so its archive is where the tests get real Nix from: nothing is installed on the machine. A root is
//! made once; a stamp file says that it is whole.

pub mod apt;
mod unpack;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::progress;
use crate::workspace::Workspace;

/// A Nix that tests run through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// Version, as `nix-store --version` says.
    pub version: &'static str,
    /// Debian suite that has it.
    pub suite: &'static str,
}

impl Release {
    /// Whether it can hand builds to a program (2.32).
    pub fn has_external_builders(&self) -> bool {
        let mut parts = self.version.split('.').map_while(|part| part.parse::<u32>().ok());
        (parts.next(), parts.next()) >= (Some(2), Some(32))
    }
}

/// All releases, oldest first.
pub const RELEASES: &[Release] = &[
    Release { version: "2.8.0", suite: "bookworm" },
    Release { version: "2.26.3", suite: "trixie" },
    Release { version: "2.34.8", suite: "sid" },
];

/// What a root holds; dependencies come along.
const PACKAGES: &[&str] = &[
    "nix-bin",
    "bash",
    "dash",
    "coreutils",
    "sed",
    "grep",
    "gawk",
    "diffutils",
    "findutils",
    "tar",
    "gzip",
    "bzip2",
    "xz-utils",
    "util-linux",
    "mount",
    "iproute2",
    "passt",
    "procps",
    "libc-bin",
    "openssh-server",
    "openssh-client",
];

/// Stands in a whole root; its contents are a recipe that must be equal to be reused.
const STAMP: &str = ".complete";

/// Makes the roots that `wanted` names and prints where they are.
pub fn run(workspace: &Workspace, wanted: &str) -> Result<bool> {
    for release in select(wanted)? {
        println!("{}", root(&workspace.target, release)?.display());
    }
    Ok(true)
}

/// The releases that `wanted` names: one version, or `all`.
pub fn select(wanted: &str) -> Result<Vec<Release>> {
    if wanted == "all" {
        return Ok(RELEASES.to_vec());
    }
    match RELEASES.iter().find(|release| release.version == wanted) {
        Some(release) => Ok(vec![*release]),
        None => {
            let known: Vec<_> = RELEASES.iter().map(|release| release.version).collect();
            bail!("no Nix {wanted} here; there are {} and all", known.join(", "))
        }
    }
}

/// The root of this release, made if need be; an error says why it can't be had.
pub fn root(target: &Path, release: Release) -> Result<PathBuf> {
    let root = place(target, release);
    let recipe = recipe(release);
    if fs::read_to_string(root.join(STAMP)).is_ok_and(|stamp| stamp == recipe) {
        return Ok(root);
    }
    let started = Instant::now();
    progress(&format!("unpacking Nix {} from Debian {} …", release.version, release.suite));
    let cache = target.join("nix-roots").join(format!("{}.apt", release.version));
    let packages = apt::download(&cache, release.suite, PACKAGES)
        .with_context(|| format!("failed to get Nix {} from Debian {}", release.version, release.suite))?;
    check_version(&packages, release)?;
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("failed to remove {}", root.display()))?;
    }
    unpack::root(&root, &packages)?;
    fs::write(root.join(STAMP), recipe)?;
    fs::remove_dir_all(&cache)?;
    progress(&format!("unpacked {} packages in {:.0} s", packages.len(), started.elapsed().as_secs_f64()));
    Ok(root)
}

/// Where the root of this release is, if it has been made.
pub fn place(target: &Path, release: Release) -> PathBuf {
    target.join("nix-roots").join(release.version)
}

fn recipe(release: Release) -> String {
    format!("1\n{} {}\n{}\n", release.version, release.suite, PACKAGES.join(" "))
}

/// A suite moves on: sid has another Nix some day, and what tests expect is per version.
fn check_version(packages: &[PathBuf], release: Release) -> Result<()> {
    let names = packages.iter().filter_map(|path| path.file_name()?.to_str());
    let version = names.filter_map(|name| name.strip_prefix("nix-bin_")).next().unwrap_or("no Nix");
    match version.strip_prefix(release.version) {
        Some(rest) if rest.starts_with(['-', '+', '%']) => Ok(()),
        _ => bail!("Debian {} has {version} now, not Nix {}", release.suite, release.version),
    }
}
