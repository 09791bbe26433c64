//! One agent's life: two connections, one process, the end.

use std::convert::Infallible;
use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::{Arc, Mutex};
use std::thread;

use protocol::frame::{self, FrameError};
use protocol::hello::Channel;
use protocol::message::{FromAgent, Streams, ToAgent};
use thiserror::Error;

use crate::build::{Build, Phase};
use crate::command_line::Options;
use crate::connection::{self, ConnectionError};
use crate::input::Input;
use crate::outbox::Outbox;
use crate::process_table;
use crate::reaper;
use crate::request::{Request, RequestError};
use crate::tick;

/// Why the agent ended early.
#[derive(Debug, Error)]
pub enum SessionError {
    /// No connection, or no common language.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The host sent something that is no message.
    #[error("failed to read a message from the host: {0}; what ran was killed")]
    Frame(#[from] FrameError),
    /// The host sent a message at the wrong time.
    #[error("{0}; what ran was killed")]
    Request(#[from] RequestError),
    /// A second build.
    #[error("host sent {0} after Start: an agent runs one process, start another agent; what ran was killed")]
    Busy(&'static str),
    /// Input for a process that has none, or before the last was taken.
    #[error("host sent {0}; what ran was killed")]
    Input(&'static str),
    /// The host went away while the process ran.
    #[error("host closed the connection while the process ran; it was killed")]
    Abandoned,
    /// A thread could not be made, or a descriptor not be copied.
    #[error("failed to set up the agent: {0}")]
    Setup(#[source] io::Error),
}

/// Serves one build. Returns only if that could not begin.
pub fn run(options: &Options) -> Result<Infallible, SessionError> {
    reaper::adopt_orphans();
    let (control, _) = connection::open(&options.socket, Channel::Control)?;
    let (ticks, _) = connection::open(&options.socket, Channel::Tick)?;
    let build = Build::new(options.exclusive_uid);
    let outbox = Arc::new(Outbox::default());

    let writer = control.try_clone().map_err(SessionError::Setup)?;
    let departure = Arc::new(Departure { build: build.clone(), taken: Mutex::new(()) });
    let (queue, leaving) = (outbox.clone(), departure.clone());
    background("outbox", move || {
        queue.write_to(writer);
        leaving.leave(Ok(()))
    })?;
    let ticks = Arc::new(ticks);
    for _ in 0..tick::SLEEPERS {
        let (ticks, leaving) = (ticks.clone(), departure.clone());
        background("tick", move || {
            tick::answer(&ticks);
            leaving.leave(Ok(()))
        })?;
    }
    let result = serve(control, &build, &outbox);
    departure.leave(result)
}

/// Handles messages until the host hangs up.
fn serve(control: UnixStream, build: &Build, outbox: &Arc<Outbox>) -> Result<(), SessionError> {
    let mut control = BufReader::new(control);
    let mut request = Some(Request::default());
    let mut input: Option<Input> = None;
    let mut has_input = false;
    while let Some(message) = frame::read(&mut control)? {
        let message = match &mut request {
            Some(request) => match request.take(message)? {
                Some(message) => message,
                None => continue,
            },
            None => message,
        };
        match message {
            ToAgent::Start => match request.take().ok_or(SessionError::Busy("Start"))?.finish()? {
                Ok(ready) => {
                    has_input = matches!(ready.streams, Streams::Terminal(_) | Streams::PipesWithInput);
                    input = build.start(ready, outbox.clone());
                }
                Err(exit) => build.refuse(exit, outbox),
            },
            ToAgent::Signal(signal) => build.signal(signal),
            ToAgent::Ping(number) => outbox.reply(FromAgent::Pong(number)),
            ToAgent::Diagnose => outbox.reply(diagnostics(build)),
            ToAgent::Input(_) | ToAgent::Resize(_) if !has_input => {
                return Err(SessionError::Input("input for a process that takes none"));
            }
            ToAgent::Input(bytes) => match &input {
                Some(input) if input.take(bytes) => {}
                Some(_) => return Err(SessionError::Input("input before the last was taken")),
                // It could not be started; the host will learn that.
                None => outbox.reply(FromAgent::InputTaken),
            },
            ToAgent::Resize(size) => {
                if let Some(input) = &input {
                    input.resize(size);
                }
            }
            ToAgent::Prepare { .. } => return Err(SessionError::Busy("Prepare")),
            ToAgent::Arguments(_) => return Err(SessionError::Busy("Arguments")),
            ToAgent::Environment(_) => return Err(SessionError::Busy("Environment")),
            ToAgent::Limits(_) => return Err(SessionError::Busy("Limits")),
        }
    }
    Ok(())
}

fn diagnostics(build: &Build) -> FromAgent {
    FromAgent::Diagnostics {
        system: connection::system(),
        processes: process_table::describe(process_table::below(process::id() as i32, build.session())),
        agent_rss_bytes: process_table::own_rss_bytes(),
    }
}

fn background(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), SessionError> {
    let thread = thread::Builder::new().name(name.to_owned()).stack_size(128 << 10).spawn(run);
    thread.map(drop).map_err(SessionError::Setup)
}

/// The end of this program: whichever thread is first to see that the host is gone decides how it looks, and the
/// others, which see the consequences, wait for the end with it.
struct Departure {
    build: Build,
    taken: Mutex<()>,
}

impl Departure {
    /// Kills what runs and exits: nothing of a build goes on without the host.
    fn leave(&self, result: Result<(), SessionError>) -> ! {
        let _held_to_the_end = self.taken.lock();
        let phase = self.build.phase();
        self.build.kill_all();
        let result = match (result, phase) {
            // Whoever hangs up after the end was reported has all there is, and before the start wants nothing.
            (Ok(()) | Err(SessionError::Frame(FrameError::Io(_))), Phase::Before | Phase::After) => Ok(()),
            (Ok(()), Phase::During) => Err(SessionError::Abandoned),
            (result, _) => result,
        };
        match result {
            Ok(()) => process::exit(0),
            Err(error) => {
                eprintln!("darwin-agent: {error}");
                process::exit(1)
            }
        }
    }
}
