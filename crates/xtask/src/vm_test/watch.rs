//! Watching a machine from outside: its events as they come, its death, its silence.
//!
//! A machine is a process (a container's, a virtual machine's, the runner itself), a file that its events are written to and
//! a file with its console. Whatever happens to it, there is a report, with the reason, within seconds.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::event::{Event, Step};
use super::report::{Row, Verdict};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// After what a machine boots again.
const RESET: &str = "its reset";
/// Lines of the console that are shown when a machine dies.
const CONSOLE_LINES: usize = 25;

/// A machine that runs.
pub struct Running {
    /// The process without which there is no machine.
    pub process: Child,
    /// Where its events are appended.
    pub events: PathBuf,
    /// Where its console is.
    pub console: PathBuf,
    /// How long things may take.
    pub bounds: Bounds,
    /// The process ends by itself when the runner does.
    pub ends_by_itself: bool,
    /// Starts it again, if a reset ends its process.
    pub again: Option<Box<dyn Fn() -> Result<Child>>>,
}

/// How long a machine may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// From its start, or a reset, to the runner.
    pub boot: Duration,
    /// Without a sign of life of the runner.
    pub silence: Duration,
    /// Beyond what a stage may take inside.
    pub grace: Duration,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// The machine, as it describes itself.
    pub machine: String,
    /// The steps that have ended.
    pub rows: Vec<Row>,
    /// The journal, if something failed.
    pub journal: Option<String>,
    /// Why there is nothing more, if that is not as it should be.
    pub broken: Option<String>,
}

/// Where the machine is.
#[derive(Clone, Copy)]
enum State {
    Boots { since: Instant, what: &'static str, step: Option<Current> },
    Runs { step: Option<Current> },
    Done,
}

/// A step that has begun.
#[derive(Clone, Copy)]
struct Current {
    step: Step,
    since: Instant,
    limit: Duration,
}

impl State {
    fn current(self) -> Option<Current> {
        match self {
            State::Boots { step, .. } | State::Runs { step } => step,
            State::Done => None,
        }
    }
}

/// Watches until the end; `tell` gets a line for people whenever there is something to say.
pub fn until_end(running: &mut Running, tell: &mut dyn FnMut(&str)) -> Result<Seen> {
    let mut lines = Lines::open(&running.events)?;
    let mut seen = Seen::default();
    let mut state = State::Boots { since: Instant::now(), what: "its start", step: None };
    let mut last = Instant::now();
    loop {
        // First the process, then its last words.
        let mut ended = running.process.try_wait()?;
        for event in lines.read()? {
            last = Instant::now();
            state = take(event, state, &mut seen, tell);
        }
        if matches!(state, State::Done) && (!running.ends_by_itself || ended.is_some()) {
            return Ok(seen);
        }
        if let (Some(_), State::Boots { what: RESET, .. }, Some(again)) = (ended, state, &running.again) {
            running.process = again()?;
            ended = None;
        }
        let trouble = match ended {
            Some(status) if !matches!(state, State::Done) => Some(format!("the machine has died ({status})")),
            _ => overdue(&state, last, running.bounds),
        };
        if let Some(trouble) = trouble {
            seen.broken = Some(format!("{trouble}{}", console_end(running)));
            seen.rows.extend(state.current().map(|current| current.failed(&trouble)));
            return Ok(seen);
        }
        std::thread::sleep(LOOK);
    }
}

fn take(event: Event, state: State, seen: &mut Seen, tell: &mut dyn FnMut(&str)) -> State {
    match event {
        Event::Beat => return state,
        Event::Started { .. } if matches!(state, State::Runs { .. }) => {
            let reason = "the machine was reset, and nobody had asked for it";
            seen.rows.extend(state.current().map(|current| current.failed(reason)));
            seen.broken = Some(reason.into());
            return State::Done;
        }
        Event::Started { machine, resumed } => {
            tell(&format!("{machine}{}", if resumed { ", after the reset" } else { "" }));
            seen.machine = machine;
        }
        Event::Begun { step, limit } => {
            tell(&format!("── {}: {}", step.title(), step.purpose()));
            let current = Current { step, since: Instant::now(), limit: Duration::from_secs(limit) };
            return State::Runs { step: Some(current) };
        }
        Event::Progress { line } => {
            tell(&format!("   {line}"));
            return state;
        }
        Event::Ended { step, seconds, verdict } => {
            match &verdict {
                Verdict::Passed(_) => tell(&format!("   passed after {seconds:.1} s")),
                Verdict::Failed(reason) => tell(&format!("   FAILED after {seconds:.1} s: {reason}")),
                Verdict::Skipped(reason) => tell(&format!("── {}: skipped: {reason}", step.title())),
            }
            seen.rows.push(Row { step, seconds, verdict });
        }
        Event::Reset => return State::Boots { since: Instant::now(), what: RESET, step: state.current() },
        Event::Journal { text } => seen.journal = Some(text),
        Event::Broken { reason } => {
            tell(&format!("the runner failed: {reason}"));
            seen.broken = Some(format!("the runner failed: {reason}"));
            return State::Done;
        }
        Event::Done => return State::Done,
    }
    State::Runs { step: None }
}

/// What takes too long.
fn overdue(state: &State, last: Instant, bounds: Bounds) -> Option<String> {
    match state {
        State::Boots { since, what, .. } if since.elapsed() > bounds.boot => {
            Some(format!("the machine says nothing {} s after {what}", bounds.boot.as_secs()))
        }
        State::Runs { .. } if last.elapsed() > bounds.silence => {
            Some(format!("the machine hangs: no sign of life for {} s", bounds.silence.as_secs()))
        }
        State::Runs { step: Some(current) } if current.since.elapsed() > current.limit + bounds.grace => {
            Some(format!(
                "{} is not over after {} s",
                current.step.title(),
                current.since.elapsed().as_secs()
            ))
        }
        // The runner is done and its process is not.
        State::Done if last.elapsed() > bounds.silence => Some("the machine does not end".into()),
        _ => None,
    }
}

impl Current {
    fn failed(self, reason: &str) -> Row {
        let seconds = self.since.elapsed().as_secs_f64();
        Row { step: self.step, seconds, verdict: Verdict::Failed(reason.to_owned()) }
    }
}

fn console_end(running: &Running) -> String {
    let bytes = std::fs::read(&running.console).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<_> = text.lines().filter(|line| !line.contains(super::event::MARK)).collect();
    let end = lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n  ");
    format!("\nconsole ({}):\n  {end}", running.console.display())
}

/// Whole lines of a file that grows.
struct Lines {
    file: File,
    rest: Vec<u8>,
}

impl Lines {
    fn open(path: &PathBuf) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("failed to read {}", path.display()))?;
        Ok(Self { file, rest: Vec::new() })
    }

    /// Events in the lines that have been added.
    fn read(&mut self) -> Result<Vec<Event>> {
        self.file.read_to_end(&mut self.rest)?;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        Ok(String::from_utf8_lossy(&whole).lines().filter_map(Event::find).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    const BOUNDS: Bounds = Bounds {
        boot: Duration::from_secs(2),
        silence: Duration::from_secs(2),
        grace: Duration::from_secs(1),
    };

    /// A machine that is a shell script.
    fn watched(script: &str) -> (Seen, Vec<String>, Duration) {
        let directory = tempfile::tempdir().unwrap();
        let [events, console] = ["events", "console"].map(|name| directory.path().join(name));
        for file in [&events, &console] {
            File::create(file).unwrap();
        }
        let prelude = "say() { printf '@vm-test %s\\n' \"$1\"; }; \
                       started() { say '{\"event\":\"started\",\"machine\":\"fake\",\"resumed\":false}'; }; \
                       begun() { say '{\"event\":\"begun\",\"step\":{\"stage\":1},\"limit\":'$1'}'; }\n";
        let script = format!("{prelude}{script}");
        let to = [events.clone(), console.clone()];
        let start = move || {
            let [stdout, stderr] = to.each_ref().map(|file| File::options().append(true).open(file).unwrap());
            let mut shell = Command::new("sh");
            Ok(shell.args(["-c", &script]).stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn()?)
        };
        let process = start().unwrap();
        let again: Option<Box<dyn Fn() -> Result<Child>>> = Some(Box::new(start));
        let mut running = Running { process, events, console, bounds: BOUNDS, ends_by_itself: true, again };
        let mut told = Vec::new();
        let started = Instant::now();
        let seen = until_end(&mut running, &mut |line| told.push(line.to_owned())).unwrap();
        let took = started.elapsed();
        let _ = running.process.kill();
        running.process.wait().unwrap();
        (seen, told, took)
    }

    #[test]
    fn a_whole_run_is_relayed() {
        let script = r#"started; begun 5; say '{"event":"progress","line":"it works"}'
            say '{"event":"ended","step":{"stage":1},"seconds":1.0,"verdict":{"passed":[]}}'
            say '{"event":"reset"}'; say '{"event":"started","machine":"fake","resumed":true}'; say '{"event":"done"}'"#;
        let (seen, told, _) = watched(script);
        assert_eq!(seen.broken, None);
        assert_eq!(seen.rows.len(), 1);
        let boot = "── 1 boot: the service is up, its socket answers, doctor finds nothing broken";
        assert_eq!(told, ["fake", boot, "   it works", "   passed after 1.0 s", "fake, after the reset"]);
    }

    #[test]
    fn a_machine_that_ends_when_it_is_reset_is_started_again() {
        let script = r#"grep -q reset "$(readlink /proc/$$/fd/1)" && { started; say '{"event":"done"}'; exit; }
            started; begun 5; say '{"event":"reset"}'; exit 133"#;
        let (seen, _, _) = watched(script);
        assert_eq!((seen.broken, seen.rows.len()), (None, 0));
    }

    #[test]
    fn a_machine_that_does_not_come_back_fails_the_stage_that_had_it_reset() {
        let (seen, _, _) = watched(r#"started; begun 5; say '{"event":"reset"}'; exec sleep 60"#);
        assert!(seen.broken.unwrap().starts_with("the machine says nothing 2 s after its reset"));
        assert_eq!(seen.rows[0].step, Step::Stage(1));
    }

    #[test]
    fn a_machine_that_dies_fails_its_stage_at_once_with_the_end_of_its_console() {
        let (seen, _, took) = watched("started; begun 60; echo 'Kernel panic' >&2; exit 3");
        let broken = seen.broken.unwrap();
        assert!(broken.starts_with("the machine has died (exit status: 3)"), "{broken}");
        assert!(broken.contains("Kernel panic"), "{broken}");
        assert_eq!(seen.rows[0].verdict, Verdict::Failed("the machine has died (exit status: 3)".into()));
        assert!(took < Duration::from_secs(1), "{took:?}");
    }

    #[test]
    fn a_machine_that_is_killed_while_it_boots_is_noticed_at_once() {
        let (seen, _, took) = watched("kill -KILL $$");
        assert!(seen.broken.unwrap().starts_with("the machine has died (signal: 9 (SIGKILL))"));
        assert!(seen.rows.is_empty());
        assert!(took < Duration::from_secs(1), "{took:?}");
    }

    #[test]
    fn a_machine_that_hangs_is_noticed_by_its_silence() {
        let (seen, _, took) = watched("started; begun 60; exec sleep 60");
        assert!(seen.broken.unwrap().starts_with("the machine hangs: no sign of life for 2 s"));
        assert_eq!(seen.rows.len(), 1);
        assert!(took < Duration::from_secs(4), "{took:?}");
    }

    #[test]
    fn a_machine_that_resets_itself_is_noticed() {
        let (seen, _, _) = watched("started; begun 60; started; exec sleep 1");
        assert_eq!(seen.broken.unwrap(), "the machine was reset, and nobody had asked for it");
        assert_eq!(seen.rows.len(), 1);
    }

    #[test]
    fn a_machine_that_never_boots_is_noticed() {
        let (seen, _, _) = watched("exec sleep 60");
        assert!(seen.broken.unwrap().starts_with("the machine says nothing 2 s after its start"));
    }

    #[test]
    fn a_stage_that_does_not_end_is_noticed_although_the_machine_lives() {
        let script =
            r#"started; begun 1; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.5; say '{"event":"beat"}'; done"#;
        let (seen, _, _) = watched(script);
        assert!(seen.broken.unwrap().starts_with("1 boot is not over after"));
    }
}
