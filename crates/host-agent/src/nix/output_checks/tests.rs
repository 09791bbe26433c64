//! Checks of outputs that Nix leaves to whoever registers them; messages read as Nix prints them.

use super::*;
use crate::request::DigestMethod;

const STORE: &str = "/nix/store";

fn name(letter: char) -> StoreName {
    StoreName::parse(format!("{}-{letter}", letter.to_string().repeat(32)).as_bytes()).unwrap()
}

/// Outputs `out` (a) and `dev` (b) of a derivation with these attributes.
fn derivation(attributes: &[(&str, &str)]) -> Derivation {
    let environment = attributes
        .iter()
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect();
    Derivation {
        path: StoreName::parse(format!("{}-t.drv", "d".repeat(32)).as_bytes()).unwrap(),
        outputs: [
            ("out".to_owned(), Output::InputAddressed(name('a'))),
            ("dev".to_owned(), Output::InputAddressed(name('b'))),
        ]
        .into(),
        system: b"x86_64-darwin".to_vec(),
        builder: b"/bin/sh".to_vec(),
        arguments: vec![],
        attributes: Attributes::new(environment).unwrap(),
        dynamic: false,
    }
}

fn built(output: &str, path: char, references: &[char]) -> PreparedOutput {
    PreparedOutput {
        name: output.to_owned(),
        path: name(path),
        staged: "/staged".into(),
        nar_sha256: [0; 32],
        nar_size: 100,
        references: references.iter().copied().map(name).collect(),
        digest: None,
        depth: 0,
    }
}

/// `x` refers to `y`, ten bytes each.
fn inputs() -> Closure {
    let info = |references: &[char]| PathInfo {
        nar_sha256: vec![0; 32],
        nar_size: 10,
        references: references.iter().copied().map(name).collect(),
    };
    Closure([(name('x'), info(&['y'])), (name('y'), info(&[]))].into())
}

fn check(attributes: &[(&str, &str)], outputs: &[PreparedOutput]) -> Result<(), String> {
    check_outputs(&derivation(attributes), outputs, &inputs(), Path::new(STORE))
        .map_err(|error| error.to_string())
}

#[test]
fn a_hash_mismatch_reads_as_nix_prints_it() {
    let expected = vec![0xab; 32];
    let mut derivation = derivation(&[]);
    let digest =
        crate::request::DigestRequest { algorithm: DigestAlgorithm::Sha256, method: DigestMethod::Flat };
    derivation.outputs =
        [("out".to_owned(), Output::Fixed { path: name('a'), digest, expected: expected.clone() })].into();
    let check = |digest: Vec<u8>, references: &[char]| {
        let output = PreparedOutput { digest: Some(digest.into()), ..built("out", 'a', references) };
        check_outputs(&derivation, &[output], &Closure::default(), Path::new(STORE))
            .map_err(|error| error.to_string())
    };
    assert_eq!(check(expected.clone(), &[]), Ok(()));
    insta::assert_snapshot!(check(vec![0xcd; 32], &[]).unwrap_err(), @r"
    hash mismatch in fixed-output derivation '/nix/store/dddddddddddddddddddddddddddddddd-t.drv':
             specified: sha256-q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=
                got:    sha256-zc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc0=
    ");
    insta::assert_snapshot!(check(expected, &['x']).unwrap_err(), @"fixed-output derivations must not reference store paths: '/nix/store/dddddddddddddddddddddddddddddddd-t.drv' references 1 distinct paths, e.g. '/nix/store/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-x'");
}

#[test]
fn an_absent_list_allows_everything_and_an_empty_one_nothing() {
    let outputs = [built("out", 'a', &['x'])];
    assert_eq!(check(&[], &outputs), Ok(()));
    insta::assert_snapshot!(check(&[("allowedReferences", "")], &outputs).unwrap_err(), @r"
    output '/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a' is not allowed to refer to the following paths:
      /nix/store/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-x
    ");
}

#[test]
fn lists_name_paths_and_outputs() {
    let x = name('x').in_store(Path::new(STORE)).display().to_string();
    let outputs = [built("out", 'a', &['b', 'x'])];
    assert_eq!(check(&[("allowedReferences", &format!("{x} dev"))], &outputs), Ok(()));
    assert!(check(&[("allowedReferences", "dev")], &outputs).is_err());
    assert!(check(&[("disallowedReferences", "dev")], &outputs).is_err());
    assert_eq!(check(&[("disallowedReferences", "out")], &outputs), Ok(()));
    insta::assert_snapshot!(check(&[("allowedReferences", "doc")], &outputs).unwrap_err(), @"derivation contains an illegal reference specifier 'doc'");
}

#[test]
fn requisites_are_the_closure_without_oneself() {
    let y = name('y').in_store(Path::new(STORE)).display().to_string();
    let x = name('x').in_store(Path::new(STORE)).display().to_string();
    let outputs = [built("out", 'a', &['a', 'x'])];
    assert!(check(&[("disallowedRequisites", &y)], &outputs).is_err());
    assert_eq!(check(&[("disallowedReferences", &y)], &outputs), Ok(()));
    assert_eq!(check(&[("allowedRequisites", &format!("{x} {y}"))], &outputs), Ok(()));
    assert!(needs_closure(&derivation(&[("disallowedRequisites", &y)])).unwrap());
    assert!(!needs_closure(&derivation(&[("disallowedReferences", &y)])).unwrap());
}

#[test]
fn structured_checks_are_per_output_and_know_sizes() {
    let json = |checks: &str| format!(r#"{{"outputChecks":{{"out":{checks}}},"allowedReferences":[]}}"#);
    let check = |checks: &str| check(&[("__json", &json(checks))], &[built("out", 'a', &['a', 'x'])]);
    assert_eq!(check("{}"), Ok(()));
    insta::assert_snapshot!(check(r#"{"maxSize":99}"#).unwrap_err(), @"path '/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a' is too large at 100 bytes; limit is 99 bytes");
    insta::assert_snapshot!(check(r#"{"maxClosureSize":119}"#).unwrap_err(), @"closure of path '/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a' is too large at 120 bytes; limit is 119 bytes");
    assert_eq!(check(r#"{"maxClosureSize":120}"#), Ok(()));
    // Here the closure includes the output itself.
    assert!(check(r#"{"disallowedRequisites":["out"]}"#).is_err());
    insta::assert_snapshot!(check(r#"{"maxSize":"1"}"#).unwrap_err(), @"attribute 'outputChecks.out.maxSize' is not a whole number");
}

#[test]
fn references_can_be_discarded() {
    let derivation = derivation(&[("__json", r#"{"unsafeDiscardReferences":{"out":true,"dev":false}}"#)]);
    let mut outputs = [built("out", 'a', &['x']), built("dev", 'b', &['x'])];
    discard_references(&derivation, &mut outputs).unwrap();
    assert_eq!(outputs[0].references, []);
    assert_eq!(outputs[1].references, [name('x')]);
}

#[test]
fn outputs_may_refer_to_themselves_but_not_in_circles() {
    assert_eq!(check(&[], &[built("out", 'a', &['a', 'b']), built("dev", 'b', &['b'])]), Ok(()));
    insta::assert_snapshot!(
        check(&[], &[built("out", 'a', &['b']), built("dev", 'b', &['a'])]).unwrap_err(),
        @"cycle detected in build of '/nix/store/dddddddddddddddddddddddddddddddd-t.drv' in the references of output 'dev' from output 'out'"
    );
}
