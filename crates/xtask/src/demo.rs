//! `cargo xtask demo`: the main job, to watch. A real Nix builds a small package for `x86_64-darwin` through hook,
//! daemon and slot; the machine stays as it was.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::binaries::{self, Profile};
use crate::flags::DemoFlags;
use crate::task::Task;
use crate::workspace::Workspace;
use crate::world::daemon::{self, HOOK};
use crate::world::leftovers::Before;
use crate::world::session::{Build, Session};
use crate::world::{FrontEnd, Guest, Mode, Root, World, possible};
use crate::{darling, nix_roots};

const LIMIT_SECONDS: u64 = 600;
const FILE: &str = "demo.nix";
/// What is built, last first.
const DERIVATIONS: [&str; 4] = ["tests", "greet", "phrases", "source"];

/// Makes the world and shows the job; `false` if it did not work.
pub fn run(workspace: &Workspace, flags: &DemoFlags) -> Result<bool> {
    if let Err(reason) = possible() {
        bail!("the demo {reason}");
    }
    let (guest, root, nix) = match darling::on_path().filter(|_| !flags.stand_in) {
        Some(launcher) => {
            heading(&format!("guest: Darling ({})", launcher.display()));
            (Guest::Darling, Root::Machine, darling::prepare(workspace)?)
        }
        None => {
            let why = if flags.stand_in { "as asked" } else { "`darling` is not on PATH" };
            heading(&format!("guest: the Linux stand-in ({why})"));
            println!(
                "Everything is real but the guest: builders are Linux programs that merely say x86_64-darwin."
            );
            let [release] = nix_roots::select(&flags.nix)?[..] else { bail!("--nix takes one version") };
            (
                Guest::Linux,
                Root::Unpacked(nix_roots::root(&workspace.target, release)?),
                release.version.to_owned(),
            )
        }
    };
    binaries::build(workspace, Profile::Debug)?;
    let world = World {
        nix,
        root,
        mode: Mode::SingleUser,
        guest,
        front_end: FrontEnd::Hook,
        project: workspace.project.clone(),
        target: workspace.target.clone(),
        profile: Profile::Debug.directory().into(),
        task: Task::Demo,
        limit_seconds: LIMIT_SECONDS,
    };
    let (_, succeeded) = world.run()?;
    Ok(succeeded)
}

/// The demo, in the world this process is in.
pub fn inside(world: World) -> Result<bool> {
    let before = Before::look()?;
    let guest = world.guest;
    heading(&format!(
        "Nix {} on a scratch /nix, private to this run; the daemon, in the foreground:",
        world.nix
    ));
    let mut session = Session::new(world)?;
    session.start_daemons(true)?;
    if let Some(daemon) = &session.daemon {
        println!("ready after {:.2} s", daemon.started_in.as_secs_f64());
    }
    println!("The only configuration of Nix, for this run: build-hook = {}", HOOK);

    let build = Build::of(FILE, "tests");
    let started = Instant::now();
    show(&mut session.build_command(&build))?;
    let building = started.elapsed();

    heading("what is in the store now");
    let mut outputs = Vec::new();
    for attribute in DERIVATIONS {
        let derivation = session.instantiate(&Build::of(FILE, attribute))?;
        for path in session.query(&["-q", "--outputs"], &derivation)? {
            println!("{path}");
            for reference in session.query(&["-q", "--references"], Path::new(&path))? {
                println!("    refers to {reference}");
            }
            outputs.push(path);
        }
    }
    heading("the log of the tests, as Nix has stored it");
    let derivation = session.instantiate(&build)?;
    show(session.command("nix-store").arg("-l").arg(&derivation))?;
    heading("verification");
    let mut verify = session.command("nix-store");
    show(verify.arg("--verify-path").args(&outputs))?;
    println!("{} outputs are valid, and their contents are what the database says", outputs.len());

    heading("what each phase cost");
    let status = daemon::program(&session.world);
    show(Command::new(status).args(["status", "--config", daemon::CONFIG]))?;
    println!(
        "nix-build in all, {} derivations, a second of sleep among them: {:.2} s",
        DERIVATIONS.len(),
        building.as_secs_f64()
    );

    session.close()?;
    let left = before.left(&session)?;
    ensure!(left.is_empty(), "left behind: {left:#?}");
    heading("done: no process, mount, socket or file is left behind");
    if guest == Guest::Linux {
        println!("With `darling` on PATH the same command builds inside Darling.");
    }
    Ok(true)
}

/// Says what is run, runs it where everybody can watch, and expects success.
fn show(command: &mut Command) -> Result<()> {
    let mut line = format!("$ {}", command.get_program().to_string_lossy());
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    println!("{line}");
    std::io::stdout().flush()?;
    let status = command.stdin(Stdio::null()).status()?;
    ensure!(status.success(), "{line} failed: {status}");
    Ok(())
}

fn heading(text: &str) {
    println!("\n══ {text}");
}
