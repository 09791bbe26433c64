//! What is asked and answered before a build.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use host_agent::control::message::FromDaemon;

use crate::harness::{World, order, settings_block};

#[test]
fn declines_other_systems_and_says_why_once() {
    let world = World::new();
    let mut hook = world.hook(&[]);
    let question = world.question("aarch64-linux");
    insta::assert_snapshot!(hook.ask(&question).join("\n"), @r#"
    @nix {"action":"msg","level":4,"msg":"not for darling-builder: system aarch64-linux is not one of this builder's (x86_64-darwin)"}
    # decline
    "#);
    assert_eq!(hook.ask(&question), ["# decline"]);
    let end = hook.end();
    assert_eq!((end.status, end.messages), (Some(0), vec![]));
}

#[test]
fn declines_builtin_builders_of_our_system() {
    let world = World::new();
    world.derivation(r#""","""#, "builtin:fetchurl");
    let mut hook = world.hook(&[]);
    assert_eq!(hook.ask(&world.question("x86_64-darwin")).last().unwrap(), "# decline");
}

#[test]
fn declines_to_check_what_is_there_already() {
    let world = World::new();
    world.derivation(r#""","""#, "/bin/sh");
    std::fs::write(world.path("store").join(crate::harness::OUTPUT), "valid").unwrap();
    let mut hook = world.hook(&[]);
    assert_eq!(hook.ask(&world.question("x86_64-darwin")).last().unwrap(), "# decline");
    assert_eq!(hook.end().status, Some(0));
}

#[test]
fn postpones_while_the_daemon_is_full_and_is_asked_again() {
    let world = World::new();
    world.derivation(r#""","""#, "/bin/sh");
    let daemon = world.daemon(2, |_, mut connection| {
        connection.send(&FromDaemon::Full("2 builds run and 64 wait already".into()));
        assert_eq!(connection.receive(), None);
    });
    let mut hook = world.hook(&[]);
    let question = world.question("x86_64-darwin");
    insta::assert_snapshot!(hook.ask(&question).join("\n"), @r#"
    @nix {"action":"msg","level":4,"msg":"darling-builder takes no more builds for now: 2 builds run and 64 wait already"}
    # postpone
    "#);
    assert_eq!(hook.ask(&question), ["# postpone"]);
    assert_eq!(hook.end().status, Some(0));
    daemon.join().unwrap();
}

#[test]
fn a_dead_daemon_is_one_message_and_a_decline_for_each_derivation() {
    let world = World::new();
    world.derivation(r#""","""#, "/bin/sh");
    let mut hook = world.hook(&[]);
    let question = world.question("x86_64-darwin");
    let first = hook.ask(&question);
    assert_eq!(first.len(), 2);
    assert!(first[0].starts_with(
        r#"@nix {"action":"msg","level":0,"msg":"error: failed to reach the darling-builder daemon"#
    ));
    assert_eq!(first[1], "# decline");
    assert_eq!(hook.ask(&question), ["# decline"]);
    assert_eq!(hook.end().status, Some(0));
}

#[test]
fn a_refusal_by_the_daemon_is_told() {
    let world = World::new();
    world.derivation(r#""","""#, "/bin/sh");
    let daemon = world.daemon(1, |_, mut connection| {
        connection.send(&FromDaemon::Refused("uid 1000 is not in group nixbld".into()));
    });
    let lines = world.hook(&[]).ask(&world.question("x86_64-darwin"));
    assert!(lines[0].contains("error: the daemon refused: uid 1000 is not in group nixbld"), "{lines:?}");
    assert_eq!(lines[1], "# decline");
    daemon.join().unwrap();
}

#[test]
fn accepts_and_fails_what_can_never_be_built() {
    let world = World::new();
    world.derivation(r#""r:sha256","""#, "/bin/sh");
    let mut hook = world.hook(&[]);
    assert_eq!(hook.ask(&world.question("x86_64-darwin")), ["# accept", "darling-builder"]);
    hook.order(&order(&[], &["out"]));
    let end = hook.end();
    assert_eq!(end.status, Some(1));
    let messages = end.messages.join("\n").replace(&world.path("store").display().to_string(), "/nix/store");
    insta::assert_snapshot!(messages, @r#"@nix {"action":"msg","level":0,"msg":"error: cannot build '/nix/store/00000000000000000000000000000000-t.drv' here: output 'out' is content-addressed without a fixed hash, which is not supported"}"#);
}

#[test]
fn a_broken_configuration_is_told_and_nothing_is_ours() {
    let world = World::new();
    world.derivation(r#""","""#, "/bin/sh");
    std::fs::write(world.path("config.toml"), "colour = 1\n").unwrap();
    let mut hook = world.hook(&[]);
    let lines = hook.ask(&world.question("x86_64-darwin"));
    assert!(lines[0].contains("unknown field `colour`"), "{lines:?}");
    assert_eq!(lines[1], "# decline");
    assert_eq!(hook.ask(&world.question("x86_64-linux")), ["# decline"]);
}

#[test]
fn malformed_messages_end_the_hook_with_one_line() {
    let world = World::new();
    let question = world.question("x86_64-darwin").encode();
    let settings = settings_block(&[]);
    for (bytes, complaint) in [
        (
            [1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0].to_vec(),
            "name of a setting of 4294967295 bytes exceeds",
        ),
        (settings[..settings.len() - 4].to_vec(), "input ended in the middle of settings"),
        ([&settings[..], &question[..40]].concat(), "input ended in the middle of a question's system"),
        ([&settings[..], &[0xff; 24]].concat(), "exceeds the limit"),
    ] {
        let mut hook = world.silent_hook();
        hook.send(&bytes);
        let end = hook.end();
        assert_eq!(end.status, Some(1));
        assert_eq!(end.messages.len(), 1, "{end:?}");
        assert!(end.messages[0].starts_with("darling-builder: failed to read"), "{end:?}");
        assert!(end.messages[0].contains(complaint), "{end:?}");
    }
}

#[test]
fn no_questions_at_all_is_no_error() {
    let end = World::new().silent_hook().end();
    assert_eq!((end.status, end.messages), (Some(0), vec![]));
}

#[test]
fn by_hand_it_says_that_nix_starts_it() {
    let output = World::new().command().stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    insta::assert_snapshot!(text, @"darling-builder: file descriptor 4 is not open: a build hook is started by Nix, through its `build-hook` setting, and not by hand");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_lix_with_another_protocol_gets_one_clear_line() {
    let world = World::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut child = std::process::Command::new("sh")
        .args(["-c", r#"exec "$0" build-hook 3 4>/dev/null"#, env!("CARGO_BIN_EXE_host-agent")])
        .env("DARLING_BUILDER_CONFIG", world.path("config.toml"))
        .stdin(Stdio::null())
        .stdout(OwnedFd::from(theirs))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = (&ours).flush();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut text).unwrap();
    assert!(text.contains("this Lix speaks another build hook protocol"), "{text}");
    assert_eq!(text.lines().count(), 1);
}
