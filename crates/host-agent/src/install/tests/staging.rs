//! Installing: what a dry run says, what is there, and what a second time does.

use std::fs;
use std::path::Path;

use super::super::systemd::State;
use super::super::{InstallError, package, show};
use super::Machine;
use crate::config::GuestKind;

#[test]
fn a_dry_run_shows_every_change_and_makes_none() {
    let mut machine = Machine::new();
    machine.systemd = Some(State { enabled: false, active: false, nix_daemon: true });
    let before = machine.listing();
    let plan = machine.plan().unwrap();
    insta::assert_snapshot!(machine.shorten(&show::plan(&plan)));
    assert_eq!(machine.listing(), before);
}

#[test]
fn everything_is_put_in_place_and_recorded() {
    let machine = Machine::new();
    machine.install();
    insta::assert_snapshot!(machine.names());
    insta::assert_snapshot!(
        fs::read_to_string(machine.at("root/var/lib/darling-builder/installed.json")).unwrap()
    );
}

#[test]
fn the_second_time_there_is_nothing_to_do() {
    let mut machine = Machine::new();
    machine.install();
    let after = machine.listing();
    machine.systemd = Some(State { enabled: true, active: true, nix_daemon: true });
    let plan = machine.plan().unwrap();
    assert!(plan.is_empty(), "{}", show::plan(&plan));
    assert_eq!(machine.listing(), after);
}

#[test]
fn a_changed_configuration_is_never_written_again() {
    let machine = Machine::new();
    machine.install();
    machine.put("root/etc/darling-builder/config.toml", "guest = \"linux\"\nmax-jobs = 7\n");
    machine.release("two");
    insta::assert_snapshot!(machine.install(), @"
    change /usr/local/bin/host-agent, a copy of /archive/host-agent
    change /usr/local/libexec/darling-builder/darwin-agent-macho, a copy of /archive/darwin-agent-macho
    change /usr/local/libexec/darling-builder/darwin-agent, a copy of /archive/darwin-agent
    ");
    let config = fs::read_to_string(machine.at("root/etc/darling-builder/config.toml")).unwrap();
    assert_eq!(config, "guest = \"linux\"\nmax-jobs = 7\n");
}

#[test]
fn a_configuration_that_was_there_first_is_the_users_and_says_where_things_are() {
    let machine = Machine::new();
    machine
        .put("root/etc/darling-builder/config.toml", "guest = \"linux\"\nsocket = \"/run/elsewhere.sock\"\n");
    let before = machine.listing();
    machine.install();
    let socket = fs::read_to_string(machine.at("root/etc/systemd/system/darling-builder.socket")).unwrap();
    assert!(socket.contains("ListenStream=/run/elsewhere.sock\n"), "{socket}");
    machine.uninstall();
    assert_eq!(machine.listing(), before);
}

#[test]
fn an_upgrade_replaces_what_has_changed_and_lets_builds_finish() {
    let mut machine = Machine::new();
    machine.install();
    machine.release("two");
    machine.pages.clear();
    machine.systemd = Some(State { enabled: true, active: true, nix_daemon: true });
    insta::assert_snapshot!(machine.shorten(&show::plan(&machine.plan().unwrap())));
}

#[test]
fn programs_that_were_installed_start_the_second_time_from_where_they_are() {
    let machine = Machine::new();
    machine.install();
    let installed = machine.at("root/usr/local");
    fs::remove_dir_all(machine.at("archive")).unwrap();
    fs::create_dir_all(machine.at("archive")).unwrap();
    for (name, from) in [
        ("host-agent", "bin/host-agent"),
        ("darwin-agent", "libexec/darling-builder/darwin-agent"),
        ("darwin-agent-macho", "libexec/darling-builder/darwin-agent-macho"),
    ] {
        std::os::unix::fs::symlink(installed.join(from), machine.at("archive").join(name)).unwrap();
    }
    let plan = machine.plan().unwrap();
    assert!(plan.is_empty(), "{}", show::plan(&plan));
}

#[test]
fn files_of_others_are_not_overwritten() {
    let machine = Machine::new();
    machine.put("root/usr/local/bin/host-agent", "built by hand");
    let before = machine.listing();
    let error = machine.plan().unwrap_err();
    insta::assert_snapshot!(error, @"failed to write /usr/local/bin/host-agent: it is there and was not written by this program; move it away");
    assert_eq!(machine.listing(), before);
}

#[test]
fn a_unit_that_a_package_has_brought_is_used() {
    let machine = Machine::new();
    machine.install();
    let units = ["darling-builder.service", "darling-builder.socket"]
        .map(|name| (name, fs::read(machine.at(&format!("root/etc/systemd/system/{name}"))).unwrap()));
    machine.uninstall();
    for (name, text) in units {
        machine.put(&format!("root/usr/lib/systemd/system/{name}"), std::str::from_utf8(&text).unwrap());
    }
    let plan = machine.plan().unwrap();
    assert!(!show::plan(&plan).contains("systemd"), "{}", show::plan(&plan));
}

#[test]
fn what_can_not_be_is_refused_with_what_to_do() {
    let mut machine = Machine::new();
    machine.put("root/etc/darling-builder/config.toml", "guest = \"linux\"\n");
    machine.guest = Some(GuestKind::Darling);
    insta::assert_snapshot!(machine.plan().unwrap_err(), @"failed to choose the guest: /etc/darling-builder/config.toml is there and says `linux`; change it there");
    machine.guest = None;
    fs::remove_file(machine.at("archive/darwin-agent")).unwrap();
    insta::assert_snapshot!(machine.shorten(&machine.plan().unwrap_err().to_string()), @"failed to find the agent `darwin-agent` beside /archive/host-agent or in ../libexec/darling-builder; install from the archive or the package, which have it");
    machine.release("one");
    machine.prefix = "/opt/100%".into();
    insta::assert_snapshot!(machine.plan().unwrap_err(), @"failed to write /opt/100%/bin/host-agent into a unit of systemd's, which would read it otherwise: use a path of letters, digits and /._+-=,~ only");
    insta::assert_snapshot!(InstallError::NotRoot("install"), @"failed to install: this takes root; `--dry-run` shows what would be done");
    insta::assert_snapshot!(InstallError::NoSystemd, @"failed to install: this machine was not booted with systemd; `--no-start` puts the files in place, and `host-agent daemon` is what has to be kept running");
    insta::assert_snapshot!(InstallError::NixOs, @"failed to install: this is NixOS, which would undo it; set `services.darling-builder.enable = true` in the system's configuration instead");
    insta::assert_snapshot!(InstallError::Busy(2), @"failed to uninstall: builds that run or wait: 2; `--drain` lets them finish first, `--force` ends them with the reason that the daemon stops");
}

#[test]
fn a_package_holds_programs_units_and_pages_and_nothing_of_a_machine() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.root()).unwrap();
    let running = machine.at("archive/host-agent");
    package::write(&machine.root(), Path::new("/usr"), &running, &machine.pages).unwrap();
    insta::assert_snapshot!(machine.names());
}
