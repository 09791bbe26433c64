//! The daemon's log on stderr: one line an event, whatever is in it.
//!
//! `tracing-subscriber` writes each event whole, and of what an event holds it escapes only part (0.3.23: neither line ends
//! nor what `%` shows). Reasons, paths and names in events are partly others' words, so this is done for all of it, here
//! where it leaves. Colours would be escapes as well: there are none.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

use crate::plain_text;

/// Longest line that is written whole, bytes: what a failed build says of itself can be as long as its request.
const LONGEST: usize = 16 << 10;

/// Writes events to `W`s.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlainLines<M>(pub(super) M);

/// Writes one event.
#[derive(Debug)]
pub(super) struct PlainLine<W>(W);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for PlainLines<M> {
    type Writer = PlainLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        PlainLine(self.0.make_writer())
    }
}

impl<W: Write> Write for PlainLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.write_all(event)?;
        Ok(event.len())
    }

    fn write_all(&mut self, event: &[u8]) -> io::Result<()> {
        let event = event.strip_suffix(b"\n").unwrap_or(event);
        let (shown, more) = event.split_at(event.len().min(LONGEST));
        let mut line = plain_text::line(&String::from_utf8_lossy(shown));
        if !more.is_empty() {
            line += &format!(" … and {} bytes more", more.len());
        }
        self.0.write_all((line + "\n").as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_however_its_fields_are_shown() {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::fmt()
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .with_writer(PlainLines(move || writer.clone()));
        tracing::subscriber::with_default(log.finish(), || {
            let hostile = "\x1b[2J\nINFO all is well\r\u{9b}";
            tracing::info!(field = hostile, display = %hostile, "message {hostile}");
            tracing::warn!("é");
            tracing::warn!("{}", "x".repeat(LONGEST * 9));
        });
        let written = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines.len(), 3, "{written}");
        assert!(lines[2].len() < LONGEST + 100 && lines[2].ends_with("bytes more"), "{}", lines[2]);
        assert!(!lines.concat().contains(char::is_control), "{written:?}");
        assert_eq!(lines[1].trim(), "WARN é");
    }
}
