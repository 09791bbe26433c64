//! From `build.json` to the request that the daemon understands, or to the reason why it is not built.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use protocol::ByteString;
use thiserror::Error;

use super::build_json::BuildJson;
use super::fixed_output::FixedOutput;
use crate::config::Config;
use crate::nix::attributes::{AttributeError, Attributes};
use crate::nix::build_request::base_name;
use crate::request::{
    BUILD_DIR, BuildDirectory, BuildLimits, BuildRequest, Network, OutputRequest, Publishing,
};
use crate::store_path::{StoreName, StoreNameError};

/// Structured attributes as Nix leaves them in the build directory.
const ATTRIBUTES_FILE: &str = ".attrs.json";

/// The variable that names them, and its value.
const ATTRIBUTES_VARIABLE: (&str, &str) = ("NIX_ATTRS_JSON_FILE", "/build/.attrs.json");

/// Largest file of structured attributes that is read, bytes.
const ATTRIBUTES_MAX: u64 = 64 << 20;

/// Why a build is refused.
#[derive(Debug, Error)]
pub enum Refusal {
    /// Nix does not offer such a system unless it is told to.
    #[error("system '{system}' is not one of this builder's ({ours}); see `systems` in its configuration")]
    System {
        /// The derivation's.
        system: String,
        /// The configured ones.
        ours: String,
    },
    /// A builder inside Nix.
    #[error("only Nix itself can run '{0}'")]
    Builtin(String),
    /// The store is not where its paths say.
    #[error(
        "the store '{store}' has its files in '{real}', and this builder is for '{ours}'; see `store-directory` in its \
         configuration"
    )]
    Store {
        /// As in paths.
        store: String,
        /// Where it is.
        real: String,
        /// Where it should be.
        ours: String,
    },
    /// Not a directory that Nix has made.
    #[error("the build directory '{0}' is not directly inside the directory that Nix has made for the build")]
    BuildDirectory(String),
    /// Another place for the build directory.
    #[error("Nix wants the build directory to be seen at '{0}', and this builder shows it at {BUILD_DIR}")]
    SeenAt(String),
    /// Features that are not there.
    #[error(
        "it requires system features that this builder does not have: {missing} (it has: {offered}; see \
         `supported-features` in its configuration)"
    )]
    Features {
        /// Those.
        missing: String,
        /// What there is.
        offered: String,
    },
    /// Features that it should require.
    #[error("this builder only builds what requires the system features {0} (`mandatory-features`)")]
    Mandatory(String),
    /// An attribute is of the wrong type.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    /// The structured attributes can't be read.
    #[error("failed to read {path}: {error}")]
    Attributes {
        /// Their file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// An output outside the store, or of an impossible name.
    #[error("output '{name}' can't be made: {error}")]
    Output {
        /// Its name.
        name: String,
        /// Why.
        error: StoreNameError,
    },
    /// Two outputs of one path, or one that is an input.
    #[error("output '{name}' can't be made: '{path}' is an input, or another output")]
    Taken {
        /// Its name.
        name: String,
        /// Its path.
        path: String,
    },
    /// Nothing to build.
    #[error("it has no outputs")]
    NoOutputs,
    /// An input outside the store.
    #[error("an input can't be shown: {0}")]
    Input(StoreNameError),
}

/// The request, and what there is to say of the network, if anything.
pub fn build_request(json: &BuildJson, config: &Config) -> Result<(BuildRequest, Option<String>), Refusal> {
    check_surroundings(json, config)?;
    let tmp_dir = resolved(json)?;
    let attributes = attributes(json, &tmp_dir)?;
    check_features(&attributes, config)?;
    let store = &config.store_directory;
    let (inputs, outputs) = paths(json, store)?;
    let fixed = FixedOutput::of(&attributes, &outputs, store);
    let note = match &fixed {
        FixedOutput::Unproven(reason) => {
            Some(format!("without network, though an outputHash is given: {reason}"))
        }
        FixedOutput::No | FixedOutput::Proven => None,
    };
    // The derivation's own path is not told. That of its first output says more than nothing.
    let derivation =
        outputs.get("out").or_else(|| outputs.values().next()).ok_or(Refusal::NoOutputs)?.clone();
    let bytes = |text: &String| ByteString::from(text.as_bytes());
    let request = BuildRequest {
        derivation,
        program: bytes(&json.builder),
        argv: [ByteString::from(base_name(json.builder.as_bytes()))]
            .into_iter()
            .chain(json.args.iter().map(bytes))
            .collect(),
        env: json.env.iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
        build_directory: BuildDirectory::Given { path: tmp_dir.as_path().into() },
        files: Vec::new(),
        inputs,
        outputs: outputs
            .into_iter()
            .map(|(name, path)| OutputRequest { name, path, wanted: true, digest: None })
            .collect(),
        network: if fixed == FixedOutput::Proven { Network::Outside } else { Network::Loopback },
        // Time, silence and the log's size are for Nix to limit.
        limits: BuildLimits::default(),
        keep_failed: false,
        publishing: Publishing::HandOver,
    };
    Ok((request, note))
}

fn check_surroundings(json: &BuildJson, config: &Config) -> Result<(), Refusal> {
    if !config.systems.contains(&json.system) {
        return Err(Refusal::System { system: json.system.clone(), ours: config.systems.join(", ") });
    }
    if json.builder.starts_with("builtin:") {
        return Err(Refusal::Builtin(json.builder.clone()));
    }
    let ours = &config.store_directory;
    if &json.store_dir != ours || &json.real_store_dir != ours {
        return Err(Refusal::Store {
            store: json.store_dir.display().to_string(),
            real: json.real_store_dir.display().to_string(),
            ours: ours.display().to_string(),
        });
    }
    if json.tmp_dir_in_sandbox != BUILD_DIR {
        return Err(Refusal::SeenAt(json.tmp_dir_in_sandbox.clone()));
    }
    Ok(())
}

/// The build directory's path without the links on the way to Nix's `build-dir`, which an administrator may have made.
/// From there on it is Nix's own, and the daemon refuses links.
fn resolved(json: &BuildJson) -> Result<PathBuf, Refusal> {
    let refused = || Refusal::BuildDirectory(json.tmp_dir.display().to_string());
    let top = &json.top_tmp_dir;
    if json.tmp_dir.parent() != Some(top) {
        return Err(refused());
    }
    let (Some(build_dir), Some(top_name), Some(name)) =
        (top.parent(), top.file_name(), json.tmp_dir.file_name())
    else {
        return Err(refused());
    };
    let build_dir = std::fs::canonicalize(build_dir).map_err(|_| refused())?;
    Ok(build_dir.join(top_name).join(name))
}

/// Structured attributes are in a file, the others are in the environment.
fn attributes(json: &BuildJson, tmp_dir: &Path) -> Result<Attributes, Refusal> {
    let path = tmp_dir.join(ATTRIBUTES_FILE);
    let (variable, value) = ATTRIBUTES_VARIABLE;
    if json.env.get(variable).is_none_or(|named| named != value) {
        let environment =
            json.env.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes()));
        return Ok(Attributes::Environment(environment.collect()));
    }
    let mut bytes = Vec::new();
    let read = std::fs::File::open(&path)
        .and_then(|file| file.take(ATTRIBUTES_MAX + 1).read_to_end(&mut bytes))
        .and_then(|_| match bytes.len() as u64 > ATTRIBUTES_MAX {
            true => Err(io::Error::other(format!("it is larger than {ATTRIBUTES_MAX} bytes"))),
            false => Ok(()),
        })
        .and_then(|()| serde_json::from_slice(&bytes).map_err(io::Error::other));
    match read {
        Ok(object) => Ok(Attributes::Structured(object)),
        Err(error) => Err(Refusal::Attributes { path, error }),
    }
}

fn check_features(attributes: &Attributes, config: &Config) -> Result<(), Refusal> {
    let required = attributes.strings("requiredSystemFeatures")?.unwrap_or_default();
    let required: Vec<String> =
        required.iter().map(|feature| String::from_utf8_lossy(feature).into_owned()).collect();
    let offered = |feature: &String| {
        config.supported_features.contains(feature) || config.mandatory_features.contains(feature)
    };
    let missing: Vec<&str> =
        required.iter().filter(|feature| !offered(feature)).map(String::as_str).collect();
    if !missing.is_empty() {
        let offered = config.supported_features.join(", ");
        return Err(Refusal::Features { missing: missing.join(", "), offered });
    }
    let unmet: Vec<&str> = config
        .mandatory_features
        .iter()
        .filter(|feature| !required.contains(feature))
        .map(String::as_str)
        .collect();
    if unmet.is_empty() { Ok(()) } else { Err(Refusal::Mandatory(unmet.join(", "))) }
}

/// Inputs, and outputs by name.
fn paths(json: &BuildJson, store: &Path) -> Result<(Vec<StoreName>, BTreeMap<String, StoreName>), Refusal> {
    let inputs: Vec<StoreName> = json
        .input_paths
        .iter()
        .map(|path| StoreName::from_path(store, path.as_bytes()).map_err(Refusal::Input))
        .collect::<Result<_, _>>()?;
    let mut taken: std::collections::BTreeSet<&StoreName> = inputs.iter().collect();
    let mut outputs = BTreeMap::new();
    for (name, path) in &json.outputs {
        let path = StoreName::from_path(store, path.as_bytes())
            .map_err(|error| Refusal::Output { name: name.clone(), error })?;
        outputs.insert(name.clone(), path);
    }
    for (name, path) in &outputs {
        if !taken.insert(path) {
            return Err(Refusal::Taken { name: name.clone(), path: path.to_string() });
        }
    }
    drop(taken);
    Ok((inputs, outputs))
}
