//! `exportReferencesGraph`: closures of inputs, written down for the builder.
//!
//! Plain attributes name a file and a path in turn; the file has the format of `nix-store --register-validity` without
//! hashes. Structured attributes have an object from key to paths; each key becomes a list of path descriptions in
//! `.attrs.json`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::attributes::{Attributes, words};
use super::closure::{self, Closure};
use super::derivation::{Derivation, DerivationError};
use super::store_command::{NixProgram, StoreCommandError};
use super::text_encoding::nix_base32;
use crate::store_path::{StoreName, StoreNameError};

const ATTRIBUTE: &str = "exportReferencesGraph";

/// First Nix whose path descriptions have `valid`.
const VALID_SINCE: (u32, u32) = (2, 15);

/// One graph to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphRequest {
    /// File name, or key in `.attrs.json`.
    pub name: String,
    /// Where the graph starts.
    pub roots: BTreeSet<StoreName>,
}

/// Why there is no graph.
#[derive(Debug, Error)]
pub enum GraphError {
    /// Names and paths do not come in pairs.
    #[error("odd number of tokens in 'exportReferencesGraph': '{0}'")]
    Odd(String),
    /// A name can't be a file's.
    #[error("invalid file name '{0}' in 'exportReferencesGraph'")]
    FileName(String),
    /// Something is not a path in the store.
    #[error("'exportReferencesGraph' contains a non-store path: {0}")]
    Path(#[from] StoreNameError),
    /// A value is neither a string nor nested lists of strings.
    #[error("'exportReferencesGraph' value is not an array or a string")]
    Value,
    /// A path is not an input.
    #[error(
        "cannot export references of path '{0}' because it is not in the input closure of the derivation"
    )]
    NotAnInput(String),
    /// A derivation in the closure can't be read.
    #[error(transparent)]
    Derivation(#[from] DerivationError),
    /// A derivation in the closure has outputs whose paths are unknown.
    #[error("cannot export references of derivation '{0}': the paths of its outputs are not known")]
    UnknownOutputs(String),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreCommandError),
}

/// The graphs that a derivation asks for.
pub fn requested(attributes: &Attributes, store: &Path) -> Result<Vec<GraphRequest>, GraphError> {
    match attributes {
        Attributes::Environment(environment) => {
            let list = environment.get(ATTRIBUTE.as_bytes()).map(Vec::as_slice).unwrap_or_default();
            let tokens: Vec<&[u8]> = words(list).collect();
            if !tokens.len().is_multiple_of(2) {
                return Err(GraphError::Odd(list.escape_ascii().to_string()));
            }
            tokens
                .chunks_exact(2)
                .map(|pair| {
                    Ok(GraphRequest { name: file_name(pair[0])?, roots: [root(store, pair[1])?].into() })
                })
                .collect()
        }
        Attributes::Structured(object) => match object.get(ATTRIBUTE) {
            Some(Value::Object(graphs)) => graphs
                .iter()
                .map(|(name, paths)| {
                    let mut roots = BTreeSet::new();
                    flatten(store, paths, &mut roots)?;
                    Ok(GraphRequest { name: name.clone(), roots })
                })
                .collect(),
            _ => Ok(Vec::new()),
        },
    }
}

/// `[A-Za-z_][A-Za-z0-9_.-]*`, as Nix demands.
fn file_name(name: &[u8]) -> Result<String, GraphError> {
    let well_formed = name.iter().enumerate().all(|(index, byte)| {
        *byte == b'_'
            || byte.is_ascii_alphabetic()
            || (index > 0 && (byte.is_ascii_digit() || b".-".contains(byte)))
    });
    let shown = || name.escape_ascii().to_string();
    if well_formed { Ok(shown()) } else { Err(GraphError::FileName(shown())) }
}

/// The store object that a path, perhaps of something inside it, belongs to.
fn root(store: &Path, path: &[u8]) -> Result<StoreName, StoreNameError> {
    use std::os::unix::ffi::OsStrExt;
    let prefix = store.as_os_str().len() + 1;
    let inside = path.starts_with(store.as_os_str().as_bytes()) && path.len() > prefix;
    let end = if inside { path[prefix..].iter().position(|byte| *byte == b'/') } else { None };
    StoreName::from_path(store, end.map_or(path, |end| &path[..prefix + end]))
}

fn flatten(store: &Path, value: &Value, roots: &mut BTreeSet<StoreName>) -> Result<(), GraphError> {
    match value {
        Value::String(path) => {
            roots.insert(root(store, path.as_bytes())?);
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(|item| flatten(store, item, roots)),
        _ => Err(GraphError::Value),
    }
}

/// What the store knows about everything in the requested graphs.
#[derive(Debug)]
pub struct Graphs<'a> {
    store: &'a Path,
    closure: Closure,
    /// Each graph's name and paths.
    graphs: Vec<(String, BTreeSet<StoreName>)>,
}

impl<'a> Graphs<'a> {
    /// Asks the store. `inputs` is the closure of the derivation's inputs.
    pub fn collect(
        requests: Vec<GraphRequest>,
        inputs: &BTreeSet<StoreName>,
        store: &'a Path,
        nix: &NixProgram,
    ) -> Result<Self, GraphError> {
        for root in requests.iter().flat_map(|request| &request.roots) {
            if !inputs.contains(root) {
                return Err(GraphError::NotAnInput(root.in_store(store).display().to_string()));
            }
        }
        let mut closure = Closure::query(nix, store, inputs)?;
        let mut graphs = Vec::new();
        for GraphRequest { name, roots } in requests {
            let mut paths = closure.reach(roots);
            let outputs = outputs_of_derivations(&paths, store)?;
            let unknown: BTreeSet<_> =
                outputs.iter().filter(|path| !closure.0.contains_key(path)).cloned().collect();
            closure.0.extend(Closure::query_requisites(nix, store, &unknown)?.0);
            paths.extend(closure.reach(outputs));
            graphs.push((name, paths));
        }
        Ok(Self { store, closure, graphs })
    }

    /// File names and contents, for plain attributes.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        self.graphs.iter().map(|(name, paths)| (name.clone(), self.registration(paths))).collect()
    }

    /// Keys and values to add to structured attributes.
    pub fn values(&self, nix: &NixProgram) -> Result<Vec<(String, Value)>, GraphError> {
        let with_valid = nix.version()? >= VALID_SINCE;
        let all = self.graphs.iter().flat_map(|(_, paths)| paths).cloned().collect();
        let addresses = closure::content_addresses(nix, self.store, &all)?;
        let describe = |path: &StoreName| {
            let mut description = self.description(path, with_valid);
            if let Some(address) = addresses.get(path) {
                description.insert("ca".into(), Value::from(address.as_str()));
            }
            Value::Object(description)
        };
        Ok(self
            .graphs
            .iter()
            .map(|(name, paths)| (name.clone(), paths.iter().map(describe).collect()))
            .collect())
    }

    fn registration(&self, paths: &BTreeSet<StoreName>) -> Vec<u8> {
        let mut text = String::new();
        for path in paths {
            let references = self.references(path);
            text.push_str(&format!("{}\n\n{}\n", self.absolute(path), references.len()));
            for reference in references {
                text.push_str(&reference);
                text.push('\n');
            }
        }
        text.into_bytes()
    }

    fn description(&self, path: &StoreName, with_valid: bool) -> Map<String, Value> {
        let info = self.closure.0.get(path);
        let hash = info.map(|info| nix_base32(&info.nar_sha256)).unwrap_or_default();
        let mut description = Map::new();
        description.insert("closureSize".into(), self.closure.size(path).into());
        description.insert("narHash".into(), format!("sha256:{hash}").into());
        description.insert("narSize".into(), info.map(|info| info.nar_size).into());
        description.insert("path".into(), self.absolute(path).into());
        description.insert("references".into(), json!(self.references(path)));
        if with_valid {
            description.insert("valid".into(), true.into());
        }
        description
    }

    fn references(&self, path: &StoreName) -> Vec<String> {
        let info = self.closure.0.get(path);
        info.map(|info| info.references.iter().map(|path| self.absolute(path)).collect()).unwrap_or_default()
    }

    fn absolute(&self, path: &StoreName) -> String {
        path.in_store(self.store).display().to_string()
    }
}

/// The outputs of all derivations among `paths`: whoever exports a derivation's graph wants what it builds as well.
fn outputs_of_derivations(
    paths: &BTreeSet<StoreName>,
    store: &Path,
) -> Result<BTreeSet<StoreName>, GraphError> {
    use std::os::unix::ffi::OsStrExt;
    let mut outputs = BTreeSet::new();
    for path in paths.iter().filter(|path| path.name().ends_with(".drv")) {
        let derivation = Derivation::read(store, path.in_store(store).as_os_str().as_bytes())?;
        for output in derivation.outputs.values() {
            let known = output.path().ok_or_else(|| GraphError::UnknownOutputs(path.to_string()))?;
            outputs.insert(known.clone());
        }
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::closure::PathInfo;

    const STORE: &str = "/nix/store";

    fn name(letter: char) -> StoreName {
        StoreName::parse(format!("{}-{letter}", letter.to_string().repeat(32)).as_bytes()).unwrap()
    }

    fn graphs() -> Graphs<'static> {
        let info = |references: &[StoreName], nar_size| PathInfo {
            nar_sha256: vec![0; 32],
            nar_size,
            references: references.iter().cloned().collect(),
        };
        let infos = [(name('a'), info(&[name('a'), name('b')], 100)), (name('b'), info(&[], 20))];
        let closure = Closure(infos.into());
        let paths = closure.reach([name('a')]);
        Graphs { store: Path::new(STORE), closure, graphs: vec![("graph".into(), paths)] }
    }

    fn plain(list: &str) -> Attributes {
        Attributes::new([(ATTRIBUTE.as_bytes().to_vec(), list.as_bytes().to_vec())].into()).unwrap()
    }

    #[test]
    fn a_file_has_an_empty_deriver_and_no_hash() {
        let files = graphs().files();
        insta::assert_snapshot!(String::from_utf8(files[0].1.clone()).unwrap(), @r"
        /nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a

        2
        /nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a
        /nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-b
        /nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-b

        0
        ");
    }

    #[test]
    fn a_description_has_valid_only_for_nix_that_writes_it() {
        let text = |with_valid| {
            let mut text = Vec::new();
            let description = graphs().description(&name('b'), with_valid);
            crate::nix::compact_json::write(&Value::Object(description), &mut text);
            String::from_utf8(text).unwrap()
        };
        insta::assert_snapshot!(text(false), @r#"{"closureSize":20,"narHash":"sha256:0000000000000000000000000000000000000000000000000000","narSize":20,"path":"/nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-b","references":[]}"#);
        assert!(text(true).ends_with(r#","valid":true}"#));
    }

    #[test]
    fn pairs_and_objects_ask_for_the_same() {
        let store = Path::new(STORE);
        let path = name('a').in_store(store).display().to_string();
        let expected = vec![GraphRequest { name: "graph".into(), roots: [name('a')].into() }];
        assert_eq!(requested(&plain(&format!("graph {path}/bin/x")), store).unwrap(), expected);
        let json = format!(r#"{{"exportReferencesGraph":{{"graph":[["{path}"],"{path}"]}}}}"#);
        let structured = Attributes::new([(b"__json".to_vec(), json.into_bytes())].into()).unwrap();
        assert_eq!(requested(&structured, store).unwrap(), expected);
    }

    #[test]
    fn refuses_what_nix_refuses() {
        let error = |list: &str| requested(&plain(list), Path::new(STORE)).unwrap_err().to_string();
        insta::assert_snapshot!(error("a"), @"odd number of tokens in 'exportReferencesGraph': 'a'");
        insta::assert_snapshot!(error("../x /nix/store/y"), @"invalid file name '../x' in 'exportReferencesGraph'");
        insta::assert_snapshot!(error("x /etc"), @"'exportReferencesGraph' contains a non-store path: '/etc' is not directly inside '/nix/store'");
    }
}
