//! Nothing of a build outlives it, and what is published is what was left when everything was dead.

use std::path::Path;
use std::time::Duration;

use host_agent::request::BuildOutcome;
use sha2::{Digest, Sha256};

use crate::attack::{Attacker, ROUNDS, Told, skipped};
use crate::harness::{Daemon, darling};

const KINDS: &str = "plain ignoring quiet stopped traced waiting hopping";

/// As Nix would hash it.
pub fn nar_sha256(path: &Path) -> [u8; 32] {
    let mut hash = Sha256::new();
    std::io::copy(&mut nix_nar::Encoder::new(path).unwrap(), &mut hash).unwrap();
    hash.finalize().into()
}

/// The output is what its hash says, and stays it.
fn is_final(told: &Told) {
    let BuildOutcome::Built(outputs) = &told.done.report.outcome else {
        panic!("{:?} {}", told.done.report, told.log())
    };
    for _ in 0..5 {
        assert_eq!(nar_sha256(outputs[0].staged.as_path()), outputs[0].nar_sha256);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_a_builder_leaves_behind_is_dead_before_its_output_is_looked_at() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 1\nmax-jobs = 1");
    let attacker = Attacker::new(&daemon);
    for _ in 0..if darling() { 3 } else { ROUNDS } {
        let told = attacker.run(&format!("id -u; $attacker leftovers $out {KINDS}"));
        for kind in KINDS.split(' ') {
            assert_eq!(told.came_of(&format!("leave-{kind}")), "left", "{}", told.log());
        }
        let uid = told.log().lines().next().unwrap().parse().unwrap();
        assert!(crate::uids::holders(uid).is_empty());
        is_final(&told);
    }
}

#[test]
fn what_hides_in_a_pid_namespace_of_its_own_is_dead_as_well() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 1\nmax-jobs = 1\nallow-user-namespaces = true");
    let attacker = Attacker::new(&daemon);
    for _ in 0..if darling() { 3 } else { ROUNDS } {
        let told = attacker.run("id -u; $attacker leftovers $out nested");
        assert_eq!(told.came_of("leave-nested"), "left", "{}", told.log());
        let uid = told.log().lines().next().unwrap().parse().unwrap();
        assert!(crate::uids::holders(uid).is_empty());
        is_final(&told);
    }
    // And where it may not be made, it is not.
    let daemon = Daemon::start("warm-slots = 0");
    let told = Attacker::new(&daemon).run("$attacker leftovers $out nested");
    assert_eq!(told.came_of("leave-nested"), "gone", "{}", told.log());
}
