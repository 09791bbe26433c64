//! Which builds run, where and when.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cases;
use crate::world::FrontEnd;
use crate::world::session::{Build, Session};

const FILE: &str = "scheduling.nix";

cases! {
    Everywhere: a_chain, keep_going_builds_all_that_can_be_built, sixty_four_at_once, a_valid_output_is_not_built_again;
    SingleUser: offered_features, prefer_local_still_comes_to_us, builds_for_linux_stay_with_nix,
        what_nobody_can_build_is_declined_readably;
    LinuxGuest: no_two_builds_share_a_uid;
}

fn a_chain(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "third").and("second").and("first"))?.succeeds()?;
    let [third, second, first] = built.outputs.as_slice() else { anyhow::bail!("{:?}", built.outputs) };
    session.refers_to(third, &[first])?;
    session.refers_to(second, &[])?;
    ensure!(fs::read_to_string(third)?.starts_with("1\n2\n3\n/nix/store/"), "contents");
    for path in [first, second, third] {
        session.sound(path)?;
    }
    Ok(())
}

fn offered_features(session: &mut Session) -> Result<()> {
    session.build(&Build::of(FILE, "big-parallel"))?.succeeds()?;
    let unknown = session.build(&Build::of(FILE, "unknown-feature"))?.fails()?;
    unknown.says("warp-drive")?;
    Ok(())
}

fn prefer_local_still_comes_to_us(session: &mut Session) -> Result<()> {
    session.build(&Build::of(FILE, "prefer-local"))?.succeeds()?;
    Ok(())
}

fn a_valid_output_is_not_built_again(session: &mut Session) -> Result<()> {
    let build = Build::of(FILE, "again");
    let first = session.build(&build)?.succeeds()?;
    let before = fs::read(first.output()?)?;
    let second = session.build(&build)?.succeeds()?;
    ensure!(fs::read(second.output()?)? == before, "built again");
    Ok(())
}

fn sixty_four_at_once(session: &mut Session) -> Result<()> {
    let build = Build::of(FILE, "many").with(&["-j64"]).within(Duration::from_secs(120));
    let built = session.build(&build)?.succeeds()?;
    ensure!(built.outputs.len() == 64, "{} outputs", built.outputs.len());
    for (number, output) in built.outputs.iter().enumerate() {
        ensure!(
            fs::read_to_string(output)? == format!("{number}\n"),
            "{} has another's contents",
            output.display()
        );
    }
    session.sound(&built.outputs[63])
}

fn no_two_builds_share_a_uid(session: &mut Session) -> Result<()> {
    session.restart_daemon("max-jobs = 4\nwarm-slots = 4\n")?;
    let built = session.build(&Build::of(FILE, "overlapping").with(&["-j12"]));
    session.restart_daemon("")?;
    let mut spans = Vec::new();
    for output in &built?.succeeds()?.outputs {
        let text = fs::read_to_string(output)?;
        let numbers: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [uid, from, to] = numbers[..] else { anyhow::bail!("{text:?}") };
        ensure!(uid >= 2_000_000_000, "uid {uid}");
        spans.push((uid, from, to));
    }
    let mut together = 0;
    for (index, a) in spans.iter().enumerate() {
        for b in &spans[index + 1..] {
            if a.1 < b.2 && b.1 < a.2 {
                together += 1;
                ensure!(a.0 != b.0, "two builds at the same time had uid {}", a.0);
            }
        }
    }
    ensure!(together > 0, "no two builds ran at the same time");
    Ok(())
}

fn keep_going_builds_all_that_can_be_built(session: &mut Session) -> Result<()> {
    let mut build = Build::of(FILE, "mixed.good");
    for attribute in ["bad", "after-good", "after-bad", "missing", "impossible", "last"] {
        build = build.and(&format!("mixed.{attribute}"));
    }
    // What a hook builds takes no place of Nix's own; what an external builder builds does.
    let jobs = if session.world.front_end == FrontEnd::Hook { "-j0" } else { "-j2" };
    let built = session.build(&build.with(&[jobs, "--keep-going"]))?.fails()?;
    let mut outputs = Vec::new();
    for attribute in ["good", "after-good", "last"] {
        let derivation = session.instantiate(&Build::of(FILE, &format!("mixed.{attribute}")))?;
        let output = session.output_named(&derivation, "out")?;
        session.sound(&output).with_context(|| format!("{attribute} of: {}", built.finished.describe()))?;
        outputs.push(output);
    }
    let built = built.says("warp-drive")?.says("failed to produce output path")?;
    ensure!(fs::read(&outputs[1])? == b"good\n", "contents in: {}", built.finished.describe());
    Ok(())
}

fn builds_for_linux_stay_with_nix(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "on-linux").and("linux"))?.succeeds()?;
    ensure!(fs::read(built.output()?)? == b"linux\n", "contents");
    Ok(())
}

fn what_nobody_can_build_is_declined_readably(session: &mut Session) -> Result<()> {
    session.build(&Build::of(FILE, "other"))?.fails()?.says("riscv64-netbsd")?;
    Ok(())
}
