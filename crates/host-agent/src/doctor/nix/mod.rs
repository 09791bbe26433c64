//! Nix on this machine: its versions, whose daemon runs, and whether it is told to ask us.

mod advisories;
mod hook;
mod settings;
mod version;

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Finding, program};
use crate::config::Config;
use crate::nix::running_daemon::{self, NixDaemon};
use settings::{Environment, Settings};
use version::Version;

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let daemon = running_daemon::find().into_iter().next();
    let found = installed(daemon.as_ref());
    let mut findings = vec![versions(&found)];
    let Some(nix) = found.first() else { return findings };
    findings.push(advisories::finding(&nix.version));
    let environment = match &daemon {
        // Its environment decides, not ours, and only root may read it.
        Some(daemon) => match daemon.environment() {
            Ok(environ) => Environment::of_process(&environ),
            Err(_) => {
                findings.push(Finding::untried("nix-configuration"));
                return findings;
            }
        },
        None => Environment::own(),
    };
    let settings = Settings::load(&environment);
    let who = match &daemon {
        Some(daemon) => format!("nix-daemon, process {}", daemon.pid),
        None => "no nix-daemon runs: what Nix reads as this user".into(),
    };
    findings.push(configuration(&settings, &who));
    findings.extend(hook::findings(config, &nix.version, &settings, daemon.is_some()));
    findings
}

/// One Nix.
struct Nix {
    program: PathBuf,
    version: Version,
}

/// The daemon's own Nix first, then those in the usual places.
fn installed(daemon: Option<&NixDaemon>) -> Vec<Nix> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(
        ["/run/current-system/sw/bin", "/nix/var/nix/profiles/default/bin", "/usr/local/bin", "/usr/bin"]
            .map(PathBuf::from),
    );
    let mut found: Vec<Nix> = Vec::new();
    let candidates = daemon.map(NixDaemon::executable).into_iter();
    for program in candidates.chain(places.map(|place| place.join("nix-store"))) {
        let Ok(program) = program.canonicalize() else { continue };
        if found.iter().any(|nix| nix.program == program) {
            continue;
        }
        if let Some(version) = ask(&program) {
            found.push(Nix { program, version });
        }
    }
    found
}

fn ask(program: &Path) -> Option<Version> {
    let mut command = Command::new(program);
    // Its configuration may be what is broken.
    command.arg("--version").env_remove("NIX_CONFIG");
    Version::parse(&program::output(command)?)
}

fn versions(found: &[Nix]) -> Finding {
    const NAME: &str = "nix";
    let Some(first) = found.first() else {
        return Finding::broken(
            NAME,
            "no nix-store on PATH, in a profile or in /usr/bin",
            "install Nix (https://nixos.org/download), 2.3 or later",
        );
    };
    let told = found.iter().map(|nix| format!("{} ({})", nix.version.describe(), nix.program.display()));
    let detail = told.collect::<Vec<_>>().join("\n");
    if first.version.has_hook() {
        Finding::fine(NAME, detail)
    } else {
        Finding::broken(NAME, detail, "use Nix 2.3 or later, or Lix before 2.94")
    }
}

fn configuration(settings: &Settings, who: &str) -> Finding {
    const NAME: &str = "nix-configuration";
    if settings.problems.is_empty() {
        Finding::fine(NAME, who)
    } else {
        Finding::warning(
            NAME,
            format!("{who}: {}", settings.problems.join("; ")),
            "mend the file; Nix may refuse to start with it",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_nix_it_says_so() {
        assert_eq!(versions(&[]).severity, super::super::Severity::Broken);
    }
}
