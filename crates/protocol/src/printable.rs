//! What one side calls itself, fit to be shown: on root's terminal, and in a log.
//!
//! A terminal obeys what it is shown: control characters move, hide and answer. So a name that comes from the other side
//! has none, by its type, and is short.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Text of 1 to `MAX` printable ASCII characters, space included. Travels as any other text.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Printable<const MAX: usize>(String);

/// Why a text is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PrintableError {
    /// Nothing to show.
    #[error("a name is empty")]
    Empty,
    /// Too long.
    #[error("a name has {length} bytes; {max} are allowed")]
    TooLong {
        /// Its bytes.
        length: usize,
        /// Most that it may have.
        max: usize,
    },
    /// Something else than printable ASCII, at this byte.
    #[error("a name has something else than printable ASCII at byte {0}")]
    Unprintable(usize),
}

impl<const MAX: usize> Printable<MAX> {
    /// Takes what conforms.
    pub fn parse(text: impl Into<String>) -> Result<Self, PrintableError> {
        let text = text.into();
        if text.is_empty() {
            return Err(PrintableError::Empty);
        }
        if text.len() > MAX {
            return Err(PrintableError::TooLong { length: text.len(), max: MAX });
        }
        match text.bytes().position(|byte| !is_printable(byte)) {
            Some(at) => Err(PrintableError::Unprintable(at)),
            None => Ok(Self(text)),
        }
    }

    /// Makes any text conform, for what this side says of itself: other characters become `?`, what is too long is cut.
    pub fn made_of(text: &str) -> Self {
        let shown =
            |char: char| u8::try_from(char).ok().filter(|byte| is_printable(*byte)).map_or('?', char::from);
        let text: String = text.chars().map(shown).take(MAX).collect();
        Self(if text.is_empty() { "?".into() } else { text })
    }
}

fn is_printable(byte: u8) -> bool {
    byte == b' ' || byte.is_ascii_graphic()
}

impl<const MAX: usize> Deref for Printable<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> TryFrom<String> for Printable<MAX> {
    type Error = PrintableError;

    fn try_from(text: String) -> Result<Self, PrintableError> {
        Self::parse(text)
    }
}

impl<const MAX: usize> From<Printable<MAX>> for String {
    fn from(name: Printable<MAX>) -> Self {
        name.0
    }
}

impl<const MAX: usize> fmt::Display for Printable<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> fmt::Debug for Printable<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    type Name = Printable<8>;

    #[test]
    fn only_short_printable_ascii_is_a_name() {
        assert_eq!(&*Name::parse("a b ~!").unwrap(), "a b ~!");
        assert_eq!(Name::parse(""), Err(PrintableError::Empty));
        assert_eq!(Name::parse("123456789"), Err(PrintableError::TooLong { length: 9, max: 8 }));
        for (text, at) in
            [("\x1b[2J", 0), ("ab\n", 2), ("a\tb", 1), ("a\x7f", 1), ("a\u{9b}2J", 1), ("\u{202e}a", 0)]
        {
            assert_eq!(Name::parse(text), Err(PrintableError::Unprintable(at)), "{text:?}");
        }
    }

    #[test]
    fn a_peer_can_send_no_other() {
        let sent = |text: &str| {
            frame::decode::<Name>(&frame::encode(&text.to_owned()).unwrap()[frame::HEADER_LEN..])
        };
        assert_eq!(&*sent("name").unwrap(), "name");
        for text in ["", "123456789", "\x1b[2J"] {
            assert!(sent(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn whatever_this_side_is_called_it_can_say() {
        for (text, said) in
            [("fine", "fine"), ("\x1b[0m\u{e9}", "?[0m?"), ("123456789", "12345678"), ("", "?")]
        {
            let name = Name::made_of(text);
            assert_eq!(&*name, said);
            assert!(Name::parse(&*name).is_ok());
        }
    }
}
