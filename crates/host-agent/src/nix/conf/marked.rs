//! Lines of ours at the end of a file of the user's, found again by the comments around them.
//!
//! At the end, because a later `experimental-features = …` would undo our `extra-experimental-features`. Taking them away
//! gives the file back to the byte, also one whose last line had no end.

use thiserror::Error;

const BEGIN: &str = "# darling-builder begin: `host-agent nix-conf --remove` takes these lines away";
const BEGIN_BROKEN: &str = "# darling-builder begin: `host-agent nix-conf --remove` takes these lines away, and the line break before them";
const BEGIN_PREFIX: &str = "# darling-builder begin";
const END: &str = "# darling-builder end";

/// The marks are not a pair.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the lines from `{BEGIN_PREFIX}` to `{END}` are not as they were written; remove them by hand")]
pub struct Damaged;

/// `original` with `line` in marks after it.
pub fn with_lines(original: &[u8], line: &str) -> Vec<u8> {
    let broken = !original.is_empty() && !original.ends_with(b"\n");
    let (gap, begin) = if broken { ("\n", BEGIN_BROKEN) } else { ("", BEGIN) };
    let mut text = original.to_vec();
    text.extend_from_slice(format!("{gap}{begin}\n{line}\n{END}\n").as_bytes());
    text
}

/// `text` without the marks and what is between them; `None` if there are none.
pub fn without_lines(text: &[u8]) -> Result<Option<Vec<u8>>, Damaged> {
    let mut before: &[u8] = &[];
    let mut after: &[u8] = &[];
    let (mut broken, mut begun, mut ended) = (false, false, false);
    let mut at = 0;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let next = at + line.len();
        let words = line.strip_suffix(b"\n").unwrap_or(line);
        if words.starts_with(BEGIN_PREFIX.as_bytes()) {
            if begun {
                return Err(Damaged);
            }
            begun = true;
            broken = words == BEGIN_BROKEN.as_bytes();
            before = &text[..at];
        } else if words == END.as_bytes() {
            if !begun || ended {
                return Err(Damaged);
            }
            ended = true;
            after = &text[next..];
        }
        at = next;
    }
    match (begun, ended) {
        (false, _) => Ok(None),
        (true, false) => Err(Damaged),
        (true, true) => {
            // What came after needs the line break now.
            if broken && after.is_empty() {
                before = before.strip_suffix(b"\n").unwrap_or(before);
            }
            Ok(Some([before, after].concat()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn taking_away_gives_the_file_back(original in "[a-z =#\\n]{0,60}") {
            let with = with_lines(original.as_bytes(), "!include x.conf");
            prop_assert_eq!(without_lines(&with), Ok(Some(original.into_bytes())));
        }

        #[test]
        fn never_panics(text in proptest::collection::vec(
            prop_oneof![Just(BEGIN), Just(BEGIN_BROKEN), Just(END), Just("a = b"), Just("")], 0..6,
        ), end in any::<bool>()) {
            let mut text = text.join("\n");
            if end { text.push('\n'); }
            let _ = without_lines(text.as_bytes());
        }
    }

    #[test]
    fn lines_that_were_added_later_stay_lines() {
        let mut with = with_lines(b"cores = 2", "!include x.conf");
        with.extend_from_slice(b"max-jobs = 1\n");
        assert_eq!(without_lines(&with).unwrap().unwrap(), b"cores = 2\nmax-jobs = 1\n");
    }

    #[test]
    fn half_a_pair_of_marks_is_not_guessed_at() {
        for text in [format!("{BEGIN}\n"), format!("{END}\n"), format!("{BEGIN}\n{BEGIN}\n{END}\n")] {
            assert_eq!(without_lines(text.as_bytes()), Err(Damaged), "{text}");
        }
    }
}
