//! Lines of an `sshd`'s log. Whoever has logged in may be able to write there too, so no line is held that is longer than
//! any of `sshd`'s own.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line that is kept, bytes: `sshd` has 1024 for a message.
const LINE_MAX: usize = 1100;

/// Reads lines; what a line has beyond [`LINE_MAX`] is dropped.
#[derive(Debug)]
pub(super) struct LogLines<R> {
    reader: R,
    read: Vec<u8>,
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> LogLines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, read: Vec::with_capacity(4096), line: Vec::new() }
    }

    /// The next line without its end; `None` when nobody has the log open any more. May be cancelled without losing anything.
    pub(super) async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            let end = self.read.iter().position(|byte| *byte == b'\n');
            let part = self.read.drain(..end.map_or(self.read.len(), |end| end + 1));
            let room = LINE_MAX - self.line.len();
            self.line.extend(part.take(room));
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                let text = String::from_utf8_lossy(&line);
                return Ok(Some(text.trim_end().chars().filter(|char| !char.is_control()).collect()));
            }
            if self.reader.read_buf(&mut self.read).await? == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_one_by_one_and_long_ones_cut() {
        let long = "x".repeat(100_000);
        let text = format!("one\r\n\ntwo\x1b[0m\n{long}\nlast\nnever ended");
        let mut lines = LogLines::new(text.as_bytes());
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            seen.push(line);
        }
        assert_eq!(seen, ["one", "", "two[0m", &long[..LINE_MAX], "last"]);
    }
}
