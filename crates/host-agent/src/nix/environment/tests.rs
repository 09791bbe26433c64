//! A builder's variables and files beside what Nix's derivation-goal and local store make of the same derivation.

use super::*;
use crate::store_path::StoreName;

fn derivation(outputs: &str, environment: &[(&str, &str)]) -> Derivation {
    let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| format!("({},{})", quote(name), quote(value))).collect();
    let text =
        format!(r#"Derive([{outputs}],[],[],"x86_64-darwin","/bin/sh",[],[{}])"#, environment.join(","));
    let name = StoreName::parse(b"00000000000000000000000000000000-t.drv").unwrap();
    Derivation::parse(Path::new("/nix/store"), name, text.as_bytes()).unwrap()
}

const INPUT_ADDRESSED: &str = r#"("out","/nix/store/11111111111111111111111111111111-t","","")"#;

fn fixed() -> String {
    format!(r#"("out","/nix/store/11111111111111111111111111111111-t","sha256","{}")"#, "ab".repeat(32))
}

fn environment_of(derivation: &Derivation, settings: &[(&str, &str)], dialect: Dialect) -> Environment {
    let settings = Settings::of(settings);
    let around = Surroundings {
        store: Path::new("/nix/store"),
        settings: &settings,
        cpus: 8,
        dialect,
        inherited: |name| (name == b"http_proxy").then(|| b"inherited".to_vec()),
    };
    Environment::new(derivation, ExportedGraphs::default(), &around).unwrap()
}

fn shown(derivation: &Derivation, settings: &[(&str, &str)], dialect: Dialect) -> String {
    let environment = environment_of(derivation, settings, dialect);
    let placeholders = Placeholders::new(Path::new("/nix/store"), &derivation.outputs);
    let variables = environment.variables(&placeholders);
    let mut text: String = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    for file in environment.files(&placeholders) {
        text.push_str(&format!("--- {}\n{}\n", file.name, String::from_utf8_lossy(&file.contents)));
    }
    text
}

#[test]
fn a_derivation_replaces_the_first_rows_and_not_the_last() {
    let derivation = derivation(
        INPUT_ADDRESSED,
        &[
            ("HOME", "/x"),
            ("NIX_BUILD_CORES", "77"),
            ("TERM", "foo"),
            ("TMPDIR", "/elsewhere"),
            ("builder", "/bin/sh"),
            ("impureEnvVars", "http_proxy"),
            ("name", "t"),
            ("out", "/nix/store/11111111111111111111111111111111-t"),
            ("system", "x86_64-darwin"),
            ("where", "/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9/bin"),
        ],
    );
    insta::assert_snapshot!(shown(&derivation, &[], Dialect::Current), @r"
    HOME=/x
    NIX_BUILD_CORES=77
    NIX_BUILD_TOP=/build
    NIX_LOG_FD=2
    NIX_STORE=/nix/store
    PATH=/path-not-set
    PWD=/build
    TEMP=/build
    TEMPDIR=/build
    TERM=xterm-256color
    TMP=/build
    TMPDIR=/build
    builder=/bin/sh
    impureEnvVars=http_proxy
    name=t
    out=/nix/store/11111111111111111111111111111111-t
    system=x86_64-darwin
    where=/nix/store/11111111111111111111111111111111-t/bin
    ");
}

#[test]
fn fixed_outputs_get_the_impure_variables_they_name_even_if_unset() {
    let derivation = derivation(&fixed(), &[("impureEnvVars", "http_proxy https_proxy no_proxy")]);
    insta::assert_snapshot!(shown(&derivation, &[("impure-env", "https_proxy=set"), ("cores", "3")], Dialect::Current), @r"
    HOME=/homeless-shelter
    NIX_BUILD_CORES=3
    NIX_BUILD_TOP=/build
    NIX_LOG_FD=2
    NIX_OUTPUT_CHECKED=1
    NIX_STORE=/nix/store
    PATH=/path-not-set
    PWD=/build
    TEMP=/build
    TEMPDIR=/build
    TERM=xterm-256color
    TMP=/build
    TMPDIR=/build
    http_proxy=inherited
    https_proxy=set
    impureEnvVars=http_proxy https_proxy no_proxy
    no_proxy=
    ");
}

#[test]
fn variables_passed_as_files_are_files_instead() {
    let attributes = [("big", "contents"), ("passAsFile", "big absent"), ("small", "s")];
    let derivation = derivation(INPUT_ADDRESSED, &attributes);
    let text = shown(&derivation, &[], Dialect::Current);
    assert!(
        text.contains("\nbigPath=/build/.attr-1lak0mvllw8rv9i9ygkglvhqsq19qi9ynl4bi7gbf69ab5nzw89a\n"),
        "{text}"
    );
    assert!(text.contains("\npassAsFile=big absent\n") && text.contains("\nsmall=s\n"), "{text}");
    assert!(!text.contains("\nbig="), "{text}");
    assert!(
        text.ends_with("--- .attr-1lak0mvllw8rv9i9ygkglvhqsq19qi9ynl4bi7gbf69ab5nzw89a\ncontents\n"),
        "{text}"
    );
    let old = shown(&derivation, &[], Dialect::Nix23);
    assert!(old.contains("\nbigPath=/build/.attr-0\n"), "{old}");
}

#[test]
fn structured_attributes_are_files_and_no_variables() {
    let json = r#"{"builder":"/bin/sh","list":[1,2,"x"],"name":"t","outputs":["out"],"f":2.0}"#;
    let out = "/nix/store/11111111111111111111111111111111-t";
    let derivation = derivation(INPUT_ADDRESSED, &[("__json", json), ("out", out)]);
    insta::assert_snapshot!(shown(&derivation, &[], Dialect::Current), @r#"
    HOME=/homeless-shelter
    NIX_ATTRS_JSON_FILE=/build/.attrs.json
    NIX_ATTRS_SH_FILE=/build/.attrs.sh
    NIX_BUILD_CORES=8
    NIX_BUILD_TOP=/build
    NIX_LOG_FD=2
    NIX_STORE=/nix/store
    PATH=/path-not-set
    PWD=/build
    TEMP=/build
    TEMPDIR=/build
    TERM=xterm-256color
    TMP=/build
    TMPDIR=/build
    --- .attrs.json
    {"builder":"/bin/sh","f":2.0,"list":[1,2,"x"],"name":"t","outputs":{"out":"/nix/store/11111111111111111111111111111111-t"}}
    --- .attrs.sh
    declare builder='/bin/sh'
    declare f=2
    declare -a list=(1 2 'x' )
    declare name='t'
    declare -A outputs=(['out']='/nix/store/11111111111111111111111111111111-t' )
    "#);
}
