//! What is printed for each version of Nix, as snapshots: the text is what users paste.

use super::super::proposal::{FrontEnd, Proposal, ProposalError, Wanted};
use super::super::text::render;
use super::{hook_for, proposal, wanted};

#[test]
fn for_nix_2_8() {
    insta::assert_snapshot!(render(&proposal("2.8.0")), @"
    # darling-builder for Nix 2.8, as its build hook.
    #
    # Nix asks the hook about every build; whatever is not for this builder goes on to `builders`, or is built here.
    # Put the line into /etc/nix/nix.conf of the Nix that builds and restart nix-daemon.
    build-hook = /usr/local/bin/darling-builder-hook
    ");
}

#[test]
fn for_nix_2_26() {
    insta::assert_snapshot!(render(&proposal("2.26.3")), @r#"
    # darling-builder for Nix 2.26, as its build hook.
    #
    # Nix asks the hook about every build; whatever is not for this builder goes on to `builders`, or is built here.
    # Nix 2.25 to 2.33 ignore this setting in nix.conf and in what it includes. It takes effect in one of these:
    #
    # - the environment of nix-daemon, after `systemctl daemon-reload` and `systemctl restart nix-daemon`;
    #   /etc/systemd/system/nix-daemon.service.d/darling-builder.conf:
    #       [Service]
    #       Environment="NIX_CONFIG=build-hook = /usr/local/bin/darling-builder-hook"
    #
    # - /etc/xdg/nix/nix.conf, for a Nix without daemon, or a daemon that systemd does not run:
    build-hook = /usr/local/bin/darling-builder-hook
    "#);
}

#[test]
fn for_nix_2_31() {
    insta::assert_snapshot!(render(&proposal("2.31.5")), @r#"
    # darling-builder for Nix 2.31, as its build hook.
    #
    # Nix asks the hook about every build; whatever is not for this builder goes on to `builders`, or is built here.
    # Nix 2.25 to 2.33 ignore this setting in nix.conf and in what it includes. It takes effect in one of these:
    #
    # - the environment of nix-daemon, after `systemctl daemon-reload` and `systemctl restart nix-daemon`;
    #   /etc/systemd/system/nix-daemon.service.d/darling-builder.conf:
    #       [Service]
    #       Environment="NIX_CONFIG=build-hook = /usr/local/bin/darling-builder-hook"
    #
    # - /etc/xdg/nix/nix.conf, for a Nix without daemon, or a daemon that systemd does not run:
    build-hook = /usr/local/bin/darling-builder-hook
    "#);
}

#[test]
fn for_nix_2_32() {
    insta::assert_snapshot!(render(&proposal("2.32.0")), @r#"
    # darling-builder for Nix 2.32, as an external builder.
    #
    # Nix hands the builds of these systems to the program and does everything else itself: it registers, checks and
    # signs what was built, and enforces time limits. Put the lines into /etc/nix/nix.conf of the Nix that builds and
    # restart nix-daemon. A build takes one of Nix's own job slots, so `max-jobs` must not be 0.
    extra-experimental-features = external-builders
    external-builders = [{"systems":["x86_64-darwin"],"program":"/usr/local/bin/host-agent","args":["external-builder"]}]
    "#);
}

#[test]
fn for_nix_2_33() {
    insta::assert_snapshot!(render(&proposal("2.33.1")), @r#"
    # darling-builder for Nix 2.33, as an external builder.
    #
    # Nix hands the builds of these systems to the program and does everything else itself: it registers, checks and
    # signs what was built, and enforces time limits. Put the lines into /etc/nix/nix.conf of the Nix that builds and
    # restart nix-daemon. A build takes one of Nix's own job slots, so `max-jobs` must not be 0.
    # Nix 2.33 alone does not rebuild (`--rebuild`, `--check`) through external builders.
    extra-experimental-features = external-builders
    external-builders = [{"systems":["x86_64-darwin"],"program":"/usr/local/bin/host-agent","args":["external-builder"]}]
    "#);
}

#[test]
fn for_nix_2_34() {
    insta::assert_snapshot!(render(&proposal("2.34.8")), @r#"
    # darling-builder for Nix 2.34, as an external builder.
    #
    # Nix hands the builds of these systems to the program and does everything else itself: it registers, checks and
    # signs what was built, and enforces time limits. Put the lines into /etc/nix/nix.conf of the Nix that builds and
    # restart nix-daemon. A build takes one of Nix's own job slots, so `max-jobs` must not be 0.
    extra-experimental-features = external-builders
    external-builders = [{"systems":["x86_64-darwin"],"program":"/usr/local/bin/host-agent","args":["external-builder"]}]
    "#);
}

#[test]
fn for_nix_2_34_through_the_hook() {
    insta::assert_snapshot!(render(&hook_for("2.34.8")), @"
    # darling-builder for Nix 2.34, as its build hook.
    #
    # Nix asks the hook about every build; whatever is not for this builder goes on to `builders`, or is built here.
    # Put the line into /etc/nix/nix.conf of the Nix that builds and restart nix-daemon.
    build-hook = /usr/local/bin/darling-builder-hook
    ");
}

#[test]
fn a_configuration_elsewhere_and_several_systems_reach_the_external_builder() {
    let wanted = Wanted {
        config: Some("/srv/darling-builder.toml".into()),
        systems: vec!["x86_64-darwin".into(), "i686-darwin".into()],
        ..wanted()
    };
    let proposal = Proposal::new("2.34.8".parse().unwrap(), &wanted).unwrap();
    insta::assert_snapshot!(proposal.lines.join("\n"), @r#"
    extra-experimental-features = external-builders
    external-builders = [{"systems":["x86_64-darwin","i686-darwin"],"program":"/usr/local/bin/host-agent","args":["--config","/srv/darling-builder.toml","external-builder"]}]
    "#);
}

#[test]
fn says_when_there_is_no_way() {
    let error = |version: &str, front_end| {
        let wanted = Wanted { front_end, ..wanted() };
        Proposal::new(version.parse().unwrap(), &wanted).unwrap_err().to_string()
    };
    insta::assert_snapshot!(error("2.2", None), @"Nix 2.2 has neither external builders nor a build hook that this program can serve; Nix 2.3 or later has");
    insta::assert_snapshot!(error("lix-2.94", None), @"Lix 2.94 has neither external builders nor a build hook that this program can serve; Nix 2.3 or later has");
    insta::assert_snapshot!(error("2.31.5", Some(FrontEnd::ExternalBuilder)), @"Nix 2.31 has no external builders: they came with Nix 2.32; leave out --front-end, or say build-hook");
}

#[test]
fn refuses_paths_that_nix_would_split_or_cut() {
    for path in ["/opt/my builder/host-agent", "/opt/a#b", "/opt/\"x", "/opt/a\nb", "host-agent", "/opt/%h"] {
        for front_end in [FrontEnd::ExternalBuilder, FrontEnd::BuildHook] {
            let wanted =
                Wanted { front_end: Some(front_end), program: path.into(), hook: path.into(), ..wanted() };
            let error = Proposal::new("2.34.8".parse().unwrap(), &wanted).unwrap_err();
            assert_eq!(error, ProposalError::Path(path.into()));
        }
    }
}
