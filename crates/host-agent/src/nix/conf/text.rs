//! How settings are shown: lines of Nix configuration, all else in comments, so that the whole can be appended to a file.

use std::fmt::Write;

use super::install::{DROP_IN, XDG_CONF};
use super::proposal::{FrontEnd, Proposal};

/// The settings with what there is to know about them.
pub fn render(proposal: &Proposal) -> String {
    let mut text = String::new();
    let version = proposal.version;
    // Writing to a String can't fail.
    let _ = match proposal.front_end {
        FrontEnd::ExternalBuilder => writeln!(
            text,
            "# darling-builder for {version}, as an external builder.\n\
             #\n\
             # Nix hands the builds of these systems to the program and does everything else itself: it registers, checks and\n\
             # signs what was built, and enforces time limits. Put the lines into /etc/nix/nix.conf of the Nix that builds and\n\
             # restart nix-daemon. A build takes one of Nix's own job slots, so `max-jobs` must not be 0."
        ),
        FrontEnd::BuildHook => writeln!(
            text,
            "# darling-builder for {version}, as its build hook.\n\
             #\n\
             # Nix asks the hook about every build; whatever is not for this builder goes on to `builders`, or is built here."
        ),
    };
    if proposal.front_end == FrontEnd::ExternalBuilder && !version.rebuilds_through_external_builders() {
        text.push_str(
            "# Nix 2.33 alone does not rebuild (`--rebuild`, `--check`) through external builders.\n",
        );
    }
    if proposal.front_end == FrontEnd::BuildHook && proposal.in_nix_conf {
        text.push_str(
            "# Put the line into /etc/nix/nix.conf of the Nix that builds and restart nix-daemon.\n",
        );
    }
    if !proposal.in_nix_conf {
        let _ = writeln!(
            text,
            "# Nix 2.25 to 2.33 ignore this setting in nix.conf and in what it includes. It takes effect in one of these:\n\
             #\n\
             # - the environment of nix-daemon, after `systemctl daemon-reload` and `systemctl restart nix-daemon`;\n\
             #   {DROP_IN}:\n\
             #       [Service]\n\
             #       {}\n\
             #\n\
             # - {XDG_CONF}, for a Nix without daemon, or a daemon that systemd does not run:",
            environment_line(proposal),
        );
    }
    for line in &proposal.lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The line of a systemd unit that says the same.
pub fn environment_line(proposal: &Proposal) -> String {
    format!("Environment=\"NIX_CONFIG={}\"", proposal.lines.join("\\n"))
}
