//! Which answer the hook gives to which derivation: declined, accepted, or accepted to fail with the reason.

use super::*;
use crate::store_path::StoreName;

fn derivation(outputs: &str, builder: &str) -> Derivation {
    let text = format!(r#"Derive([{outputs}],[],[],"x86_64-darwin","{builder}",[],[])"#);
    let name = StoreName::parse(b"00000000000000000000000000000000-t.drv").unwrap();
    Derivation::parse(Path::new("/nix/store"), name, text.as_bytes()).unwrap()
}

const OUT: &str = r#"("out","/nix/store/11111111111111111111111111111111-t","","")"#;
const DEV: &str = r#"("dev","/nix/store/22222222222222222222222222222222-t-dev","","")"#;

fn question(features: &[&str]) -> Question {
    Question {
        willing: true,
        system: b"x86_64-darwin".to_vec(),
        derivation: b"/nix/store/00000000000000000000000000000000-t.drv".to_vec(),
        features: features.iter().map(|feature| feature.as_bytes().to_vec()).collect(),
    }
}

fn reason(outputs: &str, features: &[&str]) -> String {
    match judge_derivation(derivation(outputs, "/bin/sh"), &question(features), &Config::default(), |_| false)
    {
        Judgement::Impossible(reason) => reason,
        other => format!("{other:?}"),
    }
}

#[test]
fn what_other_systems_build_is_declined_without_a_look_at_it() {
    let question = Question { system: b"x86_64-linux".to_vec(), ..question(&[]) };
    let Judgement::NotOurs { reason, elsewhere } = judge(&question, &Settings::of(&[]), &Config::default())
    else {
        panic!("ours");
    };
    assert!(elsewhere);
    insta::assert_snapshot!(reason, @"system x86_64-linux is not one of this builder's (x86_64-darwin)");
}

#[test]
fn a_derivation_that_cannot_be_read_fails_with_the_reason() {
    let judged = judge(&question(&[]), &Settings::of(&[]), &Config::default());
    let Judgement::Impossible(reason) = judged else { panic!("{judged:?}") };
    insta::assert_snapshot!(reason, @"failed to read /nix/store/00000000000000000000000000000000-t.drv: No such file or directory (os error 2)");
}

#[test]
fn builtin_builders_are_for_nix() {
    let judged =
        judge_derivation(derivation(OUT, "builtin:fetchurl"), &question(&[]), &Config::default(), |_| false);
    let Judgement::NotOurs { reason, elsewhere: true } = judged else { panic!("{judged:?}") };
    insta::assert_snapshot!(reason, @"only Nix itself can run builtin:fetchurl");
}

#[test]
fn outputs_that_all_exist_are_being_checked_and_not_built() {
    let both = format!("{DEV},{OUT}");
    let judge = |exists: fn(&Path) -> bool| {
        judge_derivation(derivation(&both, "/bin/sh"), &question(&[]), &Config::default(), exists)
    };
    assert!(matches!(judge(|_| true), Judgement::NotOurs { elsewhere: false, .. }));
    // One of two: a build of the other one.
    assert!(matches!(
        judge(|path| path.ends_with("22222222222222222222222222222222-t-dev")),
        Judgement::Ours(_)
    ));
    assert!(matches!(judge(|_| false), Judgement::Ours(_)));
}

#[test]
fn what_cannot_be_built_here_has_its_reason() {
    let path = "/nix/store/11111111111111111111111111111111-t";
    insta::assert_snapshot!(reason(r#"("out","","r:sha256","")"#, &["ca-derivations"]), @"output 'out' is content-addressed without a fixed hash, which is not supported");
    insta::assert_snapshot!(reason(r#"("out","","","")"#, &[]), @"output 'out' depends on content-addressed derivations that Nix has not resolved");
    insta::assert_snapshot!(reason(r#"("out","","r:sha256","impure")"#, &[]), @"output 'out' is impure, which is not supported");
    let text = format!(r#"("out","{path}","text:sha256","{}")"#, "ab".repeat(32));
    insta::assert_snapshot!(reason(&text, &[]), @"output 'out' is hashed with 'text:sha256', which is not supported");
    insta::assert_snapshot!(reason(OUT, &["big-parallel", "kvm", "uid-range"]), @"it requires system features that this builder does not have: kvm, uid-range (it has: big-parallel; see `supported-features` in its configuration)");
}

#[test]
fn mandatory_features_are_offered_and_demanded() {
    let config = Config { mandatory_features: vec!["darling".into()], ..Config::default() };
    let judge = |features: &[&str]| {
        judge_derivation(derivation(OUT, "/bin/sh"), &question(features), &config, |_| false)
    };
    assert!(matches!(judge(&["darling"]), Judgement::Ours(_)));
    let Judgement::Impossible(reason) = judge(&[]) else { panic!("ours") };
    insta::assert_snapshot!(reason, @"this builder only builds what requires the system features darling (`mandatory-features`)");
}

#[test]
fn only_the_local_store_is_where_it_says() {
    for store in [
        "",
        "auto",
        "daemon",
        "local",
        "local?require-sigs=false",
        "unix:///nix/var/nix/daemon-socket/socket",
    ] {
        assert_eq!(diverted_store(store), None, "{store}");
    }
    for store in
        ["local?root=/mnt", "/tmp/store", "ssh://host", "daemon?store=/other", "unix:///tmp/other.sock"]
    {
        assert!(diverted_store(store).is_some(), "{store}");
    }
}
