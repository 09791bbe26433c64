//! Descriptors that leave a fixed-output build, whose network is not a slot's alone: what they lead to is not what is published.

use std::os::unix::fs::PermissionsExt;

use host_agent::request::{BuildOutcome, Network};

use crate::attack::{Attacker, Outside, ROUNDS, kernel_has_scopes, skipped};
use crate::harness::{Daemon, darling, new_uid_base};

/// With the host's network namespace, so that the way out is there whatever the machine has.
const NETWORK: &str = "warm-slots = 0\nmax-jobs = 1\nfixed-output-network = \"host\"";

const SECRET: &str = "a secret of root's";

fn name(round: usize) -> String {
    format!("hostile-{}-channel-{round}", std::process::id())
}

fn rounds() -> usize {
    if darling() { 3 } else { ROUNDS }
}

#[test]
fn a_fixed_output_build_sends_nothing_to_an_accomplice_who_listens() {
    if skipped() {
        return;
    }
    if !kernel_has_scopes() {
        eprintln!("skipped: Landlock of this kernel knows no scopes (Linux 6.12)");
        return;
    }
    let daemon = Daemon::start(NETWORK);
    let attacker = Attacker::new(&daemon);
    let name = format!("hostile-{}-listens", std::process::id());
    let _accomplice = Outside::start(new_uid_base(), &["channel", "accept", &name], "listens");
    let mut request = attacker.request(&format!("echo honest > $out; $attacker channel send {name} $out"));
    request.network = Network::Outside;
    let told = attacker.build(&request);
    assert!(told.is_built(), "{:?} {}", told.done.report, told.log());
    assert_eq!(told.came_of("send"), "EPERM");
}

#[test]
fn what_an_accomplice_writes_through_a_descriptor_of_the_output_is_not_in_what_is_published() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start(NETWORK);
    let attacker = Attacker::new(&daemon);
    for round in 0..rounds() {
        let name = name(round);
        let mut accomplice = Outside::start(new_uid_base(), &["channel", "fetch", &name], "listens");
        let mut request = attacker.request(&format!(
            "echo honest-and-longer-than-that > $out; $attacker channel offer {name} $out; echo offered"
        ));
        request.network = Network::Outside;
        let told = attacker.build(&request);
        assert_eq!(told.came_of("offer"), "taken", "{}", told.log());
        accomplice.says("holds 1");
        // It wrote before and while the output was copied, and goes on.
        let published = std::fs::read(told.output()).unwrap();
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            assert_eq!(std::fs::read(told.output()).unwrap(), published, "round {round}");
        }
        assert!(accomplice.child.try_wait().unwrap().is_none());
        let BuildOutcome::Built(outputs) = &told.done.report.outcome else { unreachable!() };
        assert_eq!(crate::leftovers::nar_sha256(&told.output()), outputs[0].nar_sha256, "round {round}");
    }
}

#[test]
fn a_file_exchanged_for_a_link_while_it_is_copied_is_followed_nowhere() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start(NETWORK);
    let attacker = Attacker::new(&daemon);
    let secret = daemon.directory.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut exchanged = 0;
    for round in 0..rounds() {
        let name = name(1000 + round);
        let mut accomplice = Outside::start(new_uid_base(), &["channel", "fetch", &name], "listens");
        // The directory is open to the accomplice, who is another user.
        let script = format!(
            "mkdir $out; cd $out; echo own > file; ln -s {} link; for n in 1 2 3 4 5 6 7 8 9; do mkdir d$n; echo $n > d$n/file; done; \
             chmod 777 $out; $attacker channel offer {name} $out",
            secret.display()
        );
        let mut request = attacker.request(&script);
        request.network = Network::Outside;
        let told = attacker.build(&request);
        assert_eq!(told.came_of("offer"), "taken", "{}", told.log());
        accomplice.says("holds 1");
        match &told.done.report.outcome {
            BuildOutcome::Built(outputs) => {
                let published = told.output();
                assert_eq!(crate::leftovers::nar_sha256(&published), outputs[0].nar_sha256, "round {round}");
                for name in ["file", "link"] {
                    let path = published.join(name);
                    let Ok(there) = path.symlink_metadata() else { continue };
                    if there.is_symlink() {
                        exchanged += usize::from(name == "file");
                    } else {
                        assert_eq!(std::fs::read_to_string(&path).unwrap(), "own\n", "round {round}");
                    }
                }
            }
            // It was seen to change.
            BuildOutcome::OutputRejected { .. } => exchanged += 1,
            other => panic!("round {round}: {other:?}"),
        }
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), SECRET, "round {round}");
    }
    assert!(exchanged > 0, "nothing was exchanged in time in {} rounds", rounds());
}
