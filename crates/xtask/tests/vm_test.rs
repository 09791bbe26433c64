//! A test of the tester: what is broken on purpose must be found, by the stage that is there for it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Why not, if so: the machine itself is made by `cargo xtask vm-test`, which takes minutes and downloads.
fn missing(target: &Path) -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        Some("needs root")
    } else if !target.join("vm-test/debian/tree.recipe").exists() {
        Some("no Debian tree has been made (cargo xtask vm-test makes it)")
    } else {
        None
    }
}

#[test]
fn a_stage_that_is_broken_on_purpose_fails_with_its_reason() {
    let xtask = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let target = xtask.ancestors().nth(2).unwrap();
    if let Some(reason) = missing(target) {
        eprintln!("skipped: {reason}");
        return;
    }
    let junit = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new(xtask)
        .args([
            "vm-test",
            "--backend",
            "container",
            "--guest",
            "stand-in",
            "--json",
            "--stage",
            "8",
            "--break",
            "9",
        ])
        .arg("--junit")
        .arg(junit.path())
        .env("CARGO_TARGET_DIR", target)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let step = |name: &str| {
        report["steps"].as_array().unwrap().iter().find(|step| step["name"] == name).unwrap().clone()
    };
    assert_eq!(report["broken"], Value::Null, "{report:#}");
    assert_eq!(step("build")["verdict"], "passed", "{report:#}");
    assert_eq!(step("log")["verdict"], "failed", "{report:#}");
    let reason = step("log")["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("the build ended before it printed \"first line\""), "{reason}");
    let xml = std::fs::read_to_string(junit.path()).unwrap();
    assert!(xml.contains("failures=\"1\"") && xml.contains("the build ended before it printed"), "{xml}");
}
