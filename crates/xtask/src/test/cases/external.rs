//! What only the external builder has: Nix does everything but run the builder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cases;
use crate::world::daemon;
use crate::world::limited::{self, wait_until};
use crate::world::session::{Build, Built, LIMIT, Session};
use crate::world::{FrontEnd, Guest, Mode};

cases! {
    Everywhere: a_kept_directory_is_the_builders_with_all_it_left,
        what_a_builder_leaves_is_harmless_even_when_nix_ends_it, a_check_compares, rebuild_compares,
        a_killed_program_takes_its_slot_along_within_a_second, builtin_builders_are_refused_with_one_line,
        a_dead_daemon_is_waited_for, nothing_is_left_of_many_builds;
    SingleUser: the_same_outputs_as_through_the_hook, floating_outputs_are_built, both_configured_asks_the_hook_first;
    LinuxGuest: no_network_without_a_known_hash;
}

/// Fixtures whose outputs say nothing of time and place.
const SAME: &[(&str, &[&str])] = &[
    (
        "outputs.nix",
        &[
            "several",
            "referring",
            "self",
            "hidden-references",
            "reference-across-chunks",
            "odd-names",
            "links",
            "link-itself",
            "modes",
            "setuid",
            "hard-links",
            "empty-directory",
            "empty-file",
            "large",
        ],
    ),
    ("references.nix", &["allowed", "allowed-requisites"]),
    ("fixed.nix", &["flat", "flat-sha512", "recursive", "consumer"]),
    ("attributes.nix", &["pass-as-file", "placeholders", NEEDS_NEW_BASH, "graph"]),
];

/// `.attrs.sh` is for a newer bash than macOS, and Darling, have.
const NEEDS_NEW_BASH: &str = "structured";

fn the_same_outputs_as_through_the_hook(session: &mut Session) -> Result<()> {
    let left_out = (session.world.guest == Guest::Darling).then_some(NEEDS_NEW_BASH);
    let mut through = |front_end: FrontEnd| -> Result<BTreeMap<PathBuf, String>> {
        session.world.front_end = front_end;
        let mut hashes = BTreeMap::new();
        for (file, attributes) in SAME {
            for attribute in attributes.iter().filter(|attribute| Some(**attribute) != left_out) {
                let build = Build::of(file, attribute);
                session.build(&build)?.succeeds()?;
                for output in session.query(&["-q", "--outputs"], &session.instantiate(&build)?)? {
                    let output = PathBuf::from(output);
                    session.sound(&output)?;
                    let hash = session.query(&["-q", "--hash"], &output)?.concat();
                    let references = session.query(&["-q", "--references"], &output)?.join(" ");
                    hashes.insert(output, format!("{hash} {references}"));
                }
            }
        }
        // With whatever refers to them, so that all of it is built again.
        let mut delete = BTreeSet::new();
        for output in hashes.keys() {
            delete.extend(session.query(&["-q", "--referrers-closure"], output)?);
        }
        let mut command = session.root_command("nix-store");
        limited::run(command.args(["--delete", "--ignore-liveness"]).args(delete), LIMIT)?.must_succeed()?;
        Ok(hashes)
    };
    let builder = through(FrontEnd::ExternalBuilder);
    let hook = through(FrontEnd::Hook);
    session.world.front_end = FrontEnd::ExternalBuilder;
    let (builder, hook) = (builder?, hook?);
    ensure!(builder.len() > 20, "only {} outputs were compared", builder.len());
    for (path, through_builder) in &builder {
        let through_hook =
            hook.get(path).with_context(|| format!("no {} through the hook", path.display()))?;
        ensure!(
            through_hook == through_builder,
            "{}: {through_builder} and through the hook {through_hook}",
            path.display()
        );
    }
    Ok(())
}

fn a_kept_directory_is_the_builders_with_all_it_left(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of("external.nix", "failing").with(&["--keep-failed"]))?.fails()?;
    let text = String::from_utf8_lossy(&built.finished.stderr).into_owned();
    let builds = Path::new("/nix/var/nix/builds");
    let mut named = text.split(['\'', '"', ' ', '\n']).map(PathBuf::from);
    let kept = named.find(|path| path.starts_with(builds) && path.is_dir());
    let kept = kept.with_context(|| format!("no build directory named in: {}", built.finished.describe()))?;
    let deep = kept.join("deep/er/file");
    let deep = if deep.exists() { deep } else { kept.join("build/deep/er/file") };
    ensure!(fs::read(&deep)? == b"left\n", "contents");
    let owner = fs::metadata(&deep)?.uid();
    let top = fs::metadata(&kept)?.uid();
    // Named is the build directory itself, or the one that Nix has made for it.
    fs::remove_dir_all(kept.ancestors().find(|path| path.parent() == Some(builds)).unwrap_or(&kept))?;
    ensure!(owner < 2_000_000_000, "it belongs to uid {owner}, a slot's");
    ensure!(
        owner == top || session.world.mode == Mode::Daemon,
        "it belongs to {owner}, and the top to {top}"
    );
    Ok(())
}

/// Nix opens the directory to everybody as soon as it has killed our program, whether or not the builder is dead by then.
fn what_a_builder_leaves_is_harmless_even_when_nix_ends_it(session: &mut Session) -> Result<()> {
    let build = Build::of("external.nix", "set-uid").with(&["--keep-failed", "--timeout", "2"]);
    let mut running = limited::start(&mut session.build_command(&build))?;
    let builds = Path::new("/nix/var/nix/builds");
    let mut harmful = None;
    let mut look = || {
        for entry in fs::read_dir(builds).into_iter().flatten().flatten() {
            let program = entry.path().join("build/program");
            if let Ok(metadata) = fs::symlink_metadata(&program)
                && (metadata.mode() & 0o6000 != 0 || metadata.uid() >= 2_000_000_000)
            {
                harmful = Some(format!("{:o} of {}", metadata.mode(), metadata.uid()));
            }
        }
    };
    while running.is_running()? {
        look();
        std::thread::sleep(Duration::from_micros(200));
    }
    let came_back = wait_until(Duration::from_secs(2), || {
        look();
        let kept = fs::read_dir(builds)?.flatten().next().context("nothing was kept")?;
        Ok(kept.path().join("build/program").exists())
    });
    let built = Built::from(running.finish(LIMIT)?);
    let status = session.status_of_timeout();
    built.fails_with(status)?;
    ensure!(came_back?, "what the builder left did not come back");
    for entry in fs::read_dir(builds)?.flatten() {
        fs::remove_dir_all(entry.path())?;
    }
    ensure!(harmful.is_none(), "the program was there with mode {}", harmful.unwrap_or_default());
    Ok(())
}

fn a_check_compares(session: &mut Session) -> Result<()> {
    let same = Build::of("outputs.nix", "self");
    session.build(&same)?.succeeds()?;
    session.build(&same.with(&["--check"]))?.succeeds()?;
    let other = Build::of("outputs.nix", "independent");
    let before = session.build(&other)?.succeeds()?;
    let contents = fs::read(before.output()?)?;
    let status = if session.world.mode == Mode::Daemon { 1 } else { 104 };
    session.build(&other.with(&["--check"]))?.fails_with(status)?.says("may not be deterministic")?;
    ensure!(fs::read(before.output()?)? == contents, "the valid output was touched");
    Ok(())
}

fn rebuild_compares(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of("outputs.nix", "several"))?.succeeds()?;
    let mut command = session.command("nix");
    command.args(["build", "--rebuild", "--no-link", "--file", "/project/fixtures/outputs.nix", "several"]);
    Built::from(limited::run(&mut command, LIMIT)?).succeeds()?;
    session.sound(built.output()?)
}

fn a_killed_program_takes_its_slot_along_within_a_second(session: &mut Session) -> Result<()> {
    let running = limited::start(&mut session.build_command(&Build::of("cancel.nix", "sleeping")))?;
    let sleeps = || Ok(daemon::slot_processes()?.iter().any(|(_, command)| command.contains("sleep 734")));
    let started = wait_until(Duration::from_secs(20), sleeps)?;
    let program = programs()?;
    for pid in &program {
        kill(*pid, Signal::SIGKILL)?;
    }
    let at = Instant::now();
    let gone = wait_until(Duration::from_secs(1), || {
        Ok(!sleeps()? && daemon::busy_slots(&session.world)?.is_empty())
    })?;
    let after = at.elapsed();
    let built = Built::from(running.finish(Duration::from_secs(20))?);
    ensure!(started && program.len() == 1, "the builder has not started: {program:?}");
    ensure!(gone, "after {after:?} the slot is still there");
    built.fails()?.says("signal 9")?;
    Ok(())
}

/// Processes of the external builder.
fn programs() -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let is_ours = command.split(|byte| *byte == 0).nth(1) == Some(b"external-builder");
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).filter(|_| is_ours) {
            found.push(Pid::from_raw(pid));
        }
    }
    Ok(found)
}

fn builtin_builders_are_refused_with_one_line(session: &mut Session) -> Result<()> {
    session
        .build(&Build::of("refused.nix", "fetchurl"))?
        .fails()?
        .says("only Nix itself can run 'builtin:fetchurl'")?;
    Ok(())
}

fn a_dead_daemon_is_waited_for(session: &mut Session) -> Result<()> {
    session.daemon.take().context("no daemon")?.stop()?;
    let mut running = limited::start(&mut session.build_command(&Build::of("cancel.nix", "next")))?;
    let told = wait_until(Duration::from_secs(20), || {
        Ok(String::from_utf8_lossy(&running.stderr_so_far()?).contains("waiting, up to 60 s"))
    });
    session.daemon = Some(daemon::HostDaemon::start(&session.world, false)?);
    let built = Built::from(running.finish(Duration::from_secs(30))?).succeeds()?;
    ensure!(told?, "it has not said that it waits: {}", built.finished.describe());
    delete(session, built.output()?)
}

fn delete(session: &Session, output: &Path) -> Result<()> {
    let mut delete = session.root_command("nix-store");
    limited::run(delete.arg("--delete").arg(output), LIMIT)?.must_succeed()?;
    Ok(())
}

fn nothing_is_left_of_many_builds(session: &mut Session) -> Result<()> {
    // More at once than there are build users.
    let mounts = || Ok::<_, anyhow::Error>(fs::read_to_string("/proc/self/mountinfo")?.lines().count());
    let before = mounts()?;
    let build = Build::of("external.nix", "many").with(&["-j64"]).within(Duration::from_secs(150));
    let built = session.build(&build)?.succeeds()?;
    ensure!(built.outputs.len() == 64, "{} outputs", built.outputs.len());
    for output in &built.outputs {
        ensure!(fs::metadata(output)?.uid() == 0, "{} is not Nix's", output.display());
    }
    let left = || {
        let background =
            daemon::slot_processes()?.into_iter().filter(|(_, command)| command.contains("sleep 735"));
        Ok::<_, anyhow::Error>((
            background.count(),
            programs()?.len(),
            daemon::busy_slots(&session.world)?.len(),
        ))
    };
    let clean = wait_until(Duration::from_secs(2), || Ok(left()? == (0, 0, 0)))?;
    ensure!(clean, "builders' processes, programs and slots left: {:?}", left()?);
    ensure!(mounts()? == before, "mounts are left");
    let builds = fs::read_dir("/nix/var/nix/builds").map_or(0, Iterator::count);
    ensure!(builds == 0, "{builds} build directories are left");
    Ok(())
}

fn floating_outputs_are_built(session: &mut Session) -> Result<()> {
    let features = "nix-command external-builders ca-derivations";
    let build = Build::of("refused.nix", "floating").with(&["--option", "experimental-features", features]);
    session.build(&build)?.succeeds()?;
    Ok(())
}

fn both_configured_asks_the_hook_first(session: &mut Session) -> Result<()> {
    let build = Build::of("external.nix", "both").with(&["--option", "build-hook", daemon::HOOK]);
    let mut running =
        limited::start(&mut session.build_command(&build.with(&["--option", "builders", "@/none"])))?;
    let seen = wait_until(Duration::from_secs(20), || {
        let status = daemon::status(&session.world)?;
        Ok(status["builds"][0]["front_end"].as_str().is_some_and(|name| name == "build-hook"))
    })?;
    let alive = running.is_running()?;
    let built = Built::from(running.finish(LIMIT)?).succeeds()?;
    ensure!(seen, "the hook was not asked (still running: {alive}): {}", built.finished.describe());
    Ok(())
}

fn no_network_without_a_known_hash(session: &mut Session) -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    let build = Build::of("external.nix", "connecting").with(&["--argstr", "port", &port]);
    session.build(&build)?.fails()?.says("onnection refused")?;
    Ok(())
}
