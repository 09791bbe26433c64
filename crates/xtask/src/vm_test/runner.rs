//! The runner: inside a machine, it runs the stages of its plan and says so in events.
//!
//! Where a stage needs the machine reset, it leaves its state on disk, ends with [`RESET_WANTED`], and goes on from there
//! when it is started again. So the same program serves a container, a virtual machine, a NixOS test and this machine.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::event::{Emitter, Event, Step};
use super::installation;
use super::machine::Machine;
use super::plan::Plan;
use super::report::Verdict;
use super::stage::{self, Stage};

/// Exit status with which a reset of the machine is asked for.
pub const RESET_WANTED: u8 = 75;
/// Where the runner keeps what must outlive a reset.
pub const STATE_DIRECTORY: &str = "/var/lib/vm-test";
const STATE: &str = "state.json";
/// Most of the journal that is passed on, bytes.
const JOURNAL_MAX: usize = 200_000;

/// What outlives a reset.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    token: String,
    failed: bool,
    /// The stage that was left for a reset, how long it took until then, its notes, and what its first part kept.
    left: Option<Left>,
    /// Everything before this number is done.
    next: u8,
}

#[derive(Debug, Serialize, Deserialize)]
struct Left {
    number: u8,
    seconds: f64,
    notes: Vec<String>,
    kept: String,
}

struct Runner {
    machine: Machine,
    state: State,
    emitter: Emitter,
}

/// Runs the plan, or the rest of it.
pub fn run(plan: &Path) -> ExitCode {
    let emitter = Emitter::default();
    emitter.beat();
    match Plan::load(plan).and_then(|plan| Runner::new(plan, emitter.clone())?.run()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            emitter.emit(&Event::Broken { reason: format!("{error:#}") });
            ExitCode::FAILURE
        }
    }
}

impl Runner {
    fn new(plan: Plan, emitter: Emitter) -> Result<Self> {
        fs::create_dir_all(STATE_DIRECTORY)?;
        let file = Path::new(STATE_DIRECTORY).join(STATE);
        let (state, resumed) = match fs::read(&file) {
            Ok(bytes) => (
                serde_json::from_slice(&bytes).context("failed to understand what an earlier run left")?,
                true,
            ),
            Err(_) => (State { token: token(), ..State::default() }, false),
        };
        emitter.emit(&Event::Started { machine: describe(), resumed });
        Ok(Self { machine: Machine::new(plan, state.token.clone(), emitter.clone()), state, emitter })
    }

    fn run(mut self) -> Result<u8> {
        let plan = self.machine.plan.clone();
        if let Some(left) = self.state.left.take() {
            let stage = stage::by_number(left.number)?;
            let after =
                &stage.across_reset.as_ref().context("a stage was left that has no second part")?.after;
            self.step(Step::Stage(stage.number), stage.limit, left.seconds, left.notes, |machine| {
                after(machine, &left.kept)
            });
        } else if plan.install && self.state.next == 0 {
            let installed =
                self.step(Step::Install, installation::LIMIT, 0.0, vec![], Machine::install_first);
            if !installed {
                return self.end();
            }
        }
        let next = self.state.next;
        for number in plan.stages.iter().copied().filter(|number| *number >= next) {
            if self.stage(stage::by_number(number)?)? {
                return Ok(RESET_WANTED);
            }
        }
        if plan.install && !plan.keep && plan.broken.is_none() {
            self.step(Step::Uninstall, installation::LIMIT, 0.0, vec![], Machine::uninstall);
        }
        self.end()
    }

    /// Runs one stage; `true` if the machine is to be reset now.
    fn stage(&mut self, stage: &Stage) -> Result<bool> {
        let step = Step::Stage(stage.number);
        self.state.next = stage.number + 1;
        let broken = self.machine.plan.broken;
        let passed_over = match broken.filter(|broken| *broken < stage.number) {
            Some(broken) => Some(format!("stage {broken} was broken on purpose")),
            None => missing(stage, &self.machine)?,
        };
        if let Some(reason) = passed_over {
            self.emitter.emit(&Event::Ended { step, seconds: 0.0, verdict: Verdict::Skipped(reason) });
            return Ok(false);
        }
        let sabotaged = broken == Some(stage.number);
        let across = stage.across_reset.as_ref().filter(|_| !sabotaged);
        let Some(across) = across else {
            self.step(step, stage.limit, 0.0, vec![], |machine| run_stage(stage, machine, sabotaged));
            return Ok(false);
        };
        if !self.machine.plan.reboot {
            self.step(step, stage.limit, 0.0, vec![], |machine| {
                (stage.run)(machine)?;
                machine.note("the machine is not reset: nobody could start it again");
                Ok(())
            });
            return Ok(false);
        }
        let started = Instant::now();
        let mut kept = None;
        let first = |machine: &mut Machine| {
            (stage.run)(machine)?;
            kept = Some((across.before)(machine)?);
            Ok(())
        };
        let result = self.attempt(step, stage.limit, first);
        let seconds = started.elapsed().as_secs_f64();
        match (result, kept) {
            (Ok(()), Some(kept)) => {
                let notes = self.machine.take_notes();
                self.state.left = Some(Left { number: stage.number, seconds, notes, kept });
                self.save()?;
                self.emitter.emit(&Event::Reset);
                Ok(true)
            }
            (result, _) => {
                self.ended(step, seconds, result);
                Ok(false)
            }
        }
    }

    /// Does something and says what came of it; whether it succeeded.
    fn step(
        &mut self,
        step: Step,
        limit: u64,
        spent: f64,
        notes: Vec<String>,
        work: impl FnOnce(&mut Machine) -> Result<()>,
    ) -> bool {
        let started = Instant::now();
        let result = self.attempt(step, limit, |machine| {
            notes.into_iter().for_each(|note| machine.note(note));
            work(machine)
        });
        self.ended(step, spent + started.elapsed().as_secs_f64(), result)
    }

    fn attempt(
        &mut self,
        step: Step,
        limit: u64,
        work: impl FnOnce(&mut Machine) -> Result<()>,
    ) -> Result<()> {
        let limit = self.machine.plan.bound(limit);
        self.emitter.emit(&Event::Begun { step, limit: limit.as_secs() });
        self.machine.begin(limit);
        work(&mut self.machine)
    }

    fn ended(&mut self, step: Step, seconds: f64, result: Result<()>) -> bool {
        let notes = self.machine.take_notes();
        let verdict = match result {
            Ok(()) => Verdict::Passed(notes),
            Err(error) => {
                self.state.failed = true;
                Verdict::Failed(format!("{error:#}"))
            }
        };
        let passed = matches!(verdict, Verdict::Passed(_));
        self.emitter.emit(&Event::Ended { step, seconds, verdict });
        passed
    }

    fn end(self) -> Result<u8> {
        if self.state.failed {
            self.emitter.emit(&Event::Journal { text: journal() });
        }
        // The next run on this machine is a new one.
        let _ = fs::remove_dir_all(STATE_DIRECTORY);
        self.emitter.emit(&Event::Done);
        Ok(u8::from(self.state.failed))
    }

    fn save(&self) -> Result<()> {
        let mut file = File::create(Path::new(STATE_DIRECTORY).join(STATE))?;
        file.write_all(&serde_json::to_vec(&self.state)?)?;
        // What the machine's own programs have written is as safe as they have made it; the runner's own must be there.
        Ok(file.sync_all()?)
    }
}

fn run_stage(stage: &Stage, machine: &mut Machine, sabotaged: bool) -> Result<()> {
    if sabotaged {
        machine.say(format!("broken on purpose: {}", stage.sabotage.what));
        (stage.sabotage.act)(machine).context("failed to break it")?;
    }
    (stage.run)(machine)
}

fn missing(stage: &Stage, machine: &Machine) -> Result<Option<String>> {
    for need in stage.needs {
        if let Some(reason) = need.missing(machine)? {
            return Ok(Some(reason));
        }
    }
    Ok(None)
}

/// Different in each run on a machine.
fn token() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", since.as_secs(), std::process::id())
}

/// The machine in a line: system, kernel, Nix.
fn describe() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux")
        .trim_matches('"');
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let nix =
        Command::new("nix-store").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let nix = String::from_utf8_lossy(&nix).trim().rsplit(' ').next().unwrap_or("?").to_owned();
    format!("{system}, Linux {}, Nix {nix}", kernel.trim())
}

/// The end of this boot's journal.
fn journal() -> String {
    let output = Command::new("journalctl")
        .args(["--boot", "--no-pager", "--quiet", "--output=short-monotonic"])
        .output();
    let bytes = output.map(|output| output.stdout).unwrap_or_default();
    let end = &bytes[bytes.len().saturating_sub(JOURNAL_MAX)..];
    let text = String::from_utf8_lossy(end);
    text.lines().filter(|line| !line.contains(super::event::MARK)).collect::<Vec<_>>().join("\n")
}
