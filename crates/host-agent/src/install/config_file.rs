//! The configuration file of a new installation: defaults, and what the user has chosen.

use crate::config::GuestKind;

const INTRODUCTION: &str = "\
# Configuration of darling-builder. Every key has a default; docs/configuration.md has them all.
# After a change: `systemctl reload darling-builder`, which lets running builds finish first.
";

const EXAMPLES: &str = "
# Builds at once, and spare slots kept booted for them:
#max-jobs = 4
#warm-slots = 2

# Users (by number) that may build, besides root and Nix's build users:
#allowed-uids = [1000]

#[limits]
#wall-seconds = 7200
#silence-seconds = 1800
";

/// The text for this guest.
pub fn text(guest: GuestKind) -> String {
    let choice = match guest {
        GuestKind::Darling => {
            "\n# Darling's launcher, if it is not on the daemon's PATH:\n#[darling]\n#launcher = \"/opt/darling/bin/darling\"\n"
        }
        GuestKind::Linux => {
            "\n# The stand-in: Linux builders that merely say x86_64-darwin, for trying things out without Darling.\nguest = \"linux\"\n"
        }
    };
    match guest {
        // A table ends what is at the top.
        GuestKind::Darling => format!("{INTRODUCTION}{EXAMPLES}{choice}"),
        GuestKind::Linux => format!("{INTRODUCTION}{choice}{EXAMPLES}"),
    }
}
