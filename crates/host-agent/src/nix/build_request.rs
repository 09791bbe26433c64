//! From a derivation and Nix's order to the request that the daemon understands.

use std::collections::BTreeSet;
use std::path::Path;

use protocol::ByteString;
use thiserror::Error;

use super::attributes::{AttributeError, Attributes};
use super::derivation::{Derivation, Output};
use super::environment::{Dialect, Environment, ExportedGraphs, Surroundings, own_variable};
use super::placeholder::Placeholders;
use super::question::Order;
use super::references_graph::{self, GraphError, Graphs};
use super::settings::Settings;
use super::store_command::NixProgram;
use crate::request::{BuildDirectory, BuildLimits, BuildRequest, Network, OutputRequest, Publishing};
use crate::store_path::{StoreName, StoreNameError};

/// Why a derivation can't be made into a request. All of these are the derivation's fault, or the store's.
#[derive(Debug, Error)]
pub enum RequestError {
    /// An attribute is of the wrong type.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    /// A references graph can't be exported.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Nix named something that is not a store path.
    #[error("Nix sent an input that is not a store path: {0}")]
    Input(#[from] StoreNameError),
    /// Nix wants an output that the derivation does not have.
    #[error("Nix wants output '{0}', which the derivation does not have")]
    UnknownOutput(String),
    /// An output's path is not known.
    #[error("the path of output '{0}' is not known before it is built")]
    UnknownPath(String),
}

/// The request for `derivation`.
pub fn build_request(
    derivation: &Derivation,
    order: &Order,
    settings: &Settings,
    store: &Path,
    nix: &NixProgram,
) -> Result<BuildRequest, RequestError> {
    let inputs: BTreeSet<StoreName> =
        order.inputs.iter().map(|path| StoreName::from_path(store, path)).collect::<Result<_, _>>()?;
    let graphs = exported_graphs(derivation, &inputs, store, nix)?;
    let environment = Environment::new(
        derivation,
        graphs,
        &Surroundings {
            store,
            settings,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            dialect: dialect(order),
            inherited: own_variable,
        },
    )?;
    let placeholders = Placeholders::new(store, &derivation.outputs);
    let argument = |text: &Vec<u8>| ByteString::from(placeholders.replace(text.as_slice()).into_owned());
    Ok(BuildRequest {
        derivation: derivation.path.clone(),
        program: derivation.builder.clone().into(),
        argv: [ByteString::from(base_name(&derivation.builder))]
            .into_iter()
            .chain(derivation.arguments.iter().map(argument))
            .collect(),
        env: environment.variables(&placeholders),
        build_directory: BuildDirectory::Own,
        files: environment.files(&placeholders),
        inputs: inputs.into_iter().collect(),
        outputs: outputs(derivation, order, store)?,
        network: if derivation.is_fixed() { Network::Outside } else { Network::Loopback },
        limits: BuildLimits {
            wall: settings.timeout,
            silence: settings.max_silent_time,
            log_bytes: settings.max_build_log_size,
            output_bytes: None,
        },
        keep_failed: settings.keep_failed,
        publishing: Publishing::Prepare,
    })
}

/// Nix 2.3 names wanted outputs by their paths, later ones by their names.
fn dialect(order: &Order) -> Dialect {
    if order.wanted.iter().any(|wanted| wanted.starts_with(b"/")) { Dialect::Nix23 } else { Dialect::Current }
}

fn exported_graphs(
    derivation: &Derivation,
    inputs: &BTreeSet<StoreName>,
    store: &Path,
    nix: &NixProgram,
) -> Result<ExportedGraphs, GraphError> {
    let requests = references_graph::requested(&derivation.attributes, store)?;
    if requests.is_empty() {
        return Ok(ExportedGraphs::default());
    }
    let graphs = Graphs::collect(requests, inputs, store, nix)?;
    Ok(match derivation.attributes {
        Attributes::Environment(_) => ExportedGraphs { files: graphs.files(), values: Vec::new() },
        Attributes::Structured(_) => ExportedGraphs { files: Vec::new(), values: graphs.values(nix)? },
    })
}

fn outputs(derivation: &Derivation, order: &Order, store: &Path) -> Result<Vec<OutputRequest>, RequestError> {
    use std::os::unix::ffi::OsStrExt;
    let mut wanted: BTreeSet<&[u8]> = order.wanted.iter().map(Vec::as_slice).collect();
    let mut outputs = Vec::new();
    for (name, output) in &derivation.outputs {
        let path = output.path().ok_or_else(|| RequestError::UnknownPath(name.clone()))?.clone();
        let absolute = path.in_store(store);
        let is_wanted = wanted.remove(name.as_bytes()) | wanted.remove(absolute.as_os_str().as_bytes());
        let digest = match output {
            Output::Fixed { digest, .. } => Some(*digest),
            _ => None,
        };
        outputs.push(OutputRequest { name: name.clone(), path, wanted: is_wanted, digest });
    }
    match wanted.first() {
        Some(name) => Err(RequestError::UnknownOutput(name.escape_ascii().to_string())),
        None => Ok(outputs),
    }
}

/// What a program at `path` is called: its `argv[0]`.
pub(super) fn base_name(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DERIVATION: &str = concat!(
        r#"Derive([("dev","/nix/store/00000000000000000000000000000000-t-dev","",""),"#,
        r#"("out","/nix/store/11111111111111111111111111111111-t","","")],[],[],"x86_64-darwin","/bin/sh","#,
        r#"["-c","echo /1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"],[("name","t")])"#
    );

    fn derivation(text: &str) -> Derivation {
        let name = StoreName::parse(b"22222222222222222222222222222222-t.drv").unwrap();
        Derivation::parse(Path::new("/nix/store"), name, text.as_bytes()).unwrap()
    }

    fn request(text: &str, wanted: &[&str]) -> Result<BuildRequest, String> {
        let order = Order {
            inputs: vec![b"/nix/store/33333333333333333333333333333333-in".to_vec()],
            wanted: wanted.iter().map(|name| name.as_bytes().to_vec()).collect(),
        };
        let settings = Settings::of(&[("timeout", "7"), ("cores", "2"), ("keep-failed", "true")]);
        build_request(&derivation(text), &order, &settings, Path::new("/nix/store"), &NixProgram::of_parent())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn placeholders_are_replaced_and_argv_starts_with_the_base_name() {
        let request = request(DERIVATION, &["out"]).unwrap();
        let argv: Vec<_> = request.argv.iter().map(ToString::to_string).collect();
        assert_eq!(argv, ["sh", "-c", "echo /nix/store/11111111111111111111111111111111-t"]);
        assert_eq!(request.limits.wall, Some(std::time::Duration::from_secs(7)));
        assert!(request.keep_failed);
        assert_eq!(request.network, Network::Loopback);
    }

    #[test]
    fn outputs_that_are_not_wanted_are_named_as_such() {
        let wanted = |names: &[&str]| -> Vec<bool> {
            request(DERIVATION, names).unwrap().outputs.iter().map(|output| output.wanted).collect()
        };
        assert_eq!(wanted(&["out"]), [false, true]);
        assert_eq!(wanted(&["dev", "out"]), [true, true]);
        assert_eq!(wanted(&["/nix/store/00000000000000000000000000000000-t-dev"]), [true, false]);
        insta::assert_snapshot!(request(DERIVATION, &["doc"]).unwrap_err(), @"Nix wants output 'doc', which the derivation does not have");
    }

    #[test]
    fn only_fixed_outputs_see_the_network() {
        let fixed =
            DERIVATION.replace(r#"("dev","/nix/store/00000000000000000000000000000000-t-dev","",""),"#, "");
        let hash = format!(r#"-t","r:sha256","{}")"#, "ab".repeat(32));
        let fixed = fixed.replace(r#"-t","","")"#, &hash);
        let request = request(&fixed, &["out"]).unwrap();
        assert_eq!(request.network, Network::Outside);
        assert!(request.outputs[0].digest.is_some());
        assert!(request.env.iter().any(|(name, _)| &name[..] == b"NIX_OUTPUT_CHECKED"));
    }
}
