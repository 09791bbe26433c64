//! What a world keeps out, seen from inside one.

use std::path::Path;
use std::process::Command;

/// A shell that starts something in the background lets it ignore these, and a program started so passes that on.
const IGNORED_IN_THE_BACKGROUND: &str = "INT QUIT HUP";

#[test]
fn signals_that_were_ignored_outside_are_not_ignored_in_a_world() {
    let xtask = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let target = xtask.ancestors().nth(2).unwrap();
    if !nix::unistd::geteuid().is_root() || !target.join("nix-roots/2.8.0").is_dir() {
        eprintln!("skipped: needs root, and a Nix (cargo xtask nix-roots)");
        return;
    }
    let status_of = |words: &str| {
        let script =
            format!("trap '' {IGNORED_IN_THE_BACKGROUND}; exec {words} grep SigIgn /proc/self/status");
        let output = Command::new("sh")
            .args(["-c", &script])
            .env("XTASK", xtask)
            .env("CARGO_TARGET_DIR", target)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let line = String::from_utf8(output.stdout).unwrap();
        u64::from_str_radix(line.trim().rsplit('\t').next().unwrap(), 16).unwrap() & 0b111
    };
    assert_eq!(status_of(""), 0b111, "the shell has them ignored");
    assert_eq!(status_of("\"$XTASK\" in-world --no-daemon"), 0);
}
