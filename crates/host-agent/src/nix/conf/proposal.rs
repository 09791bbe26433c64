//! The settings for one Nix.

use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use super::version::{HookSetting, NixVersion};

/// The word after `host-agent` in the external builder's arguments.
const EXTERNAL_BUILDER: &str = "external-builder";

/// A way in which Nix hands builds over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrontEnd {
    /// The setting `external-builders`.
    ExternalBuilder,
    /// The setting `build-hook`.
    BuildHook,
}

impl FrontEnd {
    /// The setting that chooses it.
    pub fn setting(self) -> &'static str {
        match self {
            FrontEnd::ExternalBuilder => "external-builders",
            FrontEnd::BuildHook => "build-hook",
        }
    }
}

/// What the settings are to say.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The way in, or `None` for the best that the version has.
    pub front_end: Option<FrontEnd>,
    /// `host-agent`, as Nix is to start it.
    pub program: PathBuf,
    /// The same program under the hook's name: Nix before 2.10 can give a hook no arguments.
    pub hook: PathBuf,
    /// A configuration file that is not the default one. A hook can't be told of it.
    pub config: Option<PathBuf>,
    /// Systems to build for.
    pub systems: Vec<String>,
}

/// Settings for one Nix.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The Nix.
    pub version: NixVersion,
    /// The way in.
    pub front_end: FrontEnd,
    /// Lines of Nix configuration.
    pub lines: Vec<String>,
    /// Whether `nix.conf` is where they take effect.
    pub in_nix_conf: bool,
}

/// Why there are no settings.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ProposalError {
    /// Neither way in exists.
    #[error(
        "{0} has neither external builders nor a build hook that this program can serve; Nix 2.3 or later has"
    )]
    NoWay(NixVersion),
    /// The way asked for does not exist.
    #[error(
        "{0} has no external builders: they came with Nix 2.32; leave out --front-end, or say build-hook"
    )]
    NoExternalBuilders(NixVersion),
    /// The path would not survive the way through a configuration file.
    #[error(
        "failed to write the path '{0}' into a configuration file: Nix splits settings at blanks and knows no quotes, \
         so it must be absolute and of letters, digits and /._+-=@,~ only; install the program elsewhere"
    )]
    Path(PathBuf),
    /// The same for a system.
    #[error(
        "failed to write the system '{0}' into a configuration file: it must be of letters, digits, - and _"
    )]
    System(String),
}

/// One entry of `external-builders`. Nix requires all three keys.
#[derive(Debug, Serialize)]
struct ExternalBuilder<'a> {
    systems: &'a [String],
    program: &'a str,
    args: Vec<&'a str>,
}

impl Proposal {
    /// The settings for this version of Nix.
    pub fn new(version: NixVersion, wanted: &Wanted) -> Result<Self, ProposalError> {
        let hook = version.hook_setting();
        let front_end = match wanted.front_end {
            Some(FrontEnd::ExternalBuilder) if !version.has_external_builders() => {
                return Err(ProposalError::NoExternalBuilders(version));
            }
            Some(FrontEnd::BuildHook) if hook == HookSetting::Nowhere => {
                return Err(ProposalError::NoWay(version));
            }
            Some(front_end) => front_end,
            None if version.has_external_builders() => FrontEnd::ExternalBuilder,
            None if hook != HookSetting::Nowhere => FrontEnd::BuildHook,
            None => return Err(ProposalError::NoWay(version)),
        };
        let (lines, in_nix_conf) = match front_end {
            FrontEnd::ExternalBuilder => (external_builder(wanted)?, true),
            FrontEnd::BuildHook => {
                (vec![format!("build-hook = {}", plain(&wanted.hook)?)], hook == HookSetting::NixConf)
            }
        };
        Ok(Self { version, front_end, lines, in_nix_conf })
    }
}

fn external_builder(wanted: &Wanted) -> Result<Vec<String>, ProposalError> {
    for system in &wanted.systems {
        if system.is_empty() || !system.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
            return Err(ProposalError::System(system.clone()));
        }
    }
    let mut args = Vec::new();
    if let Some(config) = &wanted.config {
        args.extend(["--config", plain(config)?]);
    }
    args.push(EXTERNAL_BUILDER);
    let entry = ExternalBuilder { systems: &wanted.systems, program: plain(&wanted.program)?, args };
    // Strings and lists of strings: it can't fail.
    let json = serde_json::to_string(&[entry]).unwrap_or_default();
    Ok(vec!["extra-experimental-features = external-builders".into(), format!("external-builders = {json}")])
}

/// A path that means the same in nix.conf, in JSON and in a unit of systemd's.
fn plain(path: &Path) -> Result<&str, ProposalError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+-=@,~".contains(&byte);
    path.to_str()
        .filter(|text| path.is_absolute() && text.bytes().all(fits))
        .ok_or_else(|| ProposalError::Path(path.into()))
}
