//! From acceptance to registration, or to the reason why not.

use std::time::Duration;

use host_agent::control::message::FromDaemon;
use host_agent::request::{
    BuildOutcome, BuildPhase, BuildReport, BuildRequest, PhaseTimings, PreparedOutput,
};
use host_agent::store_path::StoreName;
use protocol::message::{Exit, Usage};

use crate::harness::{Connection, DERIVATION, End, OUTPUT, World, order};

fn report(outcome: BuildOutcome, kept: Option<&str>) -> FromDaemon {
    FromDaemon::Finished(BuildReport {
        outcome,
        usage: Usage::default(),
        log_bytes: 0,
        timings: PhaseTimings::default(),
        kept: kept.map(Into::into),
    })
}

fn output(world: &World) -> PreparedOutput {
    PreparedOutput {
        name: "out".into(),
        path: StoreName::parse(OUTPUT.as_bytes()).unwrap(),
        staged: world.stage("made").as_path().into(),
        nar_sha256: [0xab; 32],
        nar_size: 120,
        references: vec![StoreName::parse(OUTPUT.as_bytes()).unwrap()],
        digest: None,
        depth: 0,
    }
}

/// Plays a build to which the daemon answers with these messages.
fn play(world: &World, answers: Vec<FromDaemon>) -> (BuildRequest, End) {
    let daemon = world.daemon(1, move |_, mut connection: Connection| {
        let request = connection.accept();
        answers.iter().for_each(|answer| connection.send(answer));
        // The connection is held until everything is registered.
        assert_eq!(connection.receive(), None);
        request
    });
    let mut hook = world.hook(&[("timeout", "60"), ("keep-failed", "true")]);
    let reply = hook.ask(&world.question("x86_64-darwin"));
    assert_eq!(&reply[reply.len() - 2..], ["# accept", "darling-builder"]);
    hook.order(&order(&[], &["out"]));
    let end = hook.end();
    (daemon.join().unwrap().remove(0), end)
}

fn fails(world: &World, outcome: BuildOutcome, kept: Option<&str>) -> String {
    let (_, end) = play(world, vec![report(outcome, kept)]);
    std::fs::remove_file(world.path("s")).unwrap();
    assert!(!world.path("bin/nix-store.stdin").exists() || world.read("bin/nix-store.stdin").is_empty());
    let messages = end.messages.join("\n").replace(&world.path("store").display().to_string(), "/nix/store");
    format!("{:?} {messages}", end.status)
}

#[test]
fn builds_moves_and_registers() {
    let world = World::new();
    world.derivation(r#""","""#, "/bin/sh");
    let built = report(BuildOutcome::Built(vec![output(&world)]), None);
    let answers = vec![
        FromDaemon::Phase(BuildPhase::Preparing(0)),
        FromDaemon::Output("half a li".into()),
        FromDaemon::Note("a note".into()),
        FromDaemon::Output(b"raw \xff\r\n".into()),
        built,
    ];
    let (request, end) = play(&world, answers);
    assert_eq!(end.status, Some(0), "{end:?}");
    assert_eq!(end.messages, [""; 0]);
    assert_eq!(end.log, b"half a li\na note\nraw \xff\r\n");
    assert_eq!(request.derivation.as_str(), DERIVATION);
    assert_eq!(request.limits.wall, Some(Duration::from_secs(60)));
    assert!(request.keep_failed && request.outputs[0].wanted);
    assert_eq!(std::fs::read_to_string(world.path("store").join(OUTPUT)).unwrap(), "made");
    assert_eq!(world.read("bin/nix-store.args"), "--store local --register-validity --hash-given\n");
    let input =
        world.read("bin/nix-store.stdin").replace(&world.path("store").display().to_string(), "/nix/store");
    insta::assert_snapshot!(input, @r"
    /nix/store/11111111111111111111111111111111-t
    abababababababababababababababababababababababababababababababab
    120
    /nix/store/00000000000000000000000000000000-t.drv
    1
    /nix/store/11111111111111111111111111111111-t
    ");
}

#[test]
fn everything_printed_just_before_the_end_arrives() {
    let world = World::new();
    world.derivation(r#""","""#, "/bin/sh");
    let built = report(BuildOutcome::Built(vec![output(&world)]), None);
    let (_, end) = play(&world, vec![FromDaemon::Output(vec![b'x'; 60_000].into()), built]);
    assert_eq!((end.status, end.log.len()), (Some(0), 60_000));
}

#[test]
fn a_build_that_waits_shows_it_as_a_phase() {
    let world = World::new();
    world.derivation(r#""","""#, "/bin/sh");
    let built = report(BuildOutcome::Built(vec![output(&world)]), None);
    let answers = vec![
        FromDaemon::Phase(BuildPhase::Queued(2)),
        FromDaemon::Phase(BuildPhase::Preparing(0)),
        FromDaemon::Phase(BuildPhase::Building),
        built,
    ];
    let (_, end) = play(&world, answers);
    insta::assert_snapshot!(String::from_utf8(end.log).unwrap(), @r#"
    @nix {"action":"setPhase","phase":"waiting for a slot (2 ahead)"}
    @nix {"action":"setPhase","phase":"building"}
    "#);
}

#[test]
fn every_failure_has_its_status_and_its_reason() {
    let world = World::new();
    world.derivation(r#""","""#, "/bin/sh");
    let exit = |exit| BuildOutcome::BuilderFailed(exit);
    insta::assert_snapshot!(fails(&world, exit(Exit::Code(3)), Some("/var/kept/0")), @r#"
    Some(100) @nix {"action":"msg","level":0,"msg":"error: builder for '/nix/store/00000000000000000000000000000000-t.drv' failed with exit code 3"}
    @nix {"action":"msg","level":0,"msg":"note: keeping build directory '/var/kept/0'"}
    "#);
    insta::assert_snapshot!(fails(&world, exit(Exit::TimedOut), None), @r#"Some(101) @nix {"action":"msg","level":0,"msg":"error: building of '/nix/store/00000000000000000000000000000000-t.drv' timed out after 60 seconds"}"#);
    insta::assert_snapshot!(fails(&world, BuildOutcome::Infrastructure("no slot".into()), None), @r#"Some(1) @nix {"action":"msg","level":0,"msg":"error: failed to build '/nix/store/00000000000000000000000000000000-t.drv': no slot"}"#);
    assert!(!world.path("store").join(OUTPUT).exists());
}

#[test]
fn a_wrong_hash_fails_and_leaves_nothing_in_the_store() {
    let world = World::new();
    world.fixed_derivation(&"cd".repeat(32));
    let output = PreparedOutput { digest: Some(vec![0xab; 32].into()), references: vec![], ..output(&world) };
    let told = fails(&world, BuildOutcome::Built(vec![output]), None);
    insta::assert_snapshot!(told, @r#"Some(100) @nix {"action":"msg","level":0,"msg":"error: hash mismatch in fixed-output derivation '/nix/store/00000000000000000000000000000000-t.drv':\n         specified: sha256-zc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc0=\n            got:    sha256-q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s="}"#);
    assert!(!world.path("store").join(OUTPUT).exists());
}

#[test]
fn what_is_at_the_output_s_place_is_never_replaced() {
    let world = World::new();
    world.derivation(r#""","""#, "/bin/sh");
    let place = world.path("store").join(OUTPUT);
    let output = output(&world);
    let daemon = world.daemon(1, move |_, mut connection: Connection| {
        connection.accept();
        std::fs::write(&place, "someone else's").unwrap();
        connection.send(&report(BuildOutcome::Built(vec![output.clone()]), None));
        connection.receive()
    });
    let mut hook = world.hook(&[]);
    hook.ask(&world.question("x86_64-darwin"));
    hook.order(&order(&[], &["out"]));
    let end = hook.end();
    daemon.join().unwrap();
    assert_eq!(end.status, Some(1));
    assert!(end.messages[0].contains("has appeared while it was built"), "{end:?}");
    assert_eq!(std::fs::read_to_string(world.path("store").join(OUTPUT)).unwrap(), "someone else's");
}

#[test]
fn a_refused_registration_is_told_in_nix_s_words() {
    let world = World::new();
    world.derivation(r#""","""#, "/bin/sh");
    world.program("nix-store", "cat > /dev/null; echo 'error: path is not valid' >&2; exit 1\n");
    let built = report(BuildOutcome::Built(vec![output(&world)]), None);
    let (_, end) = play(&world, vec![built]);
    assert_eq!(end.status, Some(1));
    insta::assert_snapshot!(end.messages.join("\n"), @r#"@nix {"action":"msg","level":0,"msg":"error: `nix-store --register-validity` failed (exit status: 1): error: path is not valid"}"#);
}

#[test]
fn a_daemon_that_goes_away_fails_the_build() {
    let world = World::new();
    world.derivation(r#""","""#, "/bin/sh");
    let daemon = world.daemon(1, |_, mut connection| drop(connection.accept()));
    let mut hook = world.hook(&[]);
    hook.ask(&world.question("x86_64-darwin"));
    hook.order(&order(&[], &["out"]));
    let end = hook.end();
    daemon.join().unwrap();
    assert_eq!(end.status, Some(1));
    assert!(end.messages[0].contains("the daemon closed the connection"), "{end:?}");
}

#[test]
fn a_killed_hook_is_a_closed_connection_and_takes_its_registration_along() {
    let world = World::new();
    world.derivation(r#""","""#, "/bin/sh");
    let daemon = world.daemon(1, |_, mut connection| {
        connection.accept();
        connection.receive()
    });
    let mut hook = world.hook(&[]);
    hook.ask(&world.question("x86_64-darwin"));
    hook.order(&order(&[], &["out"]));
    std::thread::sleep(Duration::from_millis(50));
    // Its session leader is the hook, so this is Nix's way.
    let group = nix::unistd::Pid::from_raw(hook.child.id() as i32);
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(daemon.join().unwrap(), [None]);
    assert_eq!(hook.end().status, None);
}
