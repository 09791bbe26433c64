//! Logging in over ssh with OpenSSH's own client: what works, and what is refused. In Darling, or in the stand-in where
//! this machine has an `sshd` for it.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use host_agent::ssh::keys::KeyFiles;
use host_agent::ssh::settings::SshConfig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{self, Daemon, darling};
use crate::terminal::OnTerminal;

/// Seconds that any client may take.
const SECONDS: &str = "60";

/// Says why a test is skipped, if it must be.
pub fn skipped() -> bool {
    let missing = |path: &str| !Path::new(path).exists();
    if harness::skipped() {
        return true;
    }
    let reason = if missing("/usr/bin/ssh") {
        "no ssh client on this machine"
    } else if !darling() && missing("/usr/sbin/sshd") {
        "no sshd on this machine for the stand-in"
    } else {
        return false;
    };
    eprintln!("skipped: {reason}");
    true
}

/// A daemon that can be logged into.
pub struct SshDaemon {
    pub daemon: Daemon,
    pub port: u16,
}

impl SshDaemon {
    /// With these lines in `[ssh]`.
    pub fn start(lines: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let daemon = Daemon::start(&format!("warm-slots = 0\n[ssh]\nenable = true\nport = {port}\n{lines}"));
        Self { daemon, port }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.daemon.state().join("ssh").join(name)
    }

    /// A client that knows the host by its key and uses `key`.
    fn client_with(&self, program: &str, key: &Path) -> Command {
        let mut command = Command::new("timeout");
        command.args([SECONDS, program, "-F", "/dev/null", "-i"]).arg(key);
        for option in ["BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes"] {
            command.args(["-o", option]);
        }
        command.args(["-o", &format!("UserKnownHostsFile={}", self.file("known_hosts").display())]);
        command.args(["-o", &format!("Port={}", self.port)]).env_remove("SSH_AUTH_SOCK");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `ssh` with the key that may log in.
    pub fn client(&self, arguments: &[&str]) -> Command {
        let mut command = self.client_with("ssh", &self.file("client_ed25519"));
        command.args(arguments);
        command
    }

    pub fn ssh(&self, arguments: &[&str]) -> Output {
        self.client(arguments).output().unwrap()
    }

    /// What a script prints that is run as `builder`; it must succeed.
    pub fn says(&self, script: &str) -> String {
        let output = self.ssh(&["builder@127.0.0.1", script]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A session that stays, in which something runs.
    pub fn hold(&self) -> Child {
        let before = self.daemon.sleepers();
        let child = self.client(&["builder@127.0.0.1", "sleep 100"]).spawn().unwrap();
        self.daemon.eventually(harness::LIMIT, "sleeping", || self.daemon.sleepers() == before + 1);
        child
    }

    /// What the client says of a connection that must be refused.
    fn refusal(&self, arguments: &[&str]) -> String {
        refusal(&mut self.client(arguments))
    }
}

/// Ends a client: `timeout` passes this on.
pub fn hang_up(client: &mut Child) {
    kill(Pid::from_raw(client.id() as i32), Signal::SIGTERM).unwrap();
    client.wait().unwrap();
}

fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("reached"), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_key_logs_in_and_streams_and_status_are_the_commands() {
    if skipped() {
        return;
    }
    let ssh = SshDaemon::start("");
    assert_eq!(ssh.says("echo ok"), "ok\n");
    let system = if darling() { "Darwin x86_64\n" } else { "Linux x86_64\n" };
    assert_eq!(ssh.says("uname -sm"), system);
    let output = ssh.ssh(&["builder@127.0.0.1", "echo out; echo err >&2; exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n");
    assert!(String::from_utf8_lossy(&output.stderr).ends_with("err\n"), "{output:?}");
    // The slot's uid has a name, and root is another one for it.
    assert_eq!(ssh.says("whoami; cd; pwd"), "builder\n/build\n");
    let output = ssh.ssh(&["root@127.0.0.1", "echo ok; id -u"]);
    let uid = ssh.daemon.uid_base;
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("ok\n20"), "{uid}: {output:?}");
}

#[test]
fn what_is_sent_arrives_whole() {
    if skipped() {
        return;
    }
    let ssh = SshDaemon::start("");
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut child = ssh.client(&["builder@127.0.0.1", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &copy).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == sent, "{} bytes of {}", output.stdout.len(), sent.len());
}

#[test]
fn a_terminal_can_be_had() {
    if skipped() {
        return;
    }
    let ssh = SshDaemon::start("");
    let mut terminal = OnTerminal::start(&mut ssh.client(&["-tt", "builder@127.0.0.1"]));
    terminal.types("stty size; echo term=$TERM; test -t 0 && echo its ow''n\r");
    terminal.shows("40 100\r\n");
    terminal.shows("term=vt100\r\n");
    terminal.shows("its own\r\n");
    terminal.types("sleep 100; echo sle''pt\r");
    ssh.daemon.eventually(harness::LIMIT, "sleeping", || ssh.daemon.sleepers() == 1);
    terminal.types("\x03");
    ssh.daemon.eventually(harness::LIMIT, "interrupted", || ssh.daemon.sleepers() == 0);
    terminal.types("exit 5\r");
    assert_eq!(terminal.ends().code(), Some(5));
}

#[test]
fn files_are_copied_both_ways_and_sessions_share_them() {
    if skipped() {
        return;
    }
    let ssh = SshDaemon::start("");
    let local = ssh.daemon.directory.path().join("sent");
    std::fs::write(&local, "some text").unwrap();
    let batch = ssh.daemon.directory.path().join("batch");
    let back = ssh.daemon.directory.path().join("back");
    std::fs::write(&batch, format!("put {} there\nget there {}\n", local.display(), back.display())).unwrap();
    let mut sftp = ssh.client_with("sftp", &ssh.file("client_ed25519"));
    let output = sftp.arg("-b").arg(&batch).arg("builder@127.0.0.1").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read_to_string(&back).unwrap(), "some text");
    assert_eq!(ssh.says("cat there"), "some text");
}

#[test]
fn sessions_run_side_by_side_and_status_shows_them() {
    if skipped() {
        return;
    }
    let ssh = SshDaemon::start("");
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..6)
            .map(|number| {
                scope.spawn({
                    let ssh = &ssh;
                    move || ssh.says(&format!("sleep 0.5; echo {number}"))
                })
            })
            .collect();
        for (number, one) in all.into_iter().enumerate() {
            assert_eq!(one.join().unwrap(), format!("{number}\n"));
        }
    });
    let mut held = ssh.hold();
    // The others may not be quite gone.
    ssh.daemon.eventually(harness::LIMIT, "one session", || {
        ssh.daemon.status().ssh.is_some_and(|status| status.sessions.len() == 1)
    });
    let status = ssh.daemon.status();
    let slot = status.ssh.as_ref().unwrap().slot;
    assert!(status.slots.iter().any(|found| Some(found.id) == slot && found.state == "ssh"), "{status:?}");
    assert_eq!(status.ssh.unwrap().sessions[0].user, "builder");
    hang_up(&mut held);
    ssh.daemon.eventually(harness::LIMIT, "no session", || {
        ssh.daemon.status().ssh.is_some_and(|status| status.sessions.is_empty())
    });
}

#[test]
fn passwords_other_keys_and_other_users_are_refused() {
    if skipped() {
        return;
    }
    let ssh = SshDaemon::start("");
    let only_keys = "Permission denied (publickey).";
    let said = ssh.refusal(&[
        "-oPubkeyAuthentication=no",
        "-oPreferredAuthentications=password,keyboard-interactive",
        "builder@127.0.0.1",
        "echo reached",
    ]);
    assert!(said.contains(only_keys), "{said}");
    let other = tempfile::tempdir().unwrap();
    let files = KeyFiles::new(&SshConfig::default(), other.path());
    files.open(ssh.port).unwrap();
    for user in ["builder@127.0.0.1", "root@127.0.0.1"] {
        let said = refusal(ssh.client_with("ssh", &files.client).args([user, "echo reached"]));
        assert!(said.contains(only_keys), "{said}");
    }
    for user in ["nobody@127.0.0.1", "nixbld@127.0.0.1", "daemon@127.0.0.1"] {
        let said = ssh.refusal(&[user, "echo reached"]);
        assert!(said.contains(only_keys), "{said}");
    }
    // A host with another key is not this one.
    let known = format!("UserKnownHostsFile={}", files.known_hosts.display());
    let mut impostor = Command::new("timeout");
    impostor.args([SECONDS, "ssh", "-F", "/dev/null", "-o", &known, "-o", "BatchMode=yes"]);
    impostor.args(["-p", &ssh.port.to_string(), "builder@127.0.0.1", "echo reached"]);
    assert!(refusal(&mut impostor).contains("Host key verification failed"));
}

#[test]
fn no_other_address_answers() {
    if skipped() {
        return;
    }
    let ssh = SshDaemon::start("");
    for address in ["127.0.0.2", "::1"] {
        let address: std::net::IpAddr = address.parse().unwrap();
        TcpStream::connect((address, ssh.port)).unwrap_err();
    }
    // The address by which others reach this machine, if it has one: no packet is sent for that.
    let outward = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    if outward.connect("192.0.2.1:9").is_ok() {
        let address = outward.local_addr().unwrap().ip();
        TcpStream::connect((address, ssh.port)).unwrap_err();
    }
    TcpStream::connect(("127.0.0.1", ssh.port)).unwrap();
}

#[test]
fn nothing_is_forwarded() {
    if skipped() {
        return;
    }
    let ssh = SshDaemon::start("");
    // What -L, -D and -W ask the server for is one and the same.
    let said = ssh.refusal(&["-W", "127.0.0.1:1", "builder@127.0.0.1"]);
    assert!(said.contains("administratively prohibited"), "{said}");
    for listen in ["0:127.0.0.1:1", "/tmp/listen:127.0.0.1:1", "0"] {
        let said =
            ssh.refusal(&["-oExitOnForwardFailure=yes", "-R", listen, "builder@127.0.0.1", "echo reached"]);
        assert!(said.contains("remote port forwarding failed"), "{listen}: {said}");
    }
    let client =
        ssh.client(&["-A", "-X", "builder@127.0.0.1", "echo ${SSH_AUTH_SOCK:-no agent} ${DISPLAY:-no X}"]);
    let mut with_agent = Command::new("ssh-agent");
    with_agent.arg(client.get_program()).args(client.get_args()).env("DISPLAY", ":77").stdin(Stdio::null());
    let output = with_agent.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "no agent no X\n", "{output:?}");
}
