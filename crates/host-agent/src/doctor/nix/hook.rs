//! Whether Nix is told to ask us: `build-hook`, and `external-builders` beside it.

use std::path::Path;

use super::settings::{Origin, Settings, Value};
use super::version::Version;
use crate::cli::HOOK_NAME;
use crate::config::Config;
use crate::doctor::{Finding, Severity};

const HOOK: &str = "nix-build-hook";
const EXTERNAL: &str = "nix-external-builders";

pub(super) fn findings(config: &Config, nix: &Version, settings: &Settings, daemon: bool) -> Vec<Finding> {
    let hook = build_hook(nix, settings, daemon);
    let external = settings.get("external-builders", |_| true);
    let both = hook.ours && external.as_ref().is_some_and(|value| value.text.contains("host-agent"));
    let external = external.map(|value| external_builders(config, nix, settings, &value));
    let instead = external.as_ref().is_some_and(|finding| finding.severity == Severity::Fine);
    let mut findings = match settings.get("build-hook", |_| true) {
        None if instead => vec![Finding::fine(HOOK, "not set; external builders are")],
        _ => vec![hook.finding],
    };
    findings.extend(external);
    if both {
        findings.push(Finding::warning(
            "nix-front-ends",
            "both the build hook and an external builder are ours: Nix asks the hook first",
            "set one of them: `external-builders` where Nix can (2.32 or later), else `build-hook`",
        ));
    }
    findings
}

struct Hook {
    finding: Finding,
    /// Whether it counts, and is this program.
    ours: bool,
}

fn build_hook(nix: &Version, settings: &Settings, daemon: bool) -> Hook {
    let other = |finding| Hook { finding, ours: false };
    let ignored = |origin: &Origin| matches!(origin, Origin::System(_)) && nix.ignores_hook_in_nix_conf();
    match settings.get("build-hook", |origin| !ignored(origin)) {
        Some(value) if is_ours(&value.text) => match problem(&value.text) {
            None => Hook {
                finding: Finding::fine(HOOK, format!("{} (from {})", value.text, value.origin)),
                ours: true,
            },
            Some(problem) => other(Finding::broken(
                HOOK,
                format!("{} (from {}): {problem}", value.text, value.origin),
                setting(nix, daemon),
            )),
        },
        // Nix's own, which asks the machines in `builders`.
        Some(value) if !value.text.is_empty() => other(Finding::warning(
            HOOK,
            format!("{} (from {}) is asked, and not this program", value.text, value.origin),
            setting(nix, daemon),
        )),
        _ => other(not_set(nix, settings, daemon)),
    }
}

fn not_set(nix: &Version, settings: &Settings, daemon: bool) -> Finding {
    match settings.get("build-hook", |_| true) {
        Some(Value { text, origin }) if is_ours(&text) => Finding::broken(
            HOOK,
            format!(
                "{text} (from {origin}) has no effect: Nix 2.25 to 2.33 ignore `build-hook` there, and this is {}",
                nix.text
            ),
            setting(nix, daemon),
        ),
        _ => Finding::warning(
            HOOK,
            "Nix is not told to ask this builder; `host-agent build` works without that",
            setting(nix, daemon),
        ),
    }
}

fn is_ours(value: &str) -> bool {
    let Some(program) = value.split_whitespace().next() else { return false };
    let own = std::env::current_exe().and_then(|path| path.canonicalize());
    let same = Path::new(program).canonicalize().ok().is_some_and(|path| own.is_ok_and(|own| own == path));
    let name = Path::new(program).file_name().unwrap_or_default();
    same || name == HOOK_NAME || name == "host-agent"
}

/// What would keep Nix from starting it.
fn problem(value: &str) -> Option<String> {
    let mut words = value.split_whitespace();
    let program = Path::new(words.next().unwrap_or_default());
    if !program.is_absolute() {
        return Some("it must be an absolute path".into());
    }
    if let Err(error) = program.metadata() {
        return Some(error.to_string());
    }
    match (words.next(), program.file_name().is_some_and(|name| name == HOOK_NAME)) {
        (None, true) | (Some("build-hook"), false) => None,
        (None, false) => Some(format!("it needs a name that says what it is: link it as {HOOK_NAME}")),
        (Some(_), _) => Some("arguments are not understood by every Nix".into()),
    }
}

/// How this Nix is told.
fn setting(nix: &Version, daemon: bool) -> String {
    let place = match (nix.ignores_hook_in_nix_conf(), daemon) {
        (true, true) => "for this Nix in NIX_CONFIG of nix-daemon, since it ignores `build-hook` in nix.conf",
        (true, false) => "for this Nix not in nix.conf, where it ignores `build-hook`",
        (false, _) => "for this Nix in nix.conf",
    };
    let restart = if daemon { "; then restart nix-daemon" } else { "" };
    format!("host-agent nix-conf --apply ({place}{restart})")
}

fn external_builders(config: &Config, nix: &Version, settings: &Settings, value: &Value) -> Finding {
    if !nix.has_external_builders() {
        return Finding::warning(
            EXTERNAL,
            format!("set in {}, and {} does not know it", value.origin, nix.text),
            "remove the setting, or use Nix 2.32 or later",
        );
    }
    let entries = match builders(&value.text) {
        Ok(entries) => entries,
        Err(error) => {
            return Finding::broken(
                EXTERNAL,
                format!("not understood ({}): {error}; no command of Nix works with it", value.origin),
                "each entry needs `systems`, `program` and `args`, as JSON on one line",
            );
        }
    };
    let ours =
        entries.iter().find(|entry| entry.systems.iter().any(|system| config.systems.contains(system)));
    let Some(ours) = ours else {
        return Finding::warning(
            EXTERNAL,
            format!("set in {}, for other systems than {}", value.origin, config.systems.join(", ")),
            "add an entry for this builder to it, or use the build hook",
        );
    };
    if !settings.words("experimental-features").iter().any(|feature| feature == "external-builders") {
        return Finding::broken(
            EXTERNAL,
            format!(
                "{} (from {}), but its feature is off, so every such build fails",
                ours.program, value.origin
            ),
            "extra-experimental-features = external-builders",
        );
    }
    if !Path::new(&ours.program).is_absolute() || Path::new(&ours.program).metadata().is_err() {
        return Finding::broken(
            EXTERNAL,
            format!("{} (from {}) is not an absolute path of a file", ours.program, value.origin),
            "name the program by its absolute path",
        );
    }
    Finding::fine(
        EXTERNAL,
        format!("{} (from {}), for {}", ours.program, value.origin, ours.systems.join(", ")),
    )
}

/// One entry; Nix refuses an entry that lacks any of these.
#[derive(Debug, serde::Deserialize)]
struct Builder {
    systems: Vec<String>,
    program: String,
    #[serde(rename = "args")]
    _args: Vec<String>,
}

fn builders(text: &str) -> Result<Vec<Builder>, serde_json::Error> {
    serde_json::from_str(text)
}

#[cfg(test)]
mod tests {
    use super::super::settings::Environment;
    use super::*;
    use std::fmt::Write;

    /// A hook that is there, and what is found with each Nix and place for the setting.
    fn told(nix: &str, conf: &str, nix_config: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let hook = directory.path().join(HOOK_NAME);
        std::os::unix::fs::symlink("/proc/self/exe", &hook).unwrap();
        let text = |text: &str| text.replace("HOOK", hook.to_str().unwrap());
        std::fs::write(directory.path().join("nix.conf"), text(conf)).unwrap();
        let place = directory.path().display();
        let environ = format!(
            "NIX_CONF_DIR={place}\0HOME={place}\0XDG_CONFIG_DIRS={place}\0NIX_CONFIG={}\0",
            text(nix_config)
        );
        let settings = Settings::load(&Environment::of_process(environ.as_bytes()));
        let version = Version::parse(&format!("nix (Nix) {nix}")).unwrap();
        let mut told = format!("# {nix}; nix.conf: {conf:?}; NIX_CONFIG: {nix_config:?}\n");
        for finding in findings(&Config::default(), &version, &settings, true) {
            let Finding { name, severity, detail, fix } = finding;
            writeln!(told, "{name} {severity:?}: {detail}").unwrap();
            if let Some(fix) = fix {
                writeln!(told, "  → {fix}").unwrap();
            }
        }
        told.replace(place.to_string().as_str(), "DIR")
    }

    #[test]
    fn says_of_each_nix_whether_its_setting_has_effect_and_what_would() {
        const EXTERNAL: &str =
            "external-builders = [{\"systems\":[\"x86_64-darwin\"],\"program\":\"/bin/sh\",\"args\":[]}]\n";
        let feature = "experimental-features = external-builders\n";
        let ours = EXTERNAL.replace("/bin/sh", "/opt/host-agent");
        let cases = [
            told("2.8.0", "", ""),
            told("2.8.0", "build-hook = HOOK", ""),
            told("2.26.3", "build-hook = HOOK", ""),
            told("2.26.3", "", "build-hook = HOOK"),
            told("2.34.8", "build-hook = HOOK", ""),
            told("2.34.8", "build-hook = /usr/bin/nix __build-remote", ""),
            told("2.34.8", "build-hook = HOOK --flag", ""),
            told("2.8.0", EXTERNAL, ""),
            told("2.34.8", EXTERNAL, ""),
            told("2.34.8", &format!("{EXTERNAL}{feature}"), ""),
            told("2.34.8", "external-builders = [{\"systems\":[]}]\n", ""),
            told("2.34.8", &format!("{ours}{feature}build-hook = HOOK\n"), ""),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }
}
