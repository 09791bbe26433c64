//! Building the packages, in a world.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::log::{Log, Phase};
use super::report::{self, Outcome, Outcomes};
use super::{Package, sources};
use crate::progress;
use crate::world::session::{Build, Session};
use crate::world::{KEPT, PROJECT, World, daemon, limited};

const FILE: &str = "packages/default.nix";
/// make, which all the others are made with, is made first.
const BOOTSTRAP: &str = "bootstrap-make";
/// Adding the compiler to the store is a matter of seconds.
const ADD_LIMIT: Duration = Duration::from_secs(300);
/// No build may print nothing for longer, nor take longer in all.
const LIMITS: &str = "warm-slots = 1\n[limits]\nsilence-seconds = 300\nwall-seconds = 3000\n";

/// Builds `packages` in the world this process is in, and writes the table; `false` if one does not work.
pub fn inside(world: World, packages: &[Package], jobs: usize) -> Result<bool> {
    let kept = Path::new(KEPT);
    fs::create_dir_all(kept.join("logs"))?;
    let mut session = Session::new(world)?;
    daemon::configure(&session.world, &format!("max-jobs = {jobs}\n{LIMITS}"))?;
    session.start_daemons(false)?;
    add_sources(&session)?;
    let toolchain = add(session.root_command("nix-store"), &["--add"], &kept.join("toolchain"))?;

    let bench = Bench {
        session: &session,
        toolchain,
        kept: kept.to_owned(),
        state: Mutex::new(State { outcomes: Outcomes::load(kept.join("outcomes.json")), rows: Vec::new() }),
    };
    let mut complete = bench.row(BOOTSTRAP)?;
    if complete {
        let queue = Mutex::new(packages.iter());
        let worker = || {
            let mut complete = true;
            loop {
                // A guard in the loop's head would be held while the package is built.
                let next = lock(&queue)?.next();
                let Some(package) = next else { return anyhow::Ok(complete) };
                complete &= bench.row(package.name())?;
            }
        };
        complete = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().try_fold(true, |all, worker| {
                let complete = worker.join().map_err(|_| anyhow!("a worker panicked"))??;
                Ok::<_, anyhow::Error>(all && complete)
            })
        })?;
    }
    fs::write(kept.join("daemon.log"), fs::read(daemon::LOG).unwrap_or_default())?;
    session.close()?;
    Ok(complete)
}

/// What workers share.
struct Bench<'a> {
    session: &'a Session,
    toolchain: String,
    kept: PathBuf,
    state: Mutex<State>,
}

struct State {
    outcomes: Outcomes,
    rows: Vec<(String, Outcome)>,
}

fn lock<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    mutex.lock().map_err(|_| anyhow!("a worker panicked"))
}

fn add_sources(session: &Session) -> Result<()> {
    for source in sources::wanted(Path::new(PROJECT))?.values() {
        let file = Path::new(KEPT).join("sources").join(&source.file);
        add(session.root_command("nix-store"), &["--add-fixed", "sha256"], &file)?;
    }
    Ok(())
}

/// Adds a path to the store by `nix-store` with these options; returns where it is then.
pub fn add(mut nix_store: Command, how: &[&str], path: &Path) -> Result<String> {
    let finished = limited::run(nix_store.args(how).arg(path), ADD_LIMIT)?.must_succeed()?;
    Ok(String::from_utf8(finished.stdout)?.trim().to_owned())
}

impl Bench<'_> {
    /// Builds a package, unless an earlier run has, and adds its row to the table; whether it works.
    fn row(&self, name: &str) -> Result<bool> {
        let derivation = self.session.instantiate(&self.request(name))?;
        let before = lock(&self.state)?.outcomes.get(&derivation).cloned().filter(|outcome| outcome.built);
        let outcome = match before {
            Some(outcome) if valid(self.session, &derivation)? => {
                println!("{name}: built before, in {} s", outcome.seconds);
                outcome
            }
            _ => self.build(name, &derivation)?,
        };
        let complete = report::complete(&outcome);
        let mut state = lock(&self.state)?;
        state.outcomes.put(&derivation, outcome.clone())?;
        state.rows.push((name.to_owned(), outcome));
        fs::write(self.kept.join("report.md"), report::table(&state.rows))?;
        Ok(complete)
    }

    fn request(&self, attribute: &str) -> Build {
        Build::of(FILE, attribute).with(&["--argstr", "toolchain", &self.toolchain])
    }

    fn build(&self, name: &str, derivation: &Path) -> Result<Outcome> {
        println!("{name}: {}", derivation.display());
        let file = format!("{name}.log");
        let log = self.kept.join("logs").join(&file);
        let started = Instant::now();
        let built = watch(name, &mut self.session.build_command(&self.request(name)), &log)?;
        let seconds = started.elapsed().as_secs();
        let mut outcome = Outcome::new(&Log::parse(&fs::read(&log)?), built, seconds, file);
        if built {
            let request = self.request(&format!("uses.{name}"));
            let log = log.with_file_name(format!("use-of-{name}.log"));
            outcome.used = watch(name, &mut self.session.build_command(&request), &log)?;
        }
        let how = if outcome.built { "built" } else { "failed" };
        println!(
            "{name}: {how} after {seconds} s{}",
            if outcome.used { ", and works as an input" } else { "" }
        );
        if let Some((error, category)) = &outcome.error {
            println!("{name}: {category}: {error}");
        }
        Ok(outcome)
    }
}

fn valid(session: &Session, derivation: &Path) -> Result<bool> {
    let outputs = session.query(&["-q", "--outputs"], derivation)?;
    let valid = |output: &String| {
        let mut command = session.root_command("nix-store");
        Ok(limited::run(command.args(["--check-validity", output]), ADD_LIMIT)?.status.success())
    };
    outputs.iter().map(valid).try_fold(true, |all, one: Result<bool>| Ok(all && one?))
}

/// Runs nix-build, keeps what it prints and shows the phases; whether it succeeded.
fn watch(name: &str, command: &mut Command, log: &PathBuf) -> Result<bool> {
    let mut file = File::create(log).with_context(|| format!("failed to write {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to run nix-build")?;
    let mut lines = BufReader::new(child.stderr.take().context("no standard error")?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        file.write_all(&line)?;
        if let Some(phase) = Phase::parse(String::from_utf8_lossy(&line).trim_end()) {
            progress(&format!("{name}: {} (after {} s)", phase.name, phase.at));
        }
        line.clear();
    }
    let status = child.wait()?;
    ensure!(status.code().is_some(), "nix-build was killed: {status}");
    Ok(status.success())
}
