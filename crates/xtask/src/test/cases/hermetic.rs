//! What a builder can't reach.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};

use super::cases;
use crate::world::session::{Build, Session};

const FILE: &str = "hermetic.nix";

/// All that a builder may answer yes to.
const YES: &[&str] = &["input readable", "file input readable"];

cases! {
    LinuxGuest: only_the_closure_and_nothing_of_the_host, neighbours_do_not_see_each_other;
}

fn only_the_closure_and_nothing_of_the_host(session: &mut Session) -> Result<()> {
    let secrets = ["/root/secret", "/home/tester/secret", "/tmp/secret", "/run/secret"];
    for secret in secrets {
        fs::write(secret, "secret")?;
        fs::set_permissions(secret, fs::Permissions::from_mode(0o644))?;
    }
    for directory in ["/root", "/home/tester"] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    let build = Build::of(FILE, "stranger").and("probe").with(&["--argstr", "port", &port]);
    let built = session.build(&build);
    for secret in secrets {
        fs::remove_file(secret)?;
    }
    let built = built?.succeeds()?;
    let probe = &built.outputs[1];
    let answers = fs::read_to_string(probe.join("answers"))?;
    let wrong: Vec<&str> = answers
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(question, answer)| match *answer {
            "yes" => !YES.contains(question),
            "no" => YES.contains(question),
            _ => false,
        })
        .map(|(question, _)| question)
        .collect();
    ensure!(wrong.is_empty(), "wrong answers to {wrong:?} in:\n{answers}");
    ensure!(answers.lines().count() >= 27, "questions are missing:\n{answers}");
    // The two inputs, and the output itself.
    let store: BTreeSet<String> =
        fs::read_to_string(probe.join("store"))?.lines().map(str::to_owned).collect();
    let strange: Vec<_> = store.iter().filter(|name| !name[32..].starts_with("-hermetic-")).collect();
    ensure!(strange.is_empty() && store.len() == 3, "the builder saw in the store: {store:?}");
    let uid: u32 = fs::read_to_string(probe.join("uid"))?.trim().parse()?;
    ensure!(uid >= 2_000_000_000, "uid {uid}");
    let root = fs::read_to_string(probe.join("root"))?;
    let foreign =
        ["scratch", "project", "target"].into_iter().find(|name| root.lines().any(|line| line == *name));
    ensure!(foreign.is_none(), "the builder's root directory has {foreign:?}");
    Ok(())
}

fn neighbours_do_not_see_each_other(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "neighbour").with(&["-j2"]))?.succeeds()?;
    for (output, other) in built.outputs.iter().zip(["right", "left"]) {
        let seen = fs::read_to_string(output)?;
        let mine = if other == "left" { "secret-of-right" } else { "secret-of-left" };
        ensure!(seen.contains(mine), "the probe does not see its own file:\n{seen}");
        ensure!(!seen.contains(&format!("secret-of-{other}")), "saw the other's file:\n{seen}");
        ensure!(!seen.contains(&format!("neighbour-{other}")), "saw the other's output or process:\n{seen}");
    }
    Ok(())
}
