//! Nix's own remote-build hook behind ours; here a script that is found as `nix`.

use crate::harness::{World, order};

#[test]
fn questions_that_are_not_ours_are_passed_on_and_its_build_is_relayed() {
    let world = World::new();
    world.program(
        "nix",
        "echo '@nix {\"action\":\"msg\",\"level\":4,\"msg\":\"looking\"}' >&2\nprintf '# accept\\nssh://remote\\n' >&2\n\
         cat > $0.stdin\necho 'its log' >&4\necho '@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"done\"}' >&2\n\
         sleep 0.2\nexit 7\n",
    );
    let mut hook = world.hook(&[("builders", "ssh://remote x86_64-linux")]);
    let question = world.question("x86_64-linux");
    let lines = hook.ask(&question);
    assert_eq!(
        &lines[lines.len() - 3..],
        [r#"@nix {"action":"msg","level":4,"msg":"looking"}"#, "# accept", "ssh://remote"]
    );
    let order = order(&[], &["out"]);
    hook.order(&order);
    let end = hook.end();
    assert_eq!(end.status, Some(7));
    assert_eq!(end.messages, [r#"@nix {"action":"msg","level":0,"msg":"done"}"#]);
    assert_eq!(end.log, b"its log\n");
    let told = std::fs::read(world.path("bin/nix.stdin")).unwrap();
    let expected = [
        crate::harness::settings_block(&[("builders", "ssh://remote x86_64-linux")]),
        question.encode(),
        b"\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0out\0\0\0\0\0".to_vec(),
    ];
    assert_eq!(told, expected.concat());
}

#[test]
fn declining_for_ever_is_its_own_affair() {
    let world = World::new();
    world.program("nix", "echo '# decline-permanently' >&2\n");
    let mut hook = world.hook(&[("builders", "ssh://remote x86_64-linux")]);
    for _ in 0..3 {
        let lines = hook.ask(&world.question("x86_64-linux"));
        assert_eq!(lines.last().unwrap(), "# decline");
        assert!(!lines.iter().any(|line| line.contains("has failed")), "{lines:?}");
    }
    assert_eq!(hook.end().status, Some(0));
}

#[test]
fn one_that_dies_is_told_and_declines() {
    let world = World::new();
    world.program("nix", "exit 1\n");
    let mut hook = world.hook(&[("builders", "ssh://remote x86_64-linux")]);
    let lines = hook.ask(&world.question("x86_64-linux"));
    assert!(lines.iter().any(|line| line.contains("Nix's own remote build hook has failed")), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "# decline");
    assert_eq!(hook.ask(&world.question("x86_64-linux")), ["# decline"]);
}

#[test]
fn with_the_daemon_dead_our_own_systems_are_passed_on_too() {
    let world = World::new();
    world.derivation(r#""","""#, "/bin/sh");
    world.program("nix", "while :; do echo '# postpone' >&2; sleep 60; done\n");
    let mut hook = world.hook(&[("builders", "ssh://mac x86_64-darwin")]);
    let lines = hook.ask(&world.question("x86_64-darwin"));
    assert!(lines[0].contains("failed to reach the darling-builder daemon"), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "# postpone");
    let group = nix::unistd::Pid::from_raw(hook.child.id() as i32);
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).unwrap();
    hook.end();
}
