//! The parser against the crate nix-derivation as second opinion, where that reads the same; and what is refused.

use super::*;
use proptest::prelude::*;

const STORE: &str = "/nix/store";

fn parse(text: &[u8]) -> Result<Derivation, DerivationError> {
    let name = StoreName::parse(b"00000000000000000000000000000000-t.drv").unwrap();
    Derivation::parse(Path::new(STORE), name, text)
}

fn with_outputs(outputs: &str) -> Result<Derivation, DerivationError> {
    parse(format!(r#"Derive([{outputs}],[],[],"x86_64-darwin","/bin/sh",[],[])"#).as_bytes())
}

#[test]
fn tells_the_kinds_of_outputs_apart() {
    let path = "/nix/store/11111111111111111111111111111111-t";
    let hash = "ab".repeat(32);
    let kind = |fields: &str| with_outputs(&format!(r#"("out",{fields})"#)).unwrap().outputs["out"].clone();
    let store_name = StoreName::parse(b"11111111111111111111111111111111-t").unwrap();
    assert_eq!(kind(&format!(r#""{path}","","""#)), Output::InputAddressed(store_name.clone()));
    let Output::Fixed { path: fixed_path, digest, expected } =
        kind(&format!(r#""{path}","r:sha256","{hash}""#))
    else {
        panic!("not fixed");
    };
    assert_eq!((fixed_path, expected), (store_name, vec![0xab; 32]));
    assert_eq!(digest, DigestRequest { algorithm: DigestAlgorithm::Sha256, method: DigestMethod::Recursive });
    assert_eq!(kind(r#""","r:sha256","""#), Output::Floating);
    assert_eq!(kind(r#""","","""#), Output::Deferred);
    assert_eq!(kind(r#""","r:sha256","impure""#), Output::Impure);
    assert_eq!(kind(&format!(r#""{path}","text:sha256","{hash}""#)), Output::Unknown("text:sha256".into()));
    assert_eq!(kind(&format!(r#""{path}","git:sha1","{hash}""#)), Output::Unknown("git:sha1".into()));
}

#[test]
fn reads_dynamic_derivations_well_enough_to_refuse_them() {
    let text = concat!(
        r#"DrvWithVersion("xp-dyn-drv",[("out","/nix/store/11111111111111111111111111111111-t","","")],"#,
        r#"[("/nix/store/22222222222222222222222222222222-a.drv",(["out"],[("out",["x","y"])])),"#,
        r#"("/nix/store/33333333333333333333333333333333-b.drv",["out"])],[],"s","b",[],[])"#
    );
    assert!(parse(text.as_bytes()).unwrap().dynamic);
}

#[test]
fn keeps_bytes_that_are_not_text() {
    let derivation = parse(b"Derive([],[],[],\"s\xff\",\"b\xfe\",[\"\xfd\\n\"],[(\"v\",\"\xfc\")])").unwrap();
    assert_eq!((derivation.system, derivation.builder), (b"s\xff".to_vec(), b"b\xfe".to_vec()));
    assert_eq!(derivation.arguments, [b"\xfd\n"]);
    assert_eq!(derivation.attributes, Attributes::Environment([(b"v".to_vec(), b"\xfc".to_vec())].into()));
}

#[test]
fn says_what_is_wrong_and_where() {
    let error = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
    insta::assert_snapshot!(error("Derive([]"), @"failed to understand /nix/store/00000000000000000000000000000000-t.drv at byte 9: expected `,`");
    insta::assert_snapshot!(error(r#"DrvWithVersion("x","#), @"failed to understand /nix/store/00000000000000000000000000000000-t.drv at byte 18: unknown version 'x'");
    let error = with_outputs(r#"("out","/etc/passwd","","")"#).unwrap_err();
    insta::assert_snapshot!(error, @"failed to understand /nix/store/00000000000000000000000000000000-t.drv at byte 35: '/etc/passwd' is not directly inside '/nix/store'");
    let error = with_outputs(r#"("out","/nix/store/11111111111111111111111111111111-t","sha256","abcd")"#)
        .unwrap_err();
    insta::assert_snapshot!(error, @"failed to understand /nix/store/00000000000000000000000000000000-t.drv at byte 79: hash of a fixed output is not hexadecimal of the algorithm's length");
}

fn text() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[a-zA-Z0-9\"\\\\\n\r\tüé ]{0,20}").unwrap()
}

proptest! {
    /// The `nix-derivation` crate reads the same from it.
    #[test]
    fn reads_what_another_implementation_reads(
        system in text(),
        builder in text(),
        arguments in proptest::collection::vec(text(), 0..4),
        environment in proptest::collection::btree_map("[a-z]{1,5}", proptest::collection::vec(any::<u8>(), 0..30), 0..5),
    ) {
        let quote = |bytes: &[u8]| {
            let mut quoted = vec![b'"'];
            for byte in bytes {
                match byte {
                    b'"' | b'\\' => quoted.extend([b'\\', *byte]),
                    b'\n' => quoted.extend(b"\\n"),
                    b'\r' => quoted.extend(b"\\r"),
                    b'\t' => quoted.extend(b"\\t"),
                    other => quoted.push(*other),
                }
            }
            quoted.push(b'"');
            quoted
        };
        let list = |items: Vec<Vec<u8>>| [b"[".to_vec(), items.join(&b','), b"]".to_vec()].concat();
        let entries = environment.iter().map(|(name, value)| {
            [b"(".to_vec(), quote(name.as_bytes()), b",".to_vec(), quote(value), b")".to_vec()].concat()
        });
        let written = [
            b"Derive([(\"out\",\"\",\"\",\"\")],[],[],".to_vec(),
            [
                quote(system.as_bytes()),
                quote(builder.as_bytes()),
                list(arguments.iter().map(|argument| quote(argument.as_bytes())).collect()),
                list(entries.collect()),
            ].join(&b','),
            b")".to_vec(),
        ].concat();
        let theirs = nix_derivation::Derivation::from_aterm_bytes(&written, "t").unwrap();
        prop_assert_eq!(theirs.system(), &system);
        prop_assert_eq!(theirs.builder(), &builder);
        prop_assert_eq!(theirs.arguments(), &arguments);
        prop_assert_eq!(theirs.environment(), &environment);
        let ours = parse(&written).unwrap();
        prop_assert_eq!(ours.system, system.into_bytes());
        prop_assert_eq!(ours.builder, builder.into_bytes());
        prop_assert_eq!(ours.arguments, arguments.into_iter().map(String::into_bytes).collect::<Vec<_>>());
        let environment = environment.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        prop_assert_eq!(ours.attributes, Attributes::Environment(environment));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
        let _ = parse(&[b"Derive([".to_vec(), bytes].concat());
    }
}
