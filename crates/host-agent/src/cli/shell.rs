//! `host-agent shell`: a program in a fresh slot, its streams ours.
//!
//! On a terminal the shell gets one of its own and ours is raw; else it gets pipes. Everything goes over one connection to
//! the daemon, and when that closes, because this program ended in whatever way, the slot is torn down.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use protocol::ByteString;
use protocol::limits::CHUNK_MAX;
use protocol::message::{Exit, Stream};

use super::say;
use super::terminal::{self, RawTerminal};
use crate::config::Config;
use crate::control::client::{Client, ClientError, Place, ShellEvent};
use crate::control::shell::{ShellEnd, ShellRequest};
use crate::request::{BUILD_DIR, BuildPhase};

/// Exit status when there was no shell, or it was lost: what containers' tools use.
const NO_SHELL: u8 = 125;

/// Runs `command` (none: the guest's own shell) and returns its exit status.
pub(super) fn run(config: &Config, command: Vec<OsString>) -> ExitCode {
    let on_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let status = start(config, command, on_terminal).and_then(|client| converse(client, on_terminal));
    match status {
        Ok(Ended { status, words }) => {
            if let Some(words) = words {
                say(&words);
            }
            ExitCode::from(status)
        }
        Err(reason) => {
            say(&reason);
            ExitCode::from(NO_SHELL)
        }
    }
}

/// How it came out.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    status: u8,
    words: Option<String>,
}

fn start(config: &Config, command: Vec<OsString>, on_terminal: bool) -> Result<Client, String> {
    let mut client = Client::connect(&config.socket, "shell").map_err(in_words)?;
    match client.reserve().map_err(in_words)? {
        Place::Reserved { .. } => {}
        Place::Full(reason) => return Err(format!("failed to get a place for a shell: {reason}")),
    }
    let request = ShellRequest {
        command: searched(command.into_iter().map(|word| word.into_vec().into()).collect()),
        env: environment(),
        terminal: on_terminal.then(terminal::size),
    };
    client.shell(request).map_err(in_words)?;
    Ok(client)
}

fn in_words(error: ClientError) -> String {
    error.to_string()
}

/// The agent executes what it is told, by path; a program without one is found by a shell inside.
fn searched(command: Vec<ByteString>) -> Vec<ByteString> {
    match command.first() {
        Some(program) if !program.contains(&b'/') => {
            ["/bin/sh", "-c", "exec \"$@\"", "sh"].map(ByteString::from).into_iter().chain(command).collect()
        }
        _ => command,
    }
}

/// Of ours only what describes the terminal: a shell in a slot is to find what a build finds.
fn environment() -> Vec<(ByteString, ByteString)> {
    let mut env: Vec<(ByteString, ByteString)> = [
        ("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"),
        ("HOME", BUILD_DIR),
        ("TMPDIR", BUILD_DIR),
        ("SHELL", "/bin/sh"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into();
    for name in ["TERM", "COLORTERM"] {
        if let Some(value) = std::env::var_os(name) {
            env.push((name.into(), value.into_vec().into()));
        }
    }
    env
}

fn converse(mut client: Client, on_terminal: bool) -> Result<Ended, String> {
    let mut raw: Option<RawTerminal> = None;
    let mut input = Input::NotYet;
    loop {
        let [mut said, mut signalled, mut typed] = [false; 3];
        {
            let stdin = io::stdin();
            let mut fds = vec![PollFd::new(client.as_fd(), PollFlags::POLLIN)];
            let signals = raw.as_ref().map(RawTerminal::signals);
            fds.extend(signals.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
            if input == Input::Wanted {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {
                    let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
                    said = ready.next().unwrap_or(false);
                    signalled = signals.is_some() && ready.next().unwrap_or(false);
                    typed = ready.next().unwrap_or(false);
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(format!("failed to wait for the shell: {error}")),
            }
        }
        if said {
            match client.next_shell_event().map_err(in_words)? {
                ShellEvent::Phase(BuildPhase::Queued(ahead)) => {
                    eprintln!("host-agent: waiting for a place, {ahead} ahead");
                }
                ShellEvent::Phase(BuildPhase::Building) => {
                    if on_terminal {
                        raw = Some(
                            RawTerminal::take()
                                .map_err(|error| format!("failed to set up the terminal: {error}"))?,
                        );
                    }
                    input = Input::Wanted;
                }
                ShellEvent::Phase(_) => {}
                ShellEvent::Output(stream, bytes) => {
                    if let Err(error) = print(stream, &bytes) {
                        return broken_output(&error);
                    }
                }
                ShellEvent::InputTaken if input == Input::Sent => input = Input::Wanted,
                ShellEvent::InputTaken => {}
                ShellEvent::Ended(end) => {
                    drop(raw);
                    return ended(end);
                }
            }
        }
        if signalled && let Some(signal) = raw.as_ref().and_then(RawTerminal::signal) {
            match signal {
                Signal::SIGWINCH => {
                    client.shell_resize(terminal::size()).map_err(in_words)?;
                }
                signal => {
                    return Ok(Ended { status: 128 + signal as u8, words: None });
                }
            }
        }
        if typed {
            input = pass_on(&mut client, on_terminal)?;
        }
    }
}

/// Where our stdin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// The shell does not run yet.
    NotYet,
    /// The next piece may be read.
    Wanted,
    /// A piece is on its way.
    Sent,
    /// It has ended.
    Over,
}

/// Reads what there is, past any buffer of ours, and sends it.
fn pass_on(client: &mut Client, on_terminal: bool) -> Result<Input, String> {
    let mut piece = vec![0; CHUNK_MAX];
    let read = match nix::unistd::read(io::stdin(), &mut piece) {
        Ok(read) => read,
        Err(Errno::EINTR | Errno::EAGAIN) => return Ok(Input::Wanted),
        // A terminal that has hung up.
        Err(_) => 0,
    };
    if read == 0 && on_terminal {
        return Ok(Input::Over);
    }
    client.shell_input(&piece[..read]).map_err(in_words)?;
    Ok(if read == 0 { Input::Over } else { Input::Sent })
}

fn print(stream: Stream, bytes: &[u8]) -> io::Result<()> {
    match stream {
        Stream::Pty | Stream::Stdout => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes)?;
            stdout.flush()
        }
        Stream::Stderr => io::stderr().write_all(bytes),
    }
}

/// Nobody reads any more: the end that a program of this machine would have.
fn broken_output(error: &io::Error) -> Result<Ended, String> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(Ended { status: 128 + Signal::SIGPIPE as u8, words: None });
    }
    Err(format!("failed to write the shell's output: {error}"))
}

/// As shells have it: a signal's number and 128, 127 for a program that is not there, 126 for one that can't be run.
fn ended(end: ShellEnd) -> Result<Ended, String> {
    let quiet = |status| Ok(Ended { status, words: None });
    match end {
        ShellEnd::Exit(Exit::Code(code)) => quiet(code as u8),
        ShellEnd::Exit(Exit::Signal(signal)) => quiet(128u8.saturating_add(signal as u8)),
        ShellEnd::Exit(Exit::SpawnFailed { step, errno }) => Ok(Ended {
            status: if errno == libc::ENOENT { 127 } else { 126 },
            words: Some(format!(
                "failed to start the program in the slot: {step}: {}",
                Errno::from_raw(errno).desc()
            )),
        }),
        // Verdicts of limits that no shell has.
        ShellEnd::Exit(exit) => Err(format!("the shell was ended: {exit:?}")),
        ShellEnd::Lost(reason) => Err(format!("the shell was lost: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_a_path_is_searched_inside() {
        let words = |words: &[&str]| words.iter().map(|word| ByteString::from(*word)).collect::<Vec<_>>();
        assert_eq!(searched(words(&[])), words(&[]));
        assert_eq!(searched(words(&["/bin/ls", "-l"])), words(&["/bin/ls", "-l"]));
        assert_eq!(
            searched(words(&["uname", "-s"])),
            words(&["/bin/sh", "-c", "exec \"$@\"", "sh", "uname", "-s"])
        );
    }

    #[test]
    fn exit_statuses_are_those_of_shells() {
        let status = |exit| ended(ShellEnd::Exit(exit)).map(|ended| ended.status);
        assert_eq!(status(Exit::Code(3)), Ok(3));
        assert_eq!(status(Exit::Signal(9)), Ok(137));
        let failed = |errno| Exit::SpawnFailed { step: "execve /x".into(), errno };
        assert_eq!(status(failed(libc::ENOENT)), Ok(127));
        assert_eq!(status(failed(libc::EACCES)), Ok(126));
        insta::assert_snapshot!(
            ended(ShellEnd::Exit(failed(libc::ENOENT))).unwrap().words.unwrap(),
            @"failed to start the program in the slot: execve /x: No such file or directory"
        );
        assert!(ended(ShellEnd::Lost("x".into())).is_err());
    }
}
