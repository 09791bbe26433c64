//! The syntax of a `.drv` file: nested brackets, parentheses and quoted byte strings, without white space.
//!
//! Our own rather than the `nix-derivation` crate's, which serves the tests as a second opinion: that one refuses
//! arguments, systems and builders that are not UTF-8, and output hashes that it doesn't know, where we have to name
//! what is wrong, and it computes the paths of fixed outputs anew instead of reporting what the file says.

use thiserror::Error;

/// Deepest nesting of `DrvWithVersion` input nodes; we refuse to build those, and only skip over them.
const DEPTH_MAX: usize = 256;

/// Where and why a `.drv` file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("at byte {offset}: {problem}")]
pub struct AtermError {
    /// Bytes before the place.
    pub offset: usize,
    /// What is wrong there.
    pub problem: String,
}

/// A place in a `.drv` file.
#[derive(Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    /// At the start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// An error at this place.
    pub fn error(&self, problem: impl Into<String>) -> AtermError {
        AtermError { offset: self.offset, problem: problem.into() }
    }

    /// Takes `literal` if it comes next.
    pub fn skip(&mut self, literal: &str) -> bool {
        let found = self.bytes[self.offset..].starts_with(literal.as_bytes());
        if found {
            self.offset += literal.len();
        }
        found
    }

    /// Takes `literal`, which must come next.
    pub fn expect(&mut self, literal: &str) -> Result<(), AtermError> {
        if self.skip(literal) { Ok(()) } else { Err(self.error(format!("expected `{literal}`"))) }
    }

    /// The end of the file, which must be here.
    pub fn end(&self) -> Result<(), AtermError> {
        match self.bytes.len() - self.offset {
            0 => Ok(()),
            rest => Err(self.error(format!("{rest} bytes after the end of the derivation"))),
        }
    }

    /// A quoted string. A backslash stands before `n`, `r`, `t` and before any byte that means itself.
    pub fn string(&mut self) -> Result<Vec<u8>, AtermError> {
        self.expect("\"")?;
        let mut string = Vec::new();
        loop {
            let rest = &self.bytes[self.offset..];
            let Some(plain) = memchr::memchr2(b'"', b'\\', rest) else {
                return Err(self.error("unterminated string"));
            };
            string.extend_from_slice(&rest[..plain]);
            self.offset += plain + 1;
            if rest[plain] == b'"' {
                return Ok(string);
            }
            let Some(escaped) = rest.get(plain + 1) else {
                return Err(self.error("unterminated string"));
            };
            string.push(match escaped {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                other => *other,
            });
            self.offset += 1;
        }
    }

    /// `[…,…]`, each element read by `element`.
    pub fn list<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T, AtermError>,
    ) -> Result<Vec<T>, AtermError> {
        self.expect("[")?;
        let mut list = Vec::new();
        if self.skip("]") {
            return Ok(list);
        }
        loop {
            list.push(element(self)?);
            if self.skip("]") {
                return Ok(list);
            }
            self.expect(",")?;
        }
    }

    /// `(…,…)` of strings.
    pub fn tuple<const N: usize>(&mut self) -> Result<[Vec<u8>; N], AtermError> {
        let mut tuple = [const { Vec::new() }; N];
        self.expect("(")?;
        for (index, field) in tuple.iter_mut().enumerate() {
            if index > 0 {
                self.expect(",")?;
            }
            *field = self.string()?;
        }
        self.expect(")")?;
        Ok(tuple)
    }

    /// Skips what an input derivation's path is paired with: a list of output names, or `([names],[(name,node),…])`.
    pub fn skip_input_node(&mut self, depth: usize) -> Result<(), AtermError> {
        if depth > DEPTH_MAX {
            return Err(self.error("input derivations nested too deeply"));
        }
        if !self.skip("(") {
            self.list(Self::string)?;
            return Ok(());
        }
        self.list(Self::string)?;
        self.expect(",")?;
        self.list(|cursor| {
            cursor.expect("(")?;
            cursor.string()?;
            cursor.expect(",")?;
            cursor.skip_input_node(depth + 1)?;
            cursor.expect(")")
        })?;
        self.expect(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undoes_every_escape_and_keeps_every_other_byte() {
        let string = Cursor::new(b"\"a\\n\\r\\t\\\"\\\\\\x\xff\0\"rest").string().unwrap();
        assert_eq!(string, b"a\n\r\t\"\\x\xff\0");
    }

    #[test]
    fn says_where_a_string_has_no_end() {
        for bytes in [&b"\"abc"[..], b"\"abc\\", b"\""] {
            let error = Cursor::new(bytes).string().unwrap_err();
            assert_eq!(error.problem, "unterminated string");
        }
        insta::assert_snapshot!(Cursor::new(b"abc").string().unwrap_err(), @"at byte 0: expected `\"`");
    }
}
