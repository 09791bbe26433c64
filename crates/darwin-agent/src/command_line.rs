//! The command line: one socket path and one flag.

use std::ffi::OsString;
use std::path::PathBuf;

use thiserror::Error;

/// Shown for `--help` and after a wrong command line.
pub const USAGE: &str = "\
Usage: darwin-agent [--exclusive-uid] SOCKET
       darwin-agent --try-confinement

Connects to the Unix socket SOCKET twice (messages and tick), runs the one process it is told to, sends its output
and its end, and exits when the other side closes.

  --exclusive-uid    this user id belongs to the build alone: kill everything that runs as it when the process ends
  --try-confinement  try what a builder may not do, as the builder that this is started as, and print what came of it
";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Serve one build.
    Run(Options),
    /// Print the usage.
    Help,
    /// Print who this is.
    Version,
    /// Print what a builder may not do.
    TryConfinement,
}

/// How to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The host's listening socket.
    pub socket: PathBuf,
    /// Whether every process of this user id may be killed when the build's process has ended. Wrong inside Darling,
    /// whose own servers run as the same user.
    pub exclusive_uid: bool,
}

/// A command line that makes no sense.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CommandLineError {
    /// No socket.
    #[error("no socket given")]
    NoSocket,
    /// More than one.
    #[error("more than one socket given")]
    TwoSockets,
    /// An option that does not exist.
    #[error("unknown option {}", .0.display())]
    UnknownOption(OsString),
}

/// Parses the arguments after the program's name.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Action, CommandLineError> {
    let mut socket = None;
    let mut exclusive_uid = false;
    for argument in arguments {
        match argument.to_str() {
            Some("--help" | "-h") => return Ok(Action::Help),
            Some("--version" | "-V") => return Ok(Action::Version),
            Some("--try-confinement") => return Ok(Action::TryConfinement),
            Some("--exclusive-uid") => exclusive_uid = true,
            Some(option) if option.starts_with('-') => {
                return Err(CommandLineError::UnknownOption(argument));
            }
            _ if socket.is_some() => return Err(CommandLineError::TwoSockets),
            _ => socket = Some(PathBuf::from(argument)),
        }
    }
    let socket = socket.ok_or(CommandLineError::NoSocket)?;
    Ok(Action::Run(Options { socket, exclusive_uid }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Action, CommandLineError> {
        parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn takes_a_socket_and_the_flag_in_any_order() {
        let both = Ok(Action::Run(Options { socket: "/s".into(), exclusive_uid: true }));
        assert_eq!(parsed(&["/s", "--exclusive-uid"]), both);
        assert_eq!(parsed(&["--exclusive-uid", "/s"]), both);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(parsed(&[]), Err(CommandLineError::NoSocket));
        assert_eq!(parsed(&["/a", "/b"]), Err(CommandLineError::TwoSockets));
        assert_eq!(parsed(&["--tcp", "/a"]), Err(CommandLineError::UnknownOption("--tcp".into())));
    }
}
