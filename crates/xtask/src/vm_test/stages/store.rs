//! 7: a builder sees the closure of its inputs, nothing else, can't change it, and nothing was copied for it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};

use crate::vm_test::machine::Machine;
use crate::vm_test::stage::{Sabotage, Stage};

/// The stage.
pub const STAGE: Stage = Stage {
    number: 7,
    name: "store",
    purpose: "a builder sees its closure and nothing else, can't write its inputs, and nothing is copied",
    needs: &[],
    limit: 180,
    run,
    across_reset: None,
    sabotage: Sabotage { what: "the stranger that must not be visible is made an input", act: sabotage },
};

fn run(machine: &mut Machine) -> Result<()> {
    // It must be in the store to be hidden.
    machine.build(&machine.fixture("stranger"), 120)?.succeeds()?;
    let built = machine.build(&machine.fixture("store"), 120)?.succeeds()?;
    let output = built.output()?;

    let visible = fs::read_to_string(output.join("visible"))?;
    let names: BTreeSet<&str> =
        visible.lines().filter_map(|name| name.split_once("-vm-test-")).map(|(_, n)| n).collect();
    let expected: BTreeSet<String> =
        ["input", "file-input", "store"].iter().map(|name| format!("{name}-{}", machine.token)).collect();
    let same = names.iter().copied().eq(expected.iter().map(String::as_str));
    ensure!(
        same && visible.lines().count() == 3,
        "expected its two inputs and its output, the builder saw:\n{visible}"
    );
    machine.say("the builder sees its two inputs and its output");

    let answers = fs::read_to_string(output.join("answers"))?;
    let answers: Vec<(&str, &str)> = answers.lines().filter_map(|line| line.split_once(": ")).collect();
    ensure!(answers.len() == 7, "questions are missing: {answers:?}");
    for (question, answer) in answers {
        let right = if question == "input readable" { "yes" } else { "no" };
        ensure!(answer == right, "{question}: {answer}");
    }
    machine.say("inputs can be read, and not be changed");

    for line in fs::read_to_string(output.join("inodes"))?.lines() {
        let (path, inside) =
            line.split_once(' ').with_context(|| format!("not a path and a number: {line}"))?;
        let inside: u64 = inside.trim().parse().with_context(|| format!("not a number: {line}"))?;
        let outside = fs::metadata(path).with_context(|| format!("failed to look at {path}"))?.ino();
        if output == std::path::Path::new(path) && inside != outside {
            machine.note("the output was copied into the store, not moved");
        } else {
            ensure!(inside == outside, "{path} is inode {outside}, the builder saw {inside}: a copy");
        }
    }
    machine.say("inputs and output are the same files inside and outside");
    Ok(())
}

fn sabotage(machine: &mut Machine) -> Result<()> {
    machine.fault = "leak";
    Ok(())
}
