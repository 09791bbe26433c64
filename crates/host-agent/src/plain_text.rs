//! Text that others have a hand in, as it is shown on a terminal or written to the log.
//!
//! A terminal obeys what it is shown, and a log has a line for each thing that happened. So whatever moves, hides or answers,
//! and whatever ends a line where none ends, is shown as an escape instead. Names are closed by their type
//! ([`Printable`](protocol::Printable), [`StoreName`](crate::store_path::StoreName)); this is for everything else, at the edge
//! where it is written.

use std::fmt::Write;

/// One line: line ends are escaped too.
pub fn line(text: &str) -> String {
    escaped(text, |_| false)
}

/// Several lines: their ends stay, and tabs.
pub fn lines(text: &str) -> String {
    escaped(text, |char| matches!(char, '\n' | '\t'))
}

/// JSON that was written already, with everything that is not ASCII in JSON's own escapes. Only strings have such characters.
pub fn json(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_ascii() && char != '\x7f' {
            plain.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                // Writing to a String can't fail.
                let _ = write!(plain, "\\u{unit:04x}");
            }
        }
    }
    plain
}

/// `escape_debug` knows what Unicode has that does not print: controls of both sets, and those that turn the direction of
/// text. Quotes and backslashes do no harm.
fn escaped(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut plain = String::with_capacity(text.len());
    for char in text.chars() {
        if stays(char) || matches!(char, '"' | '\'' | '\\') {
            plain.push(char);
        } else {
            plain.extend(char.escape_debug());
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\x1b]0;root\x07\r\nb\t\u{9b}2J\u{202e}\x7f 'é' \\ \u{1f4a9}";

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        insta::assert_snapshot!(line(HOSTILE), @r"a\u{1b}]0;root\u{7}\r\nb\t\u{9b}2J\u{202e}\u{7f} 'é' \ 💩");
        insta::assert_snapshot!(lines(HOSTILE), @r"
        a\u{1b}]0;root\u{7}\r
        b	\u{9b}2J\u{202e}\u{7f} 'é' \ 💩
        ");
    }

    #[test]
    fn json_stays_the_same_json_and_is_ascii() {
        let written = serde_json::to_string(HOSTILE).unwrap();
        let plain = json(&written);
        assert!(plain.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{plain}");
        assert_eq!(serde_json::from_str::<String>(&plain).unwrap(), HOSTILE);
    }
}
