//! Files after `--apply` and `--remove`: each test has a root directory of its own and shows it whole.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::super::install::{Done, InstallError, Installation};
use super::super::proposal::Proposal;
use super::{below, hook_for, proposal, root};

fn apply(root: &Path, proposal: &Proposal) -> Result<Done, InstallError> {
    Installation::new(root.into(), Path::new("/etc/nix")).apply(proposal)
}

fn remove(root: &Path) -> Done {
    Installation::new(root.into(), Path::new("/etc/nix")).remove().unwrap()
}

/// Everything below a directory: files with contents, directories and links with nothing.
fn everything(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let contents = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            if metadata.is_dir() {
                ahead.push(path.clone());
            }
            found.insert(path, contents);
        }
    }
    found
}

fn show(root: &Path) -> String {
    let mut text = String::new();
    for (path, contents) in everything(root) {
        if path.is_file() {
            let path = path.strip_prefix(root).unwrap().display();
            text.push_str(&format!("──── /{path}\n{}", String::from_utf8_lossy(&contents)));
        }
    }
    text
}

#[test]
fn an_external_builder_goes_into_a_file_that_nix_conf_includes() {
    let root = root(&[("/etc/nix/nix.conf", "max-jobs = 4\n")]);
    let done = apply(root.path(), &proposal("2.34.8")).unwrap();
    insta::assert_debug_snapshot!(done.changes, @r#"
    [
        (
            "/etc/nix/darling-builder.conf",
            Made,
        ),
        (
            "/etc/nix/nix.conf",
            Changed,
        ),
    ]
    "#);
    insta::assert_snapshot!(show(root.path()), @r#"
    ──── /etc/nix/darling-builder.conf
    # Written by `host-agent nix-conf --apply`; `host-agent nix-conf --remove` takes it away again.
    extra-experimental-features = external-builders
    external-builders = [{"systems":["x86_64-darwin"],"program":"/usr/local/bin/host-agent","args":["external-builder"]}]
    ──── /etc/nix/nix.conf
    max-jobs = 4
    # darling-builder begin: `host-agent nix-conf --remove` takes these lines away
    !include darling-builder.conf
    # darling-builder end
    "#);
}

#[test]
fn a_hook_goes_where_2_26_reads_it() {
    let root = root(&[("/etc/nix/nix.conf", "max-jobs = 4\n")]);
    let done = apply(root.path(), &proposal("2.26.3")).unwrap();
    assert!(done.notes.concat().contains("harmless"), "{:?}", done.notes);
    insta::assert_snapshot!(show(root.path()), @"
    ──── /etc/nix/nix.conf
    max-jobs = 4
    ──── /etc/xdg/nix/darling-builder.conf
    # Written by `host-agent nix-conf --apply`; `host-agent nix-conf --remove` takes it away again.
    # made /etc/xdg
    # made /etc/xdg/nix
    # made /etc/xdg/nix/nix.conf
    build-hook = /usr/local/bin/darling-builder-hook
    ──── /etc/xdg/nix/nix.conf
    # darling-builder begin: `host-agent nix-conf --remove` takes these lines away
    !include darling-builder.conf
    # darling-builder end
    ");
}

#[test]
fn a_hook_goes_into_the_daemons_environment_where_systemd_runs_it() {
    let root = root(&[
        ("/usr/lib/systemd/system/nix-daemon.service", "[Service]\nExecStart=nix-daemon\n"),
        ("/run/systemd/system/x", ""),
    ]);
    let before = everything(root.path());
    let done = apply(root.path(), &proposal("2.26.3")).unwrap();
    assert!(done.units_changed);
    insta::assert_snapshot!(show(root.path()), @r#"
    ──── /etc/systemd/system/nix-daemon.service.d/darling-builder.conf
    # Written by `host-agent nix-conf --apply`; `host-agent nix-conf --remove` takes it away again.
    # made /etc
    # made /etc/systemd
    # made /etc/systemd/system
    # made /etc/systemd/system/nix-daemon.service.d
    [Service]
    Environment="NIX_CONFIG=build-hook = /usr/local/bin/darling-builder-hook"
    ──── /run/systemd/system/x
    ──── /usr/lib/systemd/system/nix-daemon.service
    [Service]
    ExecStart=nix-daemon
    "#);
    remove(root.path());
    assert_eq!(everything(root.path()), before);
}

#[test]
fn removing_gives_every_file_back_to_the_byte() {
    let originals: [&[(&str, &str)]; 5] = [
        &[],
        &[("/etc/nix/nix.conf", "")],
        &[("/etc/nix/nix.conf", "max-jobs = 4\n")],
        &[("/etc/nix/nix.conf", "max-jobs = 4"), ("/etc/xdg/nix/nix.conf", "cores = 2\n\n# end")],
        &[("/etc/hosts", ""), ("/etc/xdg/other", "")],
    ];
    for files in originals {
        for proposal in [proposal("2.8.0"), proposal("2.26.3"), proposal("2.34.8"), hook_for("2.34.8")] {
            let root = root(files);
            let before = everything(root.path());
            apply(root.path(), &proposal).unwrap();
            assert_ne!(everything(root.path()), before);
            let done = remove(root.path());
            assert_eq!(everything(root.path()), before, "{files:?} {proposal:?}");
            assert!(!done.changes.is_empty());
            assert!(remove(root.path()).changes.is_empty());
        }
    }
}

#[test]
fn the_second_time_changes_nothing() {
    for original in ["", "max-jobs = 4"] {
        for proposal in [proposal("2.8.0"), proposal("2.26.3"), proposal("2.34.8")] {
            let root = root(&[("/etc/nix/nix.conf", original)]);
            apply(root.path(), &proposal).unwrap();
            let after = everything(root.path());
            let again = apply(root.path(), &proposal).unwrap();
            assert!(again.changes.is_empty(), "{:?}", again.changes);
            assert_eq!(everything(root.path()), after);
        }
    }
}

#[test]
fn another_version_moves_the_settings() {
    let root = root(&[("/etc/nix/nix.conf", "max-jobs = 4\n")]);
    let before = everything(root.path());
    for version in ["2.24.1", "2.26.3", "2.34.8"] {
        apply(root.path(), &proposal(version)).unwrap();
        let text = show(root.path());
        assert_eq!(text.matches("darling-builder begin").count(), 1, "{version}: {text}");
    }
    assert!(!below(root.path(), "/etc/xdg").exists());
    remove(root.path());
    assert_eq!(everything(root.path()), before);
}

#[test]
fn what_the_user_adds_after_ours_stays() {
    let root = root(&[]);
    apply(root.path(), &proposal("2.34.8")).unwrap();
    let conf = below(root.path(), "/etc/nix/nix.conf");
    let mut text = fs::read(&conf).unwrap();
    text.extend_from_slice(b"cores = 3\n");
    fs::write(&conf, text).unwrap();
    remove(root.path());
    assert_eq!(fs::read(&conf).unwrap(), b"cores = 3\n");
    assert_eq!(everything(&below(root.path(), "/etc/nix")).len(), 1);
}

#[test]
fn mode_and_owner_stay() {
    let root = root(&[("/etc/nix/nix.conf", "access-tokens = secret\n")]);
    let conf = below(root.path(), "/etc/nix/nix.conf");
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o640)).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&conf, Some(12), Some(34)).unwrap();
    }
    let of = |metadata: fs::Metadata| (metadata.mode(), metadata.uid(), metadata.gid());
    let before = of(fs::metadata(&conf).unwrap());
    apply(root.path(), &proposal("2.34.8")).unwrap();
    assert_eq!(of(fs::metadata(&conf).unwrap()), before);
    remove(root.path());
    assert_eq!(of(fs::metadata(&conf).unwrap()), before);
}

#[test]
fn a_link_to_a_file_stays_a_link() {
    let root = root(&[("/srv/config/nix.conf", "cores = 1\n"), ("/etc/nix/x", "")]);
    let conf = below(root.path(), "/etc/nix/nix.conf");
    // Absolute: it must not lead out of the root.
    symlink("/srv/config/nix.conf", &conf).unwrap();
    apply(root.path(), &proposal("2.34.8")).unwrap();
    assert!(fs::symlink_metadata(&conf).unwrap().is_symlink());
    let target = below(root.path(), "/srv/config/nix.conf");
    assert!(fs::read_to_string(&target).unwrap().contains("!include"));
    remove(root.path());
    assert_eq!(fs::read(&target).unwrap(), b"cores = 1\n");
}

/// Refused, and nothing is different afterwards.
fn refusal(root: &Path, proposal: &Proposal) -> String {
    let before = everything(root);
    let error = apply(root, proposal).unwrap_err();
    assert_eq!(everything(root), before);
    error.to_string()
}

#[test]
fn never_over_the_users_own_setting() {
    let own = root(&[("/etc/nix/nix.conf", "cores = 1\nexternal-builders = []\n")]);
    insta::assert_snapshot!(refusal(own.path(), &proposal("2.34.8")), @"failed to set `external-builders`: /etc/nix/nix.conf, line 2 sets it to `[]`, and Nix takes one value only; remove that line, or add by hand what `host-agent nix-conf` prints");
    let included = root(&[
        ("/etc/nix/nix.conf", "include more/a.conf\n"),
        ("/etc/nix/more/a.conf", "# mine\nbuild-hook   = /opt/hook  # kept\n"),
    ]);
    insta::assert_snapshot!(refusal(included.path(), &proposal("2.8.0")), @"failed to set `build-hook`: /etc/nix/more/a.conf, line 2 sets it to `/opt/hook`, and Nix takes one value only; remove that line, or add by hand what `host-agent nix-conf` prints");
    let roots = root(&[("/root/.config/nix/nix.conf", "build-hook = /opt/hook\n")]);
    insta::assert_snapshot!(refusal(roots.path(), &proposal("2.26.3")), @"failed to set `build-hook`: /root/.config/nix/nix.conf, line 1 sets it to `/opt/hook`, and Nix takes one value only; remove that line, or add by hand what `host-agent nix-conf` prints");
    let unit = root(&[(
        "/etc/systemd/system/nix-daemon.service.d/mine.conf",
        "[Service]\nEnvironment=\"NIX_CONFIG=build-hook = /opt/hook\"\n",
    )]);
    insta::assert_snapshot!(refusal(unit.path(), &hook_for("2.34.8")), @r#"failed to set `build-hook`: /etc/systemd/system/nix-daemon.service.d/mine.conf, line 2 sets it to `build-hook = /opt/hook"`, and Nix takes one value only; remove that line, or add by hand what `host-agent nix-conf` prints"#);
}

#[test]
fn never_over_the_users_own_environment_of_the_daemon() {
    let root = root(&[
        ("/run/systemd/system/x", ""),
        ("/lib/systemd/system/nix-daemon.service", "[Service]\n"),
        ("/etc/systemd/system/nix-daemon.service.d/mine.conf", "[Service]\nEnvironment=NIX_CONFIG=cores=1\n"),
    ]);
    insta::assert_snapshot!(refusal(root.path(), &proposal("2.26.3")), @"failed to set `NIX_CONFIG` for nix-daemon: /etc/systemd/system/nix-daemon.service.d/mine.conf, line 2 sets it, and systemd keeps one value only; add `build-hook = /usr/local/bin/darling-builder-hook` there by hand");
}

#[test]
fn a_comment_is_no_setting() {
    let root = root(&[("/etc/nix/nix.conf", "# external-builders = []\ncores = 1 # build-hook = x\n")]);
    apply(root.path(), &proposal("2.34.8")).unwrap();
}

#[test]
fn points_to_the_module_on_nixos() {
    let root = root(&[("/nix/store/abc-etc/nix.conf", "cores = 1\n"), ("/etc/nix/x", "")]);
    symlink("/nix/store/abc-etc", below(root.path(), "/etc/static")).unwrap();
    symlink("/etc/static/nix.conf", below(root.path(), "/etc/nix/nix.conf")).unwrap();
    insta::assert_snapshot!(refusal(root.path(), &proposal("2.34.8")), @"failed to change /etc/nix/nix.conf: it is a link into the store and can't be written; set `services.darling-builder.enable = true` in the system's configuration instead, whose module makes these settings");
    fs::write(below(root.path(), "/etc/NIXOS"), "").unwrap();
    insta::assert_snapshot!(refusal(root.path(), &proposal("2.26.3")), @"failed to change /etc/xdg/nix/nix.conf: this is NixOS, which would undo it; set `services.darling-builder.enable = true` in the system's configuration instead, whose module makes these settings");
}

#[test]
fn a_file_of_the_same_name_is_not_taken_for_ours() {
    let root = root(&[("/etc/nix/darling-builder.conf", "cores = 1\n")]);
    let text = refusal(root.path(), &proposal("2.34.8"));
    assert!(text.contains("/etc/nix/darling-builder.conf: it is there"), "{text}");
}

#[test]
fn says_what_would_be_in_the_way() {
    let root = root(&[
        ("/etc/nix/nix.conf", "build-hook = /opt/hook\nmax-jobs = 2\nmax-jobs = 0\n"),
        ("/root/.config/nix/nix.conf", "experimental-features = nix-command flakes\n"),
    ]);
    insta::assert_snapshot!(apply(root.path(), &proposal("2.34.8")).unwrap().notes.join("\n"), @"
    /etc/nix/nix.conf, line 3 sets max-jobs to 0: Nix starts an external builder only where it may build itself
    /etc/nix/nix.conf, line 1 sets a build hook: Nix asks it first, and the external builder if it declines
    /root/.config/nix/nix.conf, line 1 sets experimental-features and is read later: where Nix runs without daemon, it takes external-builders away; say extra-experimental-features there
    ");
}

#[test]
fn includes_that_go_round_in_circles_end() {
    let root =
        root(&[("/etc/nix/nix.conf", "include a\n"), ("/etc/nix/a", "include nix.conf\n!include b\n")]);
    apply(root.path(), &proposal("2.34.8")).unwrap();
    symlink("/etc/nix/loop", below(root.path(), "/etc/nix/loop")).unwrap();
    fs::write(below(root.path(), "/etc/nix/a"), "include loop\n").unwrap();
    assert!(apply(root.path(), &proposal("2.34.8")).is_err());
}
