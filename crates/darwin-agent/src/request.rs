//! Collects what to run until `Start`, and refuses what can't be run before anything is forked.

use std::ffi::CString;

use protocol::ByteString;
use protocol::limits::PROCESS_STRINGS_MAX;
use protocol::message::{Exit, ResourceLimits, Streams, ToAgent};
use thiserror::Error;

use crate::child::{Command, StartError, Step};

/// A message that makes no sense where it came.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// `Prepare` twice.
    #[error("host sent Prepare twice: an agent runs one process")]
    PreparedTwice,
    /// `Start` without `Prepare`.
    #[error("host sent Start without Prepare")]
    NotPrepared,
}

/// What is known so far.
#[derive(Debug, Default)]
pub struct Request {
    prepared: Option<Prepared>,
    argv: Vec<ByteString>,
    env: Vec<(ByteString, ByteString)>,
    limits: Option<ResourceLimits>,
    /// Bytes of all arguments and variables, kept or not.
    bytes: usize,
}

#[derive(Debug)]
struct Prepared {
    program: ByteString,
    directory: ByteString,
    streams: Streams,
    umask: u32,
}

/// A request that can be tried.
#[derive(Debug)]
pub struct Ready {
    /// The process.
    pub command: Command,
    /// Its streams.
    pub streams: Streams,
    /// For the error message if the kernel finds it too large.
    pub size: Size,
}

/// How large arguments and environment are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes of all strings.
    pub total: usize,
    /// Bytes of the longest.
    pub longest: usize,
}

impl Request {
    /// Takes one message; gives it back if it is not part of a request.
    pub fn take(&mut self, message: ToAgent) -> Result<Option<ToAgent>, RequestError> {
        match message {
            ToAgent::Prepare { .. } if self.prepared.is_some() => return Err(RequestError::PreparedTwice),
            ToAgent::Prepare { program, directory, streams, umask } => {
                self.prepared = Some(Prepared { program, directory, streams, umask });
            }
            ToAgent::Arguments(arguments) => {
                for argument in arguments {
                    if self.has_room(argument.len() + 1) {
                        self.argv.push(argument);
                    }
                }
            }
            ToAgent::Environment(variables) => {
                for (name, value) in variables {
                    if self.has_room(name.len() + value.len() + 2) {
                        self.env.push((name, value));
                    }
                }
            }
            ToAgent::Limits(limits) => self.limits = Some(limits),
            other => return Ok(Some(other)),
        }
        Ok(None)
    }

    /// Counts what came; once the limit is passed, nothing more is kept, and `finish` refuses the whole.
    fn has_room(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.bytes <= PROCESS_STRINGS_MAX
    }

    /// The whole request. The inner error is the build's end: it can't be started.
    pub fn finish(self) -> Result<Result<Ready, Exit>, RequestError> {
        let prepared = self.prepared.ok_or(RequestError::NotPrepared)?;
        if self.bytes > PROCESS_STRINGS_MAX {
            return Ok(Err(Exit::SpawnFailed {
                step: format!(
                    "arguments and environment of {} bytes, over the agent's limit of {PROCESS_STRINGS_MAX}",
                    self.bytes
                ),
                errno: libc::E2BIG,
            }));
        }
        let limits = self.limits.unwrap_or(ResourceLimits { core: 0, file_size: None });
        Ok(prepared.into_ready(self.argv, self.env, limits))
    }
}

impl Prepared {
    fn into_ready(
        self,
        argv: Vec<ByteString>,
        env: Vec<(ByteString, ByteString)>,
        limits: ResourceLimits,
    ) -> Result<Ready, Exit> {
        if argv.is_empty() {
            return Err(Exit::SpawnFailed { step: "start without argv[0]".to_owned(), errno: libc::EINVAL });
        }
        let argv: Vec<CString> = argv
            .into_iter()
            .enumerate()
            .map(|(index, argument)| c_string(argument.into_vec(), || format!("argument {index}")))
            .collect::<Result<_, _>>()?;
        let env: Vec<CString> = env
            .into_iter()
            .map(|(name, value)| {
                c_string([&name[..], b"=", &value[..]].concat(), || format!("environment variable {name}"))
            })
            .collect::<Result<_, _>>()?;
        let lengths = || argv.iter().chain(&env).map(|string| string.as_bytes_with_nul().len());
        let size = Size { total: lengths().sum(), longest: lengths().max().unwrap_or(0) };
        Ok(Ready {
            size,
            streams: self.streams,
            command: Command {
                program: c_string(self.program.into_vec(), || "program".to_owned())?,
                directory: c_string(self.directory.into_vec(), || "working directory".to_owned())?,
                argv,
                env,
                umask: self.umask & 0o7777,
                limits,
                controls_terminal: matches!(self.streams, Streams::Terminal(_)),
            },
        })
    }
}

fn c_string(bytes: Vec<u8>, what: impl Fn() -> String) -> Result<CString, Exit> {
    CString::new(bytes).map_err(|_| Exit::SpawnFailed {
        step: format!("{} contains a NUL byte", what()),
        errno: libc::EINVAL,
    })
}

impl Ready {
    /// A failed start in words, with what the error number alone does not say.
    pub fn explain(&self, error: StartError) -> Exit {
        let program = self.command.program.to_bytes().escape_ascii();
        let step = match (error.step, error.errno) {
            (Step::Exec, libc::E2BIG) => format!(
                "execve {program}: arguments and environment have {} bytes, the longest string {} \
                 (Linux allows 131072 a string, and a quarter of the stack limit, at most 6 MiB, in all)",
                self.size.total, self.size.longest
            ),
            (Step::Exec, libc::ENOENT) if self.program_exists() => {
                format!("execve {program}: the file is there, its interpreter or loader is not")
            }
            (Step::Exec, _) => format!("execve {program}"),
            (Step::Directory, _) => {
                format!("chdir {}", self.command.directory.to_bytes().escape_ascii())
            }
            (Step::Prepare, _) => "pipe or dup for the process".to_owned(),
            (Step::Fork, _) => "fork".to_owned(),
            (Step::Session, _) => "setsid".to_owned(),
            (Step::Streams, _) => "dup2 of a standard stream".to_owned(),
            (Step::Terminal, _) => "ioctl TIOCSCTTY of the pseudo-terminal".to_owned(),
            (Step::CoreLimit, _) => "setrlimit of the core file size".to_owned(),
            (Step::FileSizeLimit, _) => "setrlimit of the file size".to_owned(),
        };
        Exit::SpawnFailed { step, errno: error.errno }
    }

    fn program_exists(&self) -> bool {
        let program = ByteString::from(self.command.program.to_bytes());
        let directory = ByteString::from(self.command.directory.to_bytes());
        directory.as_path().join(program.as_path()).exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepare() -> ToAgent {
        ToAgent::Prepare {
            program: "/bin/sh".into(),
            directory: "/".into(),
            streams: Streams::Pipes,
            umask: 0o22,
        }
    }

    fn request(messages: impl IntoIterator<Item = ToAgent>) -> Request {
        let mut request = Request::default();
        for message in messages {
            assert_eq!(request.take(message), Ok(None));
        }
        request
    }

    fn refusal(request: Request) -> (String, i32) {
        match request.finish().unwrap() {
            Err(Exit::SpawnFailed { step, errno }) => (step, errno),
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn keeps_pieces_in_order_and_bytes_as_they_are() {
        let ready = request([
            prepare(),
            ToAgent::Arguments(vec!["-sh".into(), "a".into()]),
            ToAgent::Environment(vec![("A".into(), b"\xff=\n".into())]),
            ToAgent::Arguments(vec![b"\xc3".into()]),
            ToAgent::Environment(vec![("A".into(), "".into())]),
        ])
        .finish()
        .unwrap()
        .unwrap();
        assert_eq!(ready.command.argv, [c"-sh", c"a", c"\xc3"].map(CString::from));
        assert_eq!(ready.command.env, [c"A=\xff=\n", c"A="].map(CString::from));
        assert_eq!(ready.command.limits.core, 0);
    }

    #[test]
    fn stops_keeping_strings_at_the_limit_and_refuses_the_whole() {
        let piece = ByteString::from(vec![b'x'; PROCESS_STRINGS_MAX / 4]);
        let pieces = (0..8).map(|_| ToAgent::Arguments(vec![piece.clone()]));
        let request = request([prepare()].into_iter().chain(pieces));
        assert_eq!(request.argv.len(), 3);
        let (step, errno) = refusal(request);
        assert_eq!(errno, libc::E2BIG);
        assert_eq!(step, "arguments and environment of 16777224 bytes, over the agent's limit of 8388608");
    }

    #[test]
    fn refuses_nul_bytes_and_an_empty_argument_list() {
        let nul = ToAgent::Arguments(vec!["sh".into(), b"a\0b".into()]);
        assert_eq!(
            refusal(request([prepare(), nul])),
            ("argument 1 contains a NUL byte".into(), libc::EINVAL)
        );
        let nul = ToAgent::Environment(vec![("A".into(), b"\0".into())]);
        assert_eq!(
            refusal(request([prepare(), ToAgent::Arguments(vec!["sh".into()]), nul])),
            ("environment variable A contains a NUL byte".into(), libc::EINVAL)
        );
        assert_eq!(refusal(request([prepare()])), ("start without argv[0]".into(), libc::EINVAL));
    }

    #[test]
    fn refuses_a_second_prepare_and_a_start_without_one() {
        assert_eq!(request([prepare()]).take(prepare()), Err(RequestError::PreparedTwice));
        assert_eq!(request([]).finish().err(), Some(RequestError::NotPrepared));
    }

    #[test]
    fn leaves_other_messages_alone() {
        assert_eq!(request([]).take(ToAgent::Ping(3)), Ok(Some(ToAgent::Ping(3))));
    }
}
