//! Answers to a question, on file descriptor 2.
//!
//! Nix's event loop stands still until it has read one, so each is a single write of less than a pipe's atomic size.

use std::io::{self, Write};

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The build runs here; the name is what Nix shows after "building … on".
    Accept(String),
    /// Not ours. Nix builds it itself or, if it can't, fails (until 2.33 the whole run).
    Decline,
    /// Not now: Nix gives its locks back and asks again after `build-poll-interval` (5 s).
    Postpone,
}

impl Reply {
    /// The bytes. The name's line is read raw, so it follows in the same write.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Reply::Accept(name) => format!("# accept\n{}\n", name.replace(['\n', '\r'], " ")).into_bytes(),
            Reply::Decline => b"# decline\n".to_vec(),
            Reply::Postpone => b"# postpone\n".to_vec(),
        }
    }

    /// Gives the answer.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.encode())?;
        to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_follows_in_the_same_write_and_stays_one_line() {
        assert_eq!(Reply::Accept("a\nb".into()).encode(), b"# accept\na b\n");
        assert_eq!(Reply::Decline.encode(), b"# decline\n");
        assert_eq!(Reply::Postpone.encode(), b"# postpone\n");
    }
}
