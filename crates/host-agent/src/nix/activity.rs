//! Lines of Nix's structured log: `@nix ` and one JSON object.
//!
//! On file descriptor 2 only these are shown once a build was accepted; other text is dropped silently. Nix aborts its
//! whole run on a field that is neither a string nor an unsigned number, so the few lines that are needed are made
//! here, from types that can't express anything else.

/// Errors; shown whatever the verbosity.
pub const LEVEL_ERROR: u8 = 0;
/// Remarks for whoever asked for more (`-v`).
pub const LEVEL_TALKATIVE: u8 = 4;

/// A message for the terminal.
pub fn message(level: u8, text: &str) -> Vec<u8> {
    format!("@nix {{\"action\":\"msg\",\"level\":{level},\"msg\":{}}}\n", quoted(text)).into_bytes()
}

/// The phase a build is in. Only on the build's own log: on file descriptor 2 it would name the phase of the whole run.
pub fn phase(name: &str) -> Vec<u8> {
    format!("@nix {{\"action\":\"setPhase\",\"phase\":{}}}\n", quoted(name)).into_bytes()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_one_line_of_compact_json() {
        let line = String::from_utf8(message(LEVEL_ERROR, "two\nlines, \"quoted\" \u{1b}[1m\\")).unwrap();
        insta::assert_snapshot!(line.trim_end(), @r#"@nix {"action":"msg","level":0,"msg":"two\nlines, \"quoted\" \u001b[1m\\"}"#);
        assert_eq!(line.matches('\n').count(), 1);
        let line = String::from_utf8(phase("waiting")).unwrap();
        insta::assert_snapshot!(line.trim_end(), @r#"@nix {"action":"setPhase","phase":"waiting"}"#);
    }
}
