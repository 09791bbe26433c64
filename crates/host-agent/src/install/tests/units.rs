//! The rendered units: what they say, and what systemd says of them.

use std::path::Path;
use std::process::Command;

use super::super::units::{Places, SERVICE, render};
use crate::config::Config;

/// The score that the documentation names; lower is better.
const PAGE: &str = include_str!("../../../../../docs/install.md");

fn units(program: &str) -> [(&'static str, String); 2] {
    let config = Config::default();
    let places = Places {
        program: Path::new(program),
        config_file: Path::new("/etc/darling-builder/config.toml"),
        config: &config,
    };
    render(places).unwrap()
}

/// A directory with the units; says why the test is skipped if there is no systemd-analyze.
fn written() -> Option<tempfile::TempDir> {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: no systemd-analyze");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    // Any program that is there: systemd-analyze looks.
    for (name, text) in units("/bin/true") {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    Some(directory)
}

#[test]
fn the_units_are_these() {
    let [(_, service), (_, socket)] = units("/usr/local/bin/host-agent");
    insta::assert_snapshot!(service);
    insta::assert_snapshot!(socket);
}

#[test]
fn systemd_finds_nothing_wrong_with_them() {
    let Some(directory) = written() else { return };
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--recursive-errors=no"]);
    for (name, _) in units("/bin/true") {
        command.arg(directory.path().join(name));
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn they_are_no_more_exposed_than_the_documentation_says() {
    let Some(directory) = written() else { return };
    let documented = PAGE.split_once("exposure level is **").unwrap().1.split_once("**").unwrap().0;
    let documented: f64 = documented.parse().unwrap();
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        // In tenths of tenths: fails above it.
        .arg(format!("--threshold={}", (documented * 10.0).round()))
        .arg(directory.path().join(SERVICE))
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| line.contains("Overall exposure level")).unwrap_or(&said);
    assert!(output.status.success(), "{line}");
}
