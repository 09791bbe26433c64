//! Packages of another Debian suite, fetched by the machine's own apt with a configuration of its own.
//!
//! The archive's address is the one that this machine uses for its own suite, signatures are checked with Debian's
//! keyring, and nothing of the machine's apt state is read or written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Downloads `names` of `suite` and everything they depend on; returns the package files.
pub fn download(directory: &Path, suite: &str, names: &[&str]) -> Result<Vec<PathBuf>> {
    prepare(directory, "deb", suite)?;
    run(apt(directory).args(["install", "--yes", "--download-only"]).args(names))?;
    let mut packages = Vec::new();
    for entry in fs::read_dir(directory.join("cache/archives"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            packages.push(path);
        }
    }
    packages.sort();
    Ok(packages)
}

/// A suite's source packages.
#[derive(Debug)]
pub struct Sources {
    directory: PathBuf,
}

impl Sources {
    /// Fetches the lists of `suite`; apt's own files go to `directory`.
    pub fn new(directory: &Path, suite: &str) -> Result<Self> {
        prepare(directory, "deb-src", suite)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Downloads upstream's archive of the source package `name` into `to`; returns the file names apt has for it.
    pub fn download(&self, name: &str, to: &Path) -> Result<Vec<String>> {
        let source = |options: &[&str]| {
            let mut command = apt(&self.directory);
            command.args(["source", "--download-only", "--tar-only"]).args(options).arg(name).current_dir(to);
            command
        };
        let output = source(&["--print-uris"]).output().context("failed to run apt-get")?;
        run(&mut source(&[]))?;
        // Lines are: 'URI' file size hash
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().filter(|line| line.starts_with('\''));
        Ok(lines.filter_map(|line| Some(line.split(' ').nth(1)?.to_owned())).collect())
    }
}

/// apt's directories, and the lists of a suite.
fn prepare(directory: &Path, kind: &str, suite: &str) -> Result<()> {
    if !Path::new(KEYRING).exists() {
        bail!("this machine has no {KEYRING} (package debian-archive-keyring)");
    }
    for sub in ["state/lists/partial", "cache/archives/partial", "sources"] {
        fs::create_dir_all(directory.join(sub))?;
    }
    let sources = format!("{kind} [signed-by={KEYRING}] {} {suite} main\n", archive()?);
    fs::write(directory.join("sources/suite.list"), sources)?;
    // An empty list of installed packages: dependencies are resolved from nothing, as for a new root.
    fs::write(directory.join("status"), "")?;
    run(apt(directory).arg("update"))
}

/// Where this machine gets Debian from: what its apt would fetch for its own suite. Needs no lists to be there.
pub fn archive() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| release.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let output = Command::new("apt-get")
        .args(["--print-uris", "update"])
        .env("LC_ALL", "C")
        .output()
        .context("failed to run apt-get")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match archive_in(&text, value("VERSION_CODENAME=")) {
        Some(uri) if value("ID=") == "debian" => Ok(uri.to_owned()),
        _ => bail!("apt on this machine names no Debian archive to get other suites from"),
    }
}

/// The archive that has `suite`, among lines like `'ARCHIVE/dists/SUITE/InRelease' file size`.
fn archive_in<'a>(uris: &'a str, suite: &str) -> Option<&'a str> {
    let end = format!("/dists/{suite}/InRelease'");
    uris.lines().find_map(|line| Some(line.split(' ').next()?.strip_suffix(&end)?.trim_start_matches('\'')))
}

fn apt(directory: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
    let at = |sub: &str| directory.join(sub).display().to_string();
    for option in [
        format!("Dir::State={}", at("state")),
        format!("Dir::State::status={}", at("status")),
        format!("Dir::Cache={}", at("cache")),
        format!("Dir::Etc::SourceParts={}", at("sources")),
        "Dir::Etc::SourceList=/dev/null".into(),
        "Dir::Etc::Preferences=/dev/null".into(),
        "Dir::Etc::PreferencesParts=/dev/null".into(),
        "APT::Install-Recommends=false".into(),
        "APT::Architectures=amd64".into(),
        "APT::Sandbox::User=root".into(),
        "Acquire::Languages=none".into(),
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".into(),
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
        "Acquire::Retries=2".into(),
        // A mirror may be behind the date of its lists; the versions are named and what comes is signed.
        "Acquire::Check-Valid-Until=false".into(),
        "Acquire::http::Timeout=30".into(),
    ] {
        command.args(["-o", &option]);
    }
    command.arg("--quiet");
    command
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("failed to run apt-get")?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<_> = errors.lines().filter(|line| line.starts_with("E:")).collect();
    bail!("apt-get failed: {}", errors.join("; "))
}

#[cfg(test)]
mod tests {
    use super::archive_in;

    #[test]
    fn finds_the_archive_of_the_machines_own_suite() {
        let uris = "'http://archive.example/debian-security/dists/bookworm-security/InRelease' a 0 \n\
                    'http://archive.example/debian/dists/bookworm-updates/InRelease' b 0 \n\
                    'http://archive.example/debian/dists/bookworm/InRelease' c 0 \n";
        assert_eq!(archive_in(uris, "bookworm"), Some("http://archive.example/debian"));
        assert_eq!(archive_in(uris, "trixie"), None);
        assert_eq!(archive_in("", "bookworm"), None);
    }
}
