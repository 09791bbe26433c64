//! The external builder as Nix starts it: what it says, what it hands over, and what it may not be made to touch.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use host_agent::request::{BuildDirectory, BuildFile, BuildOutcome, Publishing};
use serde_json::{Value, json};

use crate::harness::{Daemon, LIMIT, copy_program, darling, name, skipped};

/// A build user, who may ask, and a stranger to him.
pub const BUILDER: u32 = 31001;
pub const OTHER: u32 = 31002;

const SECOND: Duration = Duration::from_secs(1);

/// A daemon that build users may ask, with a store that they may write to, and Nix's directory for one build.
pub struct Place {
    pub daemon: Daemon,
    pub top: PathBuf,
    program: PathBuf,
}

impl Place {
    pub fn new(extra: &str) -> Self {
        Self::with(&format!("allowed-uids = [{BUILDER}, {OTHER}]\n{extra}"))
    }

    pub fn with(configuration: &str) -> Self {
        let daemon = Daemon::start(configuration);
        let directory = daemon.directory.path();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(daemon.store(), fs::Permissions::from_mode(0o1777)).unwrap();
        // Where the build user can reach it.
        let program = directory.join("host-agent");
        copy_program(Path::new(env!("CARGO_BIN_EXE_host-agent")), &program);
        let top = directory.join("builds/nix-1-2");
        fs::create_dir_all(top.join("build")).unwrap();
        for path in [&top, &top.join("build")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
            chown(path, Some(BUILDER), Some(BUILDER)).unwrap();
        }
        Self { daemon, top, program }
    }

    pub fn tmp(&self) -> PathBuf {
        self.top.join("build")
    }

    pub fn out(&self) -> PathBuf {
        name("out").in_store(&self.daemon.store())
    }

    pub fn json(&self, script: &str) -> Value {
        let out = self.out();
        json!({
            "version": 1, "system": "x86_64-darwin", "builder": "/bin/sh", "args": ["-c", script],
            "env": { "PATH": "/bin:/usr/bin", "out": out, "NIX_BUILD_TOP": "/build" },
            "topTmpDir": self.top, "tmpDir": self.tmp(), "tmpDirInSandbox": "/build",
            "storeDir": self.daemon.store(), "realStoreDir": self.daemon.store(),
            "inputPaths": [], "outputs": { "out": out },
        })
    }

    fn command(&self, json: &Value, uid: u32) -> Command {
        let file = self.daemon.directory.path().join(format!("build-{uid}.json"));
        fs::write(&file, json.to_string()).unwrap();
        let mut command = Command::new(&self.program);
        let config = self.daemon.directory.path().join("config.toml");
        command.args(["external-builder", "--config"]).arg(config).arg(file);
        command.uid(uid).gid(uid).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn start(&self, json: &Value) -> Child {
        self.command(json, BUILDER).spawn().unwrap()
    }

    pub fn run_as(&self, json: &Value, uid: u32) -> Done {
        Done(self.command(json, uid).output().unwrap())
    }

    pub fn run(&self, json: &Value) -> Done {
        self.run_as(json, BUILDER)
    }

    pub fn busy(&self) -> bool {
        self.daemon.status().slots.iter().any(|slot| slot.state == "busy" || slot.state == "stopping")
    }
}

pub struct Done(pub Output);

impl Done {
    pub fn log(&self) -> String {
        let text = String::from_utf8_lossy(&self.0.stdout).into_owned();
        assert_eq!(String::from_utf8_lossy(&self.0.stderr), "");
        text.strip_prefix("\u{2}\n").unwrap_or_else(|| panic!("no start marker: {text:?}")).to_owned()
    }

    /// The one line that it was refused with; paths of this test are left out.
    pub fn refusal(&self, place: &Place) -> String {
        let log = self.log();
        assert_eq!(self.0.status.code(), Some(1), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
        log.trim_end().replace(place.daemon.directory.path().to_str().unwrap(), "DIR")
    }

    pub fn succeeds(&self) -> &Self {
        assert!(self.0.status.success(), "{:?}: {}", self.0.status, self.log());
        self
    }
}

pub fn owner(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().uid()
}

#[test]
fn the_builder_works_in_the_given_directory_and_all_of_it_comes_back() {
    if skipped() {
        return;
    }
    let place = Place::new("");
    fs::write(place.tmp().join(".attr"), "from Nix\n").unwrap();
    chown(place.tmp().join(".attr"), Some(BUILDER), Some(BUILDER)).unwrap();
    let json = place.json(
        "pwd; cat .attr; mkdir -p deep/er; echo made > deep/er/file; ln -s /etc/passwd link; printf 'a\\r\\n\\001'; \
         mkdir $out; echo x > $out/x; chmod 640 $out/x; ln $out/x $out/y; ln -s nowhere $out/link; chmod 555 $out",
    );
    let done = place.run(&json);
    assert_eq!(done.succeeds().log(), "/build\nfrom Nix\na\r\n\u{1}");
    for path in ["", ".attr", "deep", "deep/er", "deep/er/file", "link"] {
        assert_eq!(owner(place.tmp().join(path)), BUILDER, "{path}");
    }
    assert_eq!(fs::metadata(place.tmp()).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(owner("/etc/passwd"), 0);
    let out = place.out();
    for path in ["", "x", "y", "link"] {
        assert_eq!(owner(out.join(path)), BUILDER, "{path}");
    }
    assert_eq!(fs::metadata(&out).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(fs::metadata(out.join("y")).unwrap().mode() & 0o7777, 0o640);
    assert!(fs::read_dir(place.daemon.state().join("kept")).unwrap().next().is_none());
}

#[test]
fn a_stalled_build_is_run_once_more_on_what_nix_had_put_into_the_directory() {
    if skipped() {
        return;
    }
    let place = Place::new("max-jobs = 1\nwarm-slots = 0");
    fs::create_dir(place.tmp().join("directory")).unwrap();
    for name in [".attr", "directory/.attr"] {
        fs::write(place.tmp().join(name), "from Nix\n").unwrap();
        chown(place.tmp().join(name), Some(BUILDER), Some(BUILDER)).unwrap();
    }
    chown(place.tmp().join("directory"), Some(BUILDER), Some(BUILDER)).unwrap();
    let json = place.json(
        "test ! -e trace || echo not fresh; \
         for f in .attr directory/.attr; do test \"$(cat $f)\" = 'from Nix' || echo changed; echo once > $f; done; \
         mkdir -p trace/deep; touch $out; sleep 2",
    );
    let child = place.start(&json);
    place.daemon.stall();
    let done = Done(child.wait_with_output().unwrap());
    let log = done.succeeds().log();
    assert!(log.contains("starts again in a fresh slot"), "{log}");
    assert!(!log.contains("not fresh") && !log.contains("changed"), "{log}");
    assert_eq!(owner(place.tmp().join("trace/deep")), BUILDER);
    assert!(place.out().exists());
}

#[test]
fn exit_statuses_and_signals_are_passed_on_and_the_directory_comes_back() {
    if skipped() {
        return;
    }
    let place = Place::new("");
    let done = place.run(&place.json("echo left > file; echo last words; exit 42"));
    assert_eq!((done.0.status.code(), done.log().as_str()), (Some(42), "last words\n"));
    assert_eq!(owner(place.tmp().join("file")), BUILDER);
    // SIGBUS and SIGUSR1 have other numbers in Darwin.
    for (script, signal) in [("SEGV", libc::SIGSEGV), ("KILL", libc::SIGKILL), ("USR1", libc::SIGUSR1)] {
        let done = place.run(&place.json(&format!("kill -{script} $$")));
        assert_eq!(done.0.status.signal(), Some(signal), "{}", done.log());
        assert!(!done.0.status.core_dumped());
    }
    let done = place.run(&place.json("echo nothing made"));
    assert_eq!(done.succeeds().log(), "nothing made\n");
    assert!(!place.out().exists());
}

#[test]
fn killing_the_program_takes_the_slot_down_within_a_second_and_the_directory_comes_back() {
    if skipped() {
        return;
    }
    let place = Place::new("");
    let script = "trap '' TERM INT HUP; sleep 100 & (setsid sleep 100 || sleep 100) & echo > here; sleep 100";
    let mut child = place.start(&place.json(script));
    place.daemon.eventually(LIMIT, "builder running", || place.daemon.sleepers() >= 3);
    child.kill().unwrap();
    child.wait().unwrap();
    place.daemon.eventually(SECOND, "all gone", || place.daemon.sleepers() == 0 && !place.busy());
    for path in ["", "here"] {
        assert_eq!(owner(place.tmp().join(path)), BUILDER);
    }
}

#[test]
fn leaked_descriptors_do_not_reach_the_build_and_do_not_keep_anything_open() {
    if skipped() {
        return;
    }
    let place = Place::new("");
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = place.command(&place.json("sleep 0.2; ls /proc/self/fd | wc -l"), BUILDER);
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let mut child = command.spawn().unwrap();
    drop(writer);
    let started = Instant::now();
    std::io::Read::read_to_end(&mut reader, &mut Vec::new()).unwrap();
    assert!(
        child.try_wait().unwrap().is_none(),
        "the pipe ended with the program after {:?}",
        started.elapsed()
    );
    child.wait().unwrap();
}

#[test]
fn what_it_cannot_build_is_refused_with_one_line_each() {
    if skipped() {
        return;
    }
    let place = Place::new("");
    let refusal = |key: &str, value: Value| {
        let mut json = place.json("true");
        json[key] = value;
        place.run(&json).refusal(&place)
    };
    insta::assert_snapshot!(refusal("version", json!(2)), @"darling-builder: can't build this: Nix describes the build in version 2 of its format, and this darling-builder understands version 1; use a newer darling-builder, or its build hook");
    insta::assert_snapshot!(refusal("system", json!("riscv64-linux")), @"darling-builder: can't build this: system 'riscv64-linux' is not one of this builder's (x86_64-darwin); see `systems` in its configuration");
    insta::assert_snapshot!(refusal("builder", json!("builtin:fetchurl")), @"darling-builder: can't build this: only Nix itself can run 'builtin:fetchurl'");
    insta::assert_snapshot!(refusal("realStoreDir", json!("/elsewhere/nix/store")), @"darling-builder: can't build this: the store 'DIR/store' has its files in '/elsewhere/nix/store', and this builder is for 'DIR/store'; see `store-directory` in its configuration");
    insta::assert_snapshot!(refusal("tmpDirInSandbox", json!("/private/tmp")), @"darling-builder: can't build this: Nix wants the build directory to be seen at '/private/tmp', and this builder shows it at /build");
    insta::assert_snapshot!(refusal("outputs", json!({})), @"darling-builder: can't build this: it has no outputs");
    assert!(refusal("newKey", json!(true)).contains("unknown field `newKey`"));
    let mut json = place.json("true");
    json["env"]["requiredSystemFeatures"] = json!("big-parallel apple-virt");
    insta::assert_snapshot!(place.run(&json).refusal(&place), @"darling-builder: can't build this: it requires system features that this builder does not have: apple-virt (it has: big-parallel; see `supported-features` in its configuration)");
    json["env"] = json!({ "NIX_ATTRS_JSON_FILE": "/build/.attrs.json" });
    fs::write(place.tmp().join(".attrs.json"), r#"{"requiredSystemFeatures":["kvm"]}"#).unwrap();
    insta::assert_snapshot!(place.run(&json).refusal(&place), @"darling-builder: can't build this: it requires system features that this builder does not have: kvm (it has: big-parallel; see `supported-features` in its configuration)");
    fs::write(place.tmp().join(".attrs.json"), "[").unwrap();
    insta::assert_snapshot!(place.run(&json).refusal(&place), @"darling-builder: can't build this: failed to read DIR/builds/nix-1-2/build/.attrs.json: invalid type: sequence, expected a map at line 1 column 0");
}

#[test]
fn paths_outside_the_store_are_refused() {
    if skipped() {
        return;
    }
    let place = Place::new("");
    let store = place.daemon.store();
    let output = |path: PathBuf| {
        let mut json = place.json("echo x > $out");
        json["outputs"]["out"] = json!(path);
        place.run(&json).refusal(&place)
    };
    insta::assert_snapshot!(output("/etc/cron.d/x".into()), @"darling-builder: can't build this: output 'out' can't be made: '/etc/cron.d/x' is not directly inside 'DIR/store'");
    insta::assert_snapshot!(output(store.join("../victim")), @"darling-builder: can't build this: output 'out' can't be made: 'DIR/store/../victim' is not directly inside 'DIR/store'");
    insta::assert_snapshot!(output(store.join("..")), @"darling-builder: can't build this: output 'out' can't be made: '..' does not start with a store path's hash");
    insta::assert_snapshot!(output(store.join(name("out").as_str()).join("below")), @"darling-builder: can't build this: output 'out' can't be made: 'DIR/store/rp65lkaibrkiavvnbv2skxh68cjpz81a-out/below' is not directly inside 'DIR/store'");
    let input = |path: PathBuf| {
        let mut json = place.json("echo x > $out");
        json["inputPaths"] = json!([path]);
        place.run(&json).refusal(&place)
    };
    insta::assert_snapshot!(input("/etc".into()), @"darling-builder: can't build this: an input can't be shown: '/etc' is not directly inside 'DIR/store'");
    insta::assert_snapshot!(input(store.join("../../etc")), @"darling-builder: can't build this: an input can't be shown: 'DIR/store/../../etc' is not directly inside 'DIR/store'");
    let missing = input(name("missing").in_store(&store));
    assert!(missing.contains("missing in the store: it is not there"), "{missing}");
    fs::create_dir(place.out()).unwrap();
    insta::assert_snapshot!(input(place.out()).replace(name("out").hash_part(), "HASH"), @"darling-builder: can't build this: output 'out' can't be made: 'HASH-out' is an input, or another output");
}

#[test]
fn an_output_that_exists_is_not_replaced() {
    if skipped() {
        return;
    }
    let place = Place::new("");
    fs::write(place.out(), "valid").unwrap();
    let done = place.run(&place.json("echo other > $out"));
    assert_eq!(done.0.status.code(), Some(1));
    assert!(done.log().contains("nothing was replaced"), "{}", done.log());
    assert_eq!(fs::read(place.out()).unwrap(), b"valid");
}

#[test]
fn directories_that_are_not_the_callers_own_are_refused_and_left_alone() {
    if skipped() {
        return;
    }
    let place = Place::new("");
    let with = |top: &Path, tmp: &Path| {
        let mut json = place.json("echo x > here");
        (json["topTmpDir"], json["tmpDir"]) = (json!(top), json!(tmp));
        place.run(&json).refusal(&place)
    };
    // Of root, and of another build user.
    let victim = place.daemon.directory.path().join("victim");
    fs::create_dir_all(victim.join("build")).unwrap();
    insta::assert_snapshot!(with(&victim, &victim.join("build")), @"darling-builder: refused to build in 'DIR/victim/build': it belongs to uid 0, and uid 31001 asks");
    chown(victim.join("build"), Some(OTHER), Some(OTHER)).unwrap();
    insta::assert_snapshot!(with(&victim, &victim.join("build")), @"darling-builder: refused to build in 'DIR/victim/build': it belongs to uid 31002, and uid 31001 asks");
    // By a link, at the end or on the way.
    let top = &place.top;
    symlink(victim.join("build"), top.join("link")).unwrap();
    insta::assert_snapshot!(with(top, &top.join("link")), @"darling-builder: failed to open the build directory 'DIR/builds/nix-1-2/link': a part of its path is a symbolic link");
    symlink(&victim, top.parent().unwrap().join("nix-link")).unwrap();
    let link = top.parent().unwrap().join("nix-link");
    insta::assert_snapshot!(with(&link, &link.join("build")), @"darling-builder: failed to open the build directory 'DIR/builds/nix-link/build': a part of its path is a symbolic link");
    // Round about.
    insta::assert_snapshot!(with(top, &top.join("../../victim/build")), @"darling-builder: can't build this: the build directory 'DIR/builds/nix-1-2/../../victim/build' is not directly inside the directory that Nix has made for the build");
    insta::assert_snapshot!(with(top, &top.join("..")), @"darling-builder: can't build this: the build directory 'DIR/builds/nix-1-2/..' is not directly inside the directory that Nix has made for the build");
    insta::assert_snapshot!(with(Path::new("/"), Path::new("/etc")), @"darling-builder: can't build this: the build directory '/etc' is not directly inside the directory that Nix has made for the build");
    insta::assert_snapshot!(with(top, &top.join("missing")), @"darling-builder: failed to open the build directory 'DIR/builds/nix-1-2/missing': No such file or directory (os error 2)");
    // Open to others.
    fs::create_dir(top.join("open")).unwrap();
    chown(top.join("open"), Some(BUILDER), Some(BUILDER)).unwrap();
    fs::set_permissions(top.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    insta::assert_snapshot!(with(top, &top.join("open")), @"darling-builder: refused to build in 'DIR/builds/nix-1-2/open': group or others may write to it (mode 0777)");
    assert_eq!(owner(victim.join("build")), OTHER);
    assert_eq!(fs::read_dir(victim.join("build")).unwrap().count(), 0);
    assert_eq!(owner("/etc"), 0);
}

#[test]
fn a_directory_swapped_after_the_check_changes_nothing_for_its_new_place() {
    if skipped() {
        return;
    }
    // One place, taken by a first build, so that the second waits between check and use.
    let place = Place::new("max-jobs = 1\nwarm-slots = 1");
    let first = place.daemon.submit(&place.daemon.request("while [ ! -e go ]; do sleep 0.05; done; exit 1"));
    place.daemon.eventually(LIMIT, "first runs", || place.busy());
    let mut child = place.start(&place.json("echo x > here"));
    place.daemon.eventually(LIMIT, "second waits", || place.daemon.status().builds.len() == 2);
    std::thread::sleep(Duration::from_millis(200));
    let victim = place.daemon.directory.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::rename(place.tmp(), place.top.join("moved")).unwrap();
    symlink(&victim, place.tmp()).unwrap();
    drop(first);
    assert!(child.wait().unwrap().success());
    assert_eq!(owner(&victim), 0);
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    assert_eq!(owner(place.top.join("moved/here")), BUILDER);
}

#[test]
fn strangers_are_refused() {
    if skipped() {
        return;
    }
    let place = Place::with("build-group = \"no-such-group\"");
    let refusal = place.run(&place.json("true")).refusal(&place);
    insta::assert_snapshot!(refusal, @"darling-builder: the daemon refused: uid 31001 is neither root nor a member of the group 'no-such-group'; add it to `allowed-uids` in the daemon's configuration if it may build");
    assert_eq!(owner(place.tmp()), BUILDER);
}

#[test]
fn without_a_daemon_it_waits_or_fails_as_configured() {
    if skipped() {
        return;
    }
    let mut place = Place::new("[external-builder]\nabsent-wait-seconds = 1");
    place.daemon.child.kill().unwrap();
    place.daemon.child.wait().unwrap();
    let done = place.run(&place.json("true"));
    assert_eq!(done.0.status.code(), Some(1));
    let log = done.log().replace(place.daemon.directory.path().to_str().unwrap(), "DIR");
    insta::assert_snapshot!(log, @"
    darling-builder: waiting, up to 1 s: failed to reach the darling-builder daemon at DIR/s: Connection refused (os error 111); start it with `systemctl start darling-builder` (or run `host-agent daemon` as root)
    darling-builder: gave up after 1 s: failed to reach the darling-builder daemon at DIR/s: Connection refused (os error 111); start it with `systemctl start darling-builder` (or run `host-agent daemon` as root)
    ");
    // One that comes meanwhile is found.
    let config = place.daemon.directory.path().join("config.toml");
    let text = fs::read_to_string(&config).unwrap().replace("seconds = 1", "seconds = 30");
    fs::write(&config, &text).unwrap();
    let child = place.start(&place.json("echo built"));
    std::thread::sleep(Duration::from_millis(300));
    place.daemon.restart();
    assert!(Done(child.wait_with_output().unwrap()).succeeds().log().ends_with("built\n"));
    fs::write(&config, format!("{text}when-absent = \"fail\"\n")).unwrap();
    place.daemon.child.kill().unwrap();
    place.daemon.child.wait().unwrap();
    insta::assert_snapshot!(place.run(&place.json("true")).refusal(&place), @r#"darling-builder: failed to reach the darling-builder daemon at DIR/s: Connection refused (os error 111); start it with `systemctl start darling-builder` (or run `host-agent daemon` as root) (and `when-absent` is "fail")"#);
}

#[test]
fn with_too_many_builds_it_waits_or_fails_as_configured() {
    if skipped() {
        return;
    }
    let mut place = Place::new("max-jobs = 1\nqueue-limit = 0\n[external-builder]\nbusy-wait-seconds = 20");
    let first = place.daemon.submit(&place.daemon.request("sleep 100"));
    place.daemon.eventually(LIMIT, "first runs", || place.busy());
    let child = place.start(&place.json("echo built"));
    std::thread::sleep(Duration::from_millis(500));
    drop(first);
    let done = Done(child.wait_with_output().unwrap());
    insta::assert_snapshot!(done.succeeds().log(), @"
    darling-builder: waiting, up to 20 s: the daemon takes no more builds for now: 1 builds run and 0 wait already
    built
    ");
    let config = place.daemon.directory.path().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}when-busy = \"fail\"\n")).unwrap();
    place.daemon.restart();
    let _first = place.daemon.submit(&place.daemon.request("sleep 100"));
    place.daemon.eventually(LIMIT, "first runs", || place.busy());
    insta::assert_snapshot!(place.run(&place.json("true")).refusal(&place), @r#"darling-builder: the daemon takes no more builds for now: 1 builds run and 0 wait already (and `when-busy` is "fail")"#);
}

#[test]
fn the_network_is_only_for_what_is_proven_to_be_fixed() {
    if skipped() || darling() {
        return;
    }
    let place = Place::new("");
    let interfaces = "cat /proc/net/dev | grep -c :";
    let host = fs::read_to_string("/proc/net/dev").unwrap().matches(':').count();
    let mut json = place.json(interfaces);
    json["env"]["outputHash"] = json!("sha256-WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM=");
    let log = place.run(&json).log();
    let (note, count) = log.trim_end().rsplit_once('\n').unwrap();
    insta::assert_snapshot!(note, @"darling-builder: without network, though an outputHash is given: its output is not at the path that its hash gives (so it is when Nix makes a valid one again to compare)");
    assert!(count.parse::<usize>().unwrap() < host || host == 1, "{count} of {host}");
}

#[test]
fn a_request_of_another_program_gets_no_further() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let given = |path: &str, files: Vec<BuildFile>| {
        let mut request = daemon.request("true");
        request.build_directory = BuildDirectory::Given { path: path.into() };
        request.publishing = Publishing::HandOver;
        request.files = files;
        let BuildOutcome::Infrastructure(reason) = daemon.build(&request).report.outcome else { panic!() };
        reason
    };
    insta::assert_snapshot!(given("tmp", Vec::new()), @"failed to open the build directory 'tmp': its path is not absolute");
    insta::assert_snapshot!(given("", Vec::new()), @"failed to open the build directory '': its path is not absolute");
    insta::assert_snapshot!(given("/proc/self/root/tmp", Vec::new()), @"failed to open the build directory '/proc/self/root/tmp': a part of its path is a symbolic link");
    insta::assert_snapshot!(given("/dev/null", Vec::new()), @"failed to open the build directory '/dev/null': Not a directory (os error 20)");
    insta::assert_snapshot!(given("/tmp", Vec::new()), @"refused to build in '/tmp': group or others may write to it (mode 1777)");
    let file = BuildFile { name: "x".into(), contents: "y".into() };
    insta::assert_snapshot!(given("/root", vec![file]), @"files can't be put into a build directory that was given");
}
