//! Commands with a time limit: nothing a test starts may hang it.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// As it was run, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// From start to end.
    pub wall: Duration,
    /// It was killed because it took too long.
    pub timed_out: bool,
}

/// A command that runs; its output goes to files, so that nobody who keeps a pipe open can make us wait.
#[derive(Debug)]
pub struct Running {
    child: Child,
    command: String,
    stdout: File,
    stderr: File,
    started: Instant,
}

/// Starts `command` in a process group of its own.
pub fn start(command: &mut Command) -> Result<Running> {
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let shown = shown(command);
    let child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .process_group(0)
        .spawn()
        .with_context(|| format!("failed to run {shown}"))?;
    Ok(Running { child, command: shown, stdout, stderr, started: Instant::now() })
}

/// Runs `command` and waits for it, at most this long.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    start(command)?.finish(limit)
}

fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

impl Running {
    /// Sends a signal to the command alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(nix::sys::signal::kill(self.pid(), signal)?)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// What it has printed on standard error so far.
    pub fn stderr_so_far(&mut self) -> Result<Vec<u8>> {
        contents(&mut self.stderr)
    }

    /// Waits for the end; kills the whole group when `limit`, counted from the start, is over.
    pub fn finish(mut self, limit: Duration) -> Result<Finished> {
        let mut timed_out = false;
        let mut pause = Duration::from_micros(200);
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if self.started.elapsed() > limit && !timed_out {
                timed_out = true;
                let _ = killpg(self.pid(), Signal::SIGKILL);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        };
        Ok(Finished {
            status,
            wall: self.started.elapsed(),
            stdout: contents(&mut self.stdout)?,
            stderr: contents(&mut self.stderr)?,
            command: std::mem::take(&mut self.command),
            timed_out,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = killpg(self.pid(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

// Read by offset: the file's position is shared with whoever writes.
fn contents(file: &mut File) -> Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let length = file.metadata()?.len();
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Waits until `condition` holds, at most this long.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<bool> {
    let started = Instant::now();
    loop {
        if condition()? {
            return Ok(true);
        }
        if started.elapsed() > limit {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
