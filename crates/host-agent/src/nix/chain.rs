//! Nix's own remote-build hook behind ours, so that existing `builders` keep working: there can be only one
//! `build-hook`.
//!
//! It is started when the first question is passed on, gets Nix's settings and each such question as Nix sent them, and
//! its replies are relayed. Once it has accepted, this process only copies: questions to it, its messages from it; it
//! inherits the build log's descriptors. Its `decline-permanently` becomes `decline`, because it speaks for itself only.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};

use super::descriptors::BuildLog;
use super::question::Question;
use super::reply::Reply;
use super::settings::Settings;
use super::store_command::NixProgram;

/// Longest line that is relayed; its log lines are JSON with whatever a remote machine printed.
const LINE_MAX: u64 = 1 << 20;

/// What the other hook says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It builds it on this machine; now call [`Chain::follow`].
    Accepts(String),
    /// It does not.
    Declines,
    /// It never will, whatever it is asked, and has ended.
    DeclinesForever,
    /// Not now.
    Postpones,
}

/// The other hook, once it runs.
#[derive(Debug)]
pub struct Chain {
    child: Child,
    questions: ChildStdin,
    replies: BufReader<PipeReader>,
}

/// Whether Nix has machines for its own hook. A file of machines that is missing or empty is none.
pub fn has_builders(builders: &str) -> bool {
    let builders = builders.trim();
    match builders.strip_prefix('@') {
        Some(path) if !path.contains(['\n', ';']) => {
            std::fs::read(Path::new(path.trim())).is_ok_and(|text| {
                text.split(|byte| *byte == b'\n')
                    .any(|line| !matches!(line.trim_ascii().first(), None | Some(b'#')))
            })
        }
        _ => !builders.is_empty(),
    }
}

impl Chain {
    /// Starts it and tells it Nix's settings.
    pub fn start(nix: &NixProgram, verbosity: u32, settings: &Settings, log: &BuildLog) -> io::Result<Self> {
        let (replies, its_end) = io::pipe()?;
        let mut command = nix.remote_build_hook();
        command.arg(verbosity.to_string()).stdin(Stdio::piped()).stdout(its_end.try_clone()?).stderr(its_end);
        log.share_with_children(true)?;
        let child = command.spawn();
        log.share_with_children(false)?;
        let mut child = child?;
        let questions =
            child.stdin.take().ok_or_else(|| io::Error::other("no pipe to the remote build hook"))?;
        let mut this = Self { child, questions, replies: BufReader::new(replies) };
        this.tell(&settings.encode())?;
        Ok(this)
    }

    /// Passes a question on and waits for the answer; messages that come before it are relayed to `messages`.
    pub fn ask(&mut self, question: &Question, messages: &mut impl Write) -> io::Result<Answer> {
        self.tell(&question.encode())?;
        loop {
            let line = self.line()?;
            match line.as_slice() {
                b"# accept\n" => {
                    let name = self.line()?;
                    return Ok(Answer::Accepts(String::from_utf8_lossy(name.trim_ascii_end()).into_owned()));
                }
                b"# decline\n" => return Ok(Answer::Declines),
                b"# decline-permanently\n" => return Ok(Answer::DeclinesForever),
                b"# postpone\n" => return Ok(Answer::Postpones),
                line if line.starts_with(b"# ") => {
                    let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
                    return Err(io::Error::other(format!("it replied '{line}'")));
                }
                line => messages.write_all(line)?,
            }
        }
    }

    /// One that has ended has perhaps replied before (`decline-permanently` needs no question), so that is no error yet.
    fn tell(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.questions.write_all(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        (&mut self.replies).take(LINE_MAX).read_until(b'\n', &mut line)?;
        if line.ends_with(b"\n") { Ok(line) } else { Err(io::Error::other("it ended without a reply")) }
    }

    /// After it has accepted: relays that, then everything in both directions until it ends, and returns its status.
    /// `ahead` is what was read of `questions` already.
    pub fn follow(
        self,
        name: String,
        ahead: Vec<u8>,
        questions: File,
        messages: &mut File,
    ) -> io::Result<u8> {
        let Self { mut child, questions: mut its_questions, mut replies } = self;
        Reply::Accept(name).write(messages)?;
        std::thread::spawn(move || {
            let mut questions = io::Cursor::new(ahead).chain(questions);
            // If it ends early there is nobody to tell; its status says why.
            let _ = io::copy(&mut questions, &mut its_questions);
        });
        io::copy(&mut replies, messages)?;
        Ok(child.wait()?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_empty_list_of_machines_is_none() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("machines");
        let setting = format!("@{}", file.display());
        assert!(!has_builders(""));
        assert!(!has_builders(" "));
        assert!(!has_builders(&setting));
        std::fs::write(&file, "\n# none\n").unwrap();
        assert!(!has_builders(&setting));
        std::fs::write(&file, "ssh://mac x86_64-darwin\n").unwrap();
        assert!(has_builders(&setting));
        assert!(has_builders("ssh://mac x86_64-darwin"));
    }
}
