//! What the store's database says of paths: hash, size and references, asked of the building Nix's own commands.
//!
//! Only derivations that export a references graph or restrict their closure need this; it costs a process.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use super::store_command::{NixProgram, StoreCommandError, answer};
use super::text_encoding::from_hex;
use crate::store_path::StoreName;

/// Bytes of arguments in one call; Linux allows two million.
const ARGUMENTS_MAX: usize = 1 << 20;

/// What the database knows of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// SHA-256 of its NAR serialisation.
    pub nar_sha256: Vec<u8>,
    /// Length of its NAR serialisation, bytes.
    pub nar_size: u64,
    /// What it refers to, itself included if it does.
    pub references: BTreeSet<StoreName>,
}

/// What is known of a set of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closure(pub BTreeMap<StoreName, PathInfo>);

impl Closure {
    /// Asks for all these paths, which must be valid.
    pub fn query(
        nix: &NixProgram,
        store: &Path,
        paths: &BTreeSet<StoreName>,
    ) -> Result<Self, StoreCommandError> {
        let mut closure = Self::default();
        for paths in in_calls(store, paths) {
            let arguments = [&["--dump-db".into()], paths.as_slice()].concat();
            closure.0.extend(parse_dump(store, &nix.ask_store(&arguments)?)?);
        }
        Ok(closure)
    }

    /// Asks for all that these paths, which must be valid, reach.
    pub fn query_requisites(
        nix: &NixProgram,
        store: &Path,
        paths: &BTreeSet<StoreName>,
    ) -> Result<Self, StoreCommandError> {
        let mut reached = BTreeSet::new();
        for paths in in_calls(store, paths) {
            let arguments = [&["--query".into(), "--requisites".into()], paths.as_slice()].concat();
            for line in
                nix.ask_store(&arguments)?.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
            {
                reached.insert(parse_path(store, line)?);
            }
        }
        Self::query(nix, store, &reached)
    }

    /// The paths that `roots` reach, themselves included. What is not known here counts as reaching nothing.
    pub fn reach(&self, roots: impl IntoIterator<Item = StoreName>) -> BTreeSet<StoreName> {
        let mut reached = BTreeSet::new();
        let mut waiting: Vec<StoreName> = roots.into_iter().collect();
        while let Some(path) = waiting.pop() {
            if let Some(info) = self.0.get(&path) {
                waiting.extend(info.references.iter().filter(|path| !reached.contains(*path)).cloned());
            }
            reached.insert(path);
        }
        reached
    }

    /// Bytes of all NAR serialisations together of what `root` reaches.
    pub fn size(&self, root: &StoreName) -> u64 {
        self.reach([root.clone()]).iter().filter_map(|path| self.0.get(path)).map(|info| info.nar_size).sum()
    }
}

/// Content addresses of those of these paths that have one, as Nix renders them.
pub fn content_addresses(
    nix: &NixProgram,
    store: &Path,
    paths: &BTreeSet<StoreName>,
) -> Result<BTreeMap<StoreName, String>, StoreCommandError> {
    let mut addresses = BTreeMap::new();
    for paths in in_calls(store, paths) {
        let mut command = nix.command("nix");
        command.args([
            "--extra-experimental-features",
            "nix-command",
            "path-info",
            "--store",
            "local",
            "--json",
        ]);
        command.args(paths);
        let text = answer("nix path-info", command)?;
        addresses.extend(parse_content_addresses(store, &text)?);
    }
    Ok(addresses)
}

/// Both shapes that `nix path-info --json` has had: a list of objects with `path` (until 2.18) and an object by path.
fn parse_content_addresses(
    store: &Path,
    text: &[u8],
) -> Result<BTreeMap<StoreName, String>, StoreCommandError> {
    let wrong = |problem: String| StoreCommandError::Answer { command: "nix path-info", problem };
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
    let entries: Vec<(Option<&str>, &serde_json::Value)> = match &value {
        serde_json::Value::Array(items) => items.iter().map(|item| (item["path"].as_str(), item)).collect(),
        serde_json::Value::Object(items) => {
            items.iter().map(|(path, item)| (Some(path.as_str()), item)).collect()
        }
        _ => return Err(wrong("neither a list nor an object".into())),
    };
    let mut addresses = BTreeMap::new();
    for (path, info) in entries {
        let path = path.ok_or_else(|| wrong("entry without a path".into()))?;
        if let Some(address) = info["ca"].as_str().filter(|address| !address.is_empty()) {
            addresses.insert(parse_path(store, path.as_bytes())?, address.to_owned());
        }
    }
    Ok(addresses)
}

/// The paths as arguments, in as many calls as it takes.
fn in_calls(store: &Path, paths: &BTreeSet<StoreName>) -> Vec<Vec<OsString>> {
    let mut calls: Vec<Vec<OsString>> = Vec::new();
    let mut length = ARGUMENTS_MAX;
    for path in paths {
        let argument = path.in_store(store).into_os_string();
        length += argument.len() + 1;
        if length > ARGUMENTS_MAX {
            calls.push(Vec::new());
            length = argument.len() + 1;
        }
        if let Some(call) = calls.last_mut() {
            call.push(argument);
        }
    }
    calls
}

fn parse_path(store: &Path, line: &[u8]) -> Result<StoreName, StoreCommandError> {
    StoreName::from_path(store, line)
        .map_err(|error| StoreCommandError::Answer { command: "nix-store", problem: error.to_string() })
}

/// The format of `--dump-db`: path, hash, size, deriver, number of references, references; a line each.
fn parse_dump(store: &Path, text: &[u8]) -> Result<BTreeMap<StoreName, PathInfo>, StoreCommandError> {
    let wrong =
        |problem: &str| StoreCommandError::Answer { command: "nix-store", problem: problem.to_owned() };
    let number = |line: &[u8]| std::str::from_utf8(line).ok()?.parse::<u64>().ok();
    let mut lines = text.split(|byte| *byte == b'\n');
    let mut infos = BTreeMap::new();
    while let Some(path) = lines.next().filter(|line| !line.is_empty()) {
        let path = parse_path(store, path)?;
        let mut field = || lines.next().ok_or_else(|| wrong("a line is missing"));
        let hash = field()?;
        let hash = hash.strip_prefix(b"sha256:").unwrap_or(hash);
        let nar_sha256 = from_hex(hash).ok_or_else(|| wrong("a hash is not hexadecimal"))?;
        let nar_size = number(field()?).ok_or_else(|| wrong("a size is not a number"))?;
        let _deriver = field()?;
        let count = number(field()?).ok_or_else(|| wrong("a count of references is not a number"))?;
        let references = (0..count).map(|_| parse_path(store, field()?)).collect::<Result<_, _>>()?;
        infos.insert(path, PathInfo { nar_sha256, nar_size, references });
    }
    Ok(infos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(letter: char) -> StoreName {
        StoreName::parse(format!("{}-{letter}", letter.to_string().repeat(32)).as_bytes()).unwrap()
    }

    fn dump() -> String {
        let path = |letter| name(letter).in_store(Path::new("/nix/store")).display().to_string();
        let hash = "ab".repeat(32);
        format!(
            "{a}\n{hash}\n100\n\n2\n{a}\n{b}\n{b}\n{hash}\n20\n/nix/store/x.drv\n1\n{c}\n{c}\n{hash}\n3\n\n0\n",
            a = path('a'),
            b = path('b'),
            c = path('c')
        )
    }

    #[test]
    fn reads_a_dump_and_walks_it() {
        let closure = Closure(parse_dump(Path::new("/nix/store"), dump().as_bytes()).unwrap());
        assert_eq!(closure.0[&name('a')].references, BTreeSet::from([name('a'), name('b')]));
        assert_eq!(closure.reach([name('b')]), BTreeSet::from([name('b'), name('c')]));
        assert_eq!(closure.size(&name('a')), 123);
    }

    #[test]
    fn refuses_a_dump_that_is_cut_off() {
        let error = parse_dump(Path::new("/nix/store"), &dump().as_bytes()[..150]).unwrap_err();
        assert!(error.to_string().starts_with("failed to understand the answer of `nix-store`"), "{error}");
    }

    #[test]
    fn reads_content_addresses_of_old_and_new_nix() {
        let store = Path::new("/nix/store");
        let path = name('a').in_store(store).display().to_string();
        let old =
            format!(r#"[{{"path":"{path}","ca":"fixed:sha256:abc"}},{{"path":"/nix/store/{}"}}]"#, name('b'));
        let new =
            format!(r#"{{"{path}":{{"ca":"fixed:sha256:abc"}},"/nix/store/{}":{{"ca":null}}}}"#, name('b'));
        let expected = BTreeMap::from([(name('a'), "fixed:sha256:abc".to_owned())]);
        assert_eq!(parse_content_addresses(store, old.as_bytes()).unwrap(), expected);
        assert_eq!(parse_content_addresses(store, new.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn long_argument_lists_are_cut_into_calls() {
        let paths: BTreeSet<_> = (0..20_000)
            .map(|n| StoreName::parse(format!("{}-{n:0>100}", "a".repeat(32)).as_bytes()).unwrap())
            .collect();
        let calls = in_calls(Path::new("/nix/store"), &paths);
        assert_eq!(calls.iter().map(Vec::len).sum::<usize>(), paths.len());
        assert!(calls.len() > 1);
        assert!(in_calls(Path::new("/nix/store"), &BTreeSet::new()).is_empty());
    }
}
