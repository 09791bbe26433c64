//! Nix on this machine: its versions, whose daemon runs, and whether it is told to ask us.

mod hook;
mod settings;
mod version;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Finding, program};
use crate::config::Config;
use settings::{Environment, Settings};
use version::Version;

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let daemon = running_daemon();
    let found = installed(daemon.as_ref());
    let mut findings = vec![versions(&found)];
    let Some(nix) = found.first() else { return findings };
    let environment = match &daemon {
        // Its environment decides, not ours, and only root may read it.
        Some(daemon) => match fs::read(format!("/proc/{}/environ", daemon.pid)) {
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

/// A nix-daemon that runs.
struct NixDaemon {
    pid: u32,
    program: Option<PathBuf>,
}

/// By its command line, since `nix-daemon` is a link to `nix`. Of several the one with the lowest pid: the others are its
/// workers.
fn running_daemon() -> Option<NixDaemon> {
    let processes = fs::read_dir("/proc").ok()?;
    let mut daemons: Vec<NixDaemon> = processes
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            (is_daemon(&command) && is_of_this_system(&entry.path()))
                .then(|| NixDaemon { pid, program: fs::read_link(entry.path().join("exe")).ok() })
        })
        .collect();
    daemons.sort_by_key(|daemon| daemon.pid);
    daemons.into_iter().next()
}

/// Whether a process sees the processes and the root that we see, and is not in some container. Others' processes are not
/// shown to everybody; then it is taken for one of ours.
fn is_of_this_system(process: &Path) -> bool {
    let namespace = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
    let root =
        |process: &Path| fs::metadata(process.join("root/.")).ok().map(|root| (root.dev(), root.ino()));
    let own = Path::new("/proc/self");
    namespace(process).is_none_or(|theirs| Some(theirs) == namespace(own))
        && root(process).is_none_or(|theirs| Some(theirs) == root(own))
}

fn is_daemon(command: &[u8]) -> bool {
    let mut words = command.split(|byte| *byte == 0);
    let program = words.next().and_then(|path| path.rsplit(|byte| *byte == b'/').next());
    match program {
        Some(b"nix-daemon") => true,
        Some(b"nix") => words.next() == Some(b"daemon"),
        _ => false,
    }
}

/// The daemon's own Nix first, then those in the usual places.
fn installed(daemon: Option<&NixDaemon>) -> Vec<Nix> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(
        ["/run/current-system/sw/bin", "/nix/var/nix/profiles/default/bin", "/usr/local/bin", "/usr/bin"]
            .map(PathBuf::from),
    );
    let mut found: Vec<Nix> = Vec::new();
    let candidates = daemon.and_then(|daemon| daemon.program.clone()).into_iter();
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
    fn daemons_are_known_by_their_command_lines() {
        for line in
            [&b"nix-daemon\0"[..], b"/nix/store/x-nix/bin/nix-daemon\0--daemon\0", b"/usr/bin/nix\0daemon\0"]
        {
            assert!(is_daemon(line));
        }
        for line in [&b""[..], b"nix\0build\0", b"vim\0nix-daemon\0", b"/usr/bin/nix-daemon-watch\0"] {
            assert!(!is_daemon(line));
        }
    }

    #[test]
    fn without_nix_it_says_so() {
        assert_eq!(versions(&[]).severity, super::super::Severity::Broken);
    }
}
