//! The Debian package.
//!
//! It brings files and starts nothing: which guest is wanted, and whether Nix is to use it, is for `host-agent install` to
//! say. Its scripts only keep promises about what that has set up: an upgrade lets running builds finish, and removing the package
//! uninstalls first, or Nix would go on asking a program that is gone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Release, glibc, packing, run_command, staging};

const NAME: &str = "darling-builder";

const AFTER_INSTALLING: &str = r#"#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    if systemctl --quiet is-active darling-builder.service; then
        # Running builds finish, then the new daemon starts.
        systemctl reload darling-builder.service || true
    elif [ -z "$2" ]; then
        echo "darling-builder: nothing is started yet; \`host-agent install\` sets it up, \`--dry-run\` shows what it would do"
    fi
fi
"#;

const BEFORE_REMOVING: &str = r#"#!/bin/sh
set -e
if [ "$1" = remove ] && [ -e /var/lib/darling-builder/installed.json ]; then
    # Refuses while builds run.
    host-agent uninstall
fi
"#;

const AFTER_REMOVING: &str = r#"#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
"#;

/// Makes it; `None` without dpkg-deb.
pub fn make(release: &Release) -> Result<Option<PathBuf>> {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        return Ok(None);
    }
    let staged = release.out.join("debian");
    staging::fill(release, &staged, Path::new("/usr"))?;
    let documents = staged.join("usr/share/doc").join(NAME);
    staging::documents(release, &documents)?;
    fs::write(documents.join("copyright"), copyright())?;
    for page in fs::read_dir(staged.join("usr/share/man/man1"))? {
        // As Debian has them.
        run_command(Command::new("gzip").args(["--no-name", "--best"]).arg(page?.path()))?;
    }
    fs::rename(staged.join("usr/share/zsh/site-functions"), staged.join("usr/share/zsh/vendor-completions"))?;
    // Where Debian 12 looks: its /lib is a link, and packages still name it.
    fs::create_dir(staged.join("lib"))?;
    fs::rename(staged.join("usr/lib/systemd"), staged.join("lib/systemd"))?;
    fs::remove_dir(staged.join("usr/lib"))?;

    let control = staged.join("DEBIAN");
    fs::create_dir(&control)?;
    fs::write(control.join("control"), description(release, &staged)?)?;
    for (name, script) in
        [("postinst", AFTER_INSTALLING), ("prerm", BEFORE_REMOVING), ("postrm", AFTER_REMOVING)]
    {
        fs::write(control.join(name), script)?;
        fs::set_permissions(control.join(name), fs::Permissions::from_mode(0o755))?;
    }
    let package = release.out.join(format!("{NAME}_{}_amd64.deb", release.version));
    packing(&package);
    run_command(
        Command::new("dpkg-deb")
            .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
            .args(["--root-owner-group", "-Zxz", "--build"])
            .arg(&staged)
            .arg(&package),
    )?;
    fs::remove_dir_all(&staged)?;
    Ok(Some(package))
}

fn description(release: &Release, staged: &Path) -> Result<String> {
    let program = fs::read(staged.join("usr/bin/host-agent"))?;
    let agent = fs::read(staged.join("usr/libexec/darling-builder/darwin-agent"))?;
    let (major, minor) =
        glibc::newest(&program).max(glibc::newest(&agent)).context("host-agent names no version of glibc")?;
    let size = kibibytes(staged)?;
    Ok(format!(
        "Package: {NAME}\n\
         Version: {}\n\
         Architecture: amd64\n\
         Maintainer: the darling-builder authors <darling-builder@localhost>\n\
         Installed-Size: {size}\n\
         Depends: libc6 (>= {major}.{minor}), libgcc-s1\n\
         Recommends: nix-bin, systemd\n\
         Section: devel\n\
         Priority: optional\n\
         Description: builds x86_64-darwin derivations for Nix, through Darling\n \
         Nix hands such derivations to this builder, which runs them inside Darling,\n \
         each in a place of its own that shows it its inputs and nothing else.\n \
         .\n \
         Installing the package starts nothing: see host-agent-install(1).\n",
        release.version
    ))
}

fn kibibytes(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.metadata()?;
        sum += if kind.is_dir() { 1 + kibibytes(&entry.path())? } else { kind.len().div_ceil(1024) };
    }
    Ok(sum)
}

fn copyright() -> &'static str {
    "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
     \n\
     Files: *\n\
     Copyright: 2026 the darling-builder authors\n\
     License: MIT or Apache-2.0\n \
     The texts are LICENSE-MIT and LICENSE-APACHE beside this file.\n"
}
