//! Uninstalling.

use std::fs;

use super::super::systemd::State;
use super::super::{record, show};
use super::Machine;

#[test]
fn uninstalling_leaves_every_byte_as_it_was() {
    let machine = Machine::new();
    let before = machine.listing();
    machine.install();
    // As a daemon leaves it.
    drop(crate::slot::directory::StateDirectory::open(&machine.at("root/nix/var/darling-builder")).unwrap());
    machine.put("root/nix/var/darling-builder/kept/failed-0/log", "kept");
    insta::assert_snapshot!(machine.uninstall());
    let mut after = machine.listing();
    // Nix's own, which the daemon found there.
    after.retain(|path, _| !path.starts_with(machine.at("root/nix")));
    assert_eq!(after, before);
    assert!(!machine.at("root/nix/var/darling-builder").exists());
}

#[test]
fn a_root_that_was_not_there_is_empty_afterwards() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.root()).unwrap();
    machine.install();
    assert!(machine.plan().unwrap().is_empty());
    machine.uninstall();
    let left = machine.listing();
    assert!(left.keys().all(|path| *path == machine.root()), "{left:?}");
}

#[test]
fn after_an_upgrade_as_well() {
    let mut machine = Machine::new();
    let before = machine.listing();
    machine.install();
    machine.release("two");
    machine.pages.clear();
    machine.prefix = "/opt/elsewhere".into();
    machine.install();
    machine.uninstall();
    assert_eq!(machine.listing(), before);
}

#[test]
fn after_an_installation_that_broke_off_as_well() {
    let machine = Machine::new();
    let before = machine.listing();
    // In the way of what is written late.
    fs::create_dir_all(machine.at("root/etc")).unwrap();
    let mut plan = machine.plan().unwrap();
    plan.steps.truncate(3);
    machine.carry_out(&plan);
    machine.release("two");
    let mut plan = machine.plan().unwrap();
    // What is recorded before the first step.
    let intent = plan.before.union(plan.after.as_ref().unwrap());
    plan.after = Some(intent);
    plan.steps.truncate(1);
    machine.carry_out(&plan);
    machine.uninstall();
    assert_eq!(machine.listing(), before);
}

#[test]
fn what_was_changed_since_stays_and_is_named() {
    let machine = Machine::new();
    machine.install();
    machine.put("root/etc/darling-builder/config.toml", "guest = \"linux\"\nmax-jobs = 7\n");
    machine.put("root/etc/nix/nix.conf", &{
        let text = fs::read_to_string(machine.at("root/etc/nix/nix.conf")).unwrap();
        format!("max-jobs = 3\n{text}")
    });
    let told = machine.uninstall();
    let notes: Vec<_> = told.lines().filter(|line| !line.starts_with("remove ")).collect();
    insta::assert_snapshot!(notes.join("\n"), @"
    change /etc/nix/nix.conf
    leave /etc/darling-builder, in which there is something else
    note: /etc/darling-builder/config.toml was changed since it was installed, and stays
    ");
    assert!(machine.at("root/etc/darling-builder/config.toml").exists());
    let nix_conf = fs::read_to_string(machine.at("root/etc/nix/nix.conf")).unwrap();
    assert_eq!(nix_conf, "max-jobs = 3\nbuild-users-group = nixbld");
}

#[test]
fn the_daemon_is_stopped_after_nix_has_forgotten_it_and_before_its_files_go() {
    let mut machine = Machine::new();
    machine.install();
    machine.systemd = Some(State { enabled: true, active: true, nix_daemon: true });
    insta::assert_snapshot!(machine.shorten(&show::plan(&machine.removal().unwrap())));
}

#[test]
fn where_nothing_is_installed_there_is_nothing_to_do() {
    let machine = Machine::new();
    assert!(machine.removal().is_none());
    machine.install();
    machine.uninstall();
    assert!(machine.removal().is_none());
}

#[test]
fn a_record_that_names_what_it_can_not_is_refused() {
    for text in [
        "{}",
        "{\"version\": 2, \"files\": {}, \"directories\": []}",
        "{\"version\": 1, \"files\": {\"/etc/../usr\": []}, \"directories\": []}",
        "{\"version\": 1, \"files\": {}, \"directories\": [\"/\"]}",
    ] {
        assert!(record::Record::parse(text.as_bytes()).is_err(), "{text}");
    }
}
