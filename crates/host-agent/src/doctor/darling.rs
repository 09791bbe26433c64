//! Darling on the host: its launcher, its server, its versions, and the repairs that are switched on.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Finding, is_root, program};
use crate::config::Config;
use crate::guest::darling;

const INSTALL: &str = "install Darling (https://docs.darlinghq.org), set `darling.launcher`, or set `guest = \"linux\"` to \
                       try the stand-in";

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    match darling::launcher(config) {
        Ok(launcher) => findings.extend([found(config, &launcher), version(&launcher)]),
        Err(error) => findings.push(Finding::broken("darling", error, INSTALL)),
    }
    findings.push(repairs(config));
    findings
}

fn found(config: &Config, launcher: &Path) -> Finding {
    const NAME: &str = "darling";
    let origin = if config.darling.launcher.is_some() { "`darling.launcher`" } else { "PATH" };
    let server = launcher.with_file_name("darlingserver");
    if server.is_file() {
        Finding::fine(NAME, format!("{} (from {origin}), with its server beside it", launcher.display()))
    } else {
        Finding::broken(
            NAME,
            format!("{} (from {origin}), but there is no {}", launcher.display(), server.display()),
            INSTALL,
        )
    }
}

/// Which macOS it says it is, and which Darling it is as far as it tells.
fn version(launcher: &Path) -> Finding {
    const NAME: &str = "darling-version";
    let prefix = launcher.parent().and_then(Path::parent).unwrap_or(Path::new("/usr"));
    let plist = prefix.join("libexec/darling/System/Library/CoreServices/SystemVersion.plist");
    let Ok(text) = fs::read_to_string(&plist) else {
        return Finding::warning(
            NAME,
            format!(
                "{} can't be read: sw_vers fails inside, and configure scripts that ask it",
                plist.display()
            ),
            "install Darling's system component",
        );
    };
    let macos = plist_string(&text, "ProductVersion").unwrap_or("an unknown version");
    let build = commit(launcher).unwrap_or_else(|| "no commit recorded".into());
    Finding::fine(NAME, format!("says it is macOS {macos}; {build}"))
}

/// The string of a key in a property list in XML.
fn plist_string<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<key>{key}</key>"))?;
    let (_, rest) = rest.split_once("<string>")?;
    Some(rest.split_once("</string>")?.0.trim())
}

/// Branch and commit. The launcher sets up a prefix before it looks at its arguments, so it gets one to throw away.
fn commit(launcher: &Path) -> Option<String> {
    if !is_root() {
        return None;
    }
    let home = super::slot::Scratch::in_temporary().ok()?;
    let mut command = Command::new(launcher);
    command.arg("--version").env_clear().env("DPREFIX", home.path().join("p")).env("HOME", home.path());
    said_version(&program::output(command)?)
}

/// `<argv0> <branch> @ <commit>`; both are empty in a Darling that was not built from a checkout.
fn said_version(output: &str) -> Option<String> {
    let (before, commit) = output.lines().find_map(|line| line.split_once(" @ "))?;
    let branch = before.rsplit(' ').next().unwrap_or_default();
    match (branch.trim(), commit.trim()) {
        (_, "") => None,
        ("", commit) => Some(format!("commit {commit}")),
        (branch, commit) => Some(format!("commit {commit} of {branch}")),
    }
}

fn repairs(config: &Config) -> Finding {
    const NAME: &str = "darling-repairs";
    let repairs = [
        ("signals", "signal-repair", config.darling.signal_repair),
        ("no address randomisation", "address-randomisation-off", config.darling.address_randomisation_off),
        ("tick", "tick", config.darling.tick),
    ];
    let named = |on: bool| {
        let names = repairs.iter().filter(|repair| repair.2 == on).map(|repair| repair.0);
        names.collect::<Vec<_>>().join(", ")
    };
    let off: Vec<String> =
        repairs.iter().filter(|repair| !repair.2).map(|r| format!("`{} = true`", r.1)).collect();
    if off.is_empty() {
        Finding::fine(NAME, format!("on: {}", named(true)))
    } else {
        Finding::warning(
            NAME,
            format!("off: {}; stock Darling needs them", named(false)),
            format!("set {} in [darling]", off.join(" and ")),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_property_lists_and_from_the_launcher() {
        let plist = "<dict>\n<key>ProductName</key>\n<string>macOS</string>\n<key>ProductVersion</key>\n\t<string>11.7.4</string>";
        assert_eq!(plist_string(plist, "ProductVersion"), Some("11.7.4"));
        assert_eq!(plist_string(plist, "ProductBuildVersion"), None);
        let said = |line: &str| said_version(&format!("Setting up a new Darling prefix at /x\n{line}\n"));
        assert_eq!(said("/usr/bin/darling master @ 203af1f").as_deref(), Some("commit 203af1f of master"));
        assert_eq!(said("/usr/local/bin/darling  @ "), None);
        assert_eq!(said("nothing"), None);
    }
}
