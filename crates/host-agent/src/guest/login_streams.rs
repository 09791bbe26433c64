//! What an `sshd` speaks through: sockets that are cut off when it ends, or is to.
//!
//! Without that they would stay open for as long as any process has them that was started in the session: stock Darling's
//! shellspawn leaves more descriptors open than it was asked to, and its `sshd` fails to close them.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Both are cut off when this is dropped. What was said before can still be read at the other end.
#[derive(Debug)]
pub struct LoginStreams {
    connection: UnixStream,
    log: UnixStream,
}

impl LoginStreams {
    /// Two stream sockets: one is standard input and output of an `sshd`, the other its standard error.
    pub fn new(connection: OwnedFd, log: OwnedFd) -> Self {
        Self { connection: connection.into(), log: log.into() }
    }

    /// Input, output, error.
    pub fn standard(&self) -> [BorrowedFd<'_>; 3] {
        [self.connection.as_fd(), self.connection.as_fd(), self.log.as_fd()]
    }

    /// Says in the log why there is no `sshd`.
    pub fn say(&self, reason: &io::Error) {
        use std::io::Write;
        let _ = writeln!(&self.log, "failed to start sshd in the slot: {reason}");
    }
}

impl Drop for LoginStreams {
    fn drop(&mut self) {
        for stream in [&self.connection, &self.log] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn streams_end_however_many_have_them_and_what_was_said_arrives() {
        let ((mut ours, theirs), (mut log, their_log)) =
            (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let kept = theirs.try_clone().unwrap();
        let streams = LoginStreams::new(theirs.into(), their_log.into());
        (&kept).write_all(b"last words").unwrap();
        streams.say(&io::Error::other("a reason"));
        drop(streams);
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        assert_eq!(said, "last words");
        let mut said = String::new();
        log.read_to_string(&mut said).unwrap();
        assert_eq!(said, "failed to start sshd in the slot: a reason\n");
        drop(kept);
    }
}
