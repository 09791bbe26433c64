//! A machine with the external builder as another machine's remote builder: nothing between the two but ssh and Nix.
//!
//! The world is the builder; its nix-daemon has what `nix-conf --apply` writes. The client is a second machine with a store
//! of its own and nothing of ours.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{NotHere, cases};
use crate::world::limited::{self, Running, wait_until};
use crate::world::machine::{ADDRESS, Machine, WORLD_ADDRESS};
use crate::world::session::{Build, LIMIT, Session};
use crate::world::{Mode, accounts, daemon};

const DIRECTORY: &str = "/scratch/client";
const PORT: u16 = 2224;

cases! {
    Everywhere: a_client_builds_through_stock_ssh_ng, a_failure_and_its_log_reach_the_client;
}

fn a_client_builds_through_stock_ssh_ng(session: &mut Session) -> Result<()> {
    with_client(session, |session, client| {
        let before = daemon::status(&session.world)?["succeeded"].as_u64().context("no count")?;
        let finished = client.build("scale-out.nix", "referring")?.must_succeed()?;
        let text = String::from_utf8(finished.stdout)?;
        let output = text.lines().next().context("no output")?;
        // Its dependency is built first, and both by us.
        let after = daemon::status(&session.world)?["succeeded"].as_u64().context("no count")?;
        ensure!(after > before, "{before} builds before, {after} after");
        // Valid on the client, and the same as on the builder.
        client.nix_store(&["--verify-path", output])?.must_succeed()?;
        let hash = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        let there = session.query(&["--query", "--hash"], Path::new(output))?.concat();
        let here = hash(client.nix_store(&["--query", "--hash", output])?.must_succeed()?.stdout);
        ensure!(there == here, "{here} on the client, {there} on the builder");
        let references = client.nix_store(&["--query", "--references", output])?.must_succeed()?;
        ensure!(!references.stdout.is_empty(), "no references on the client");
        Ok(())
    })
}

fn a_failure_and_its_log_reach_the_client(session: &mut Session) -> Result<()> {
    with_client(session, |_, client| {
        let finished = client.build("failures.nix", "exit-42")?;
        ensure!(!finished.status.success() && !finished.timed_out, "{}", finished.describe());
        let said = String::from_utf8_lossy(&finished.stderr).into_owned();
        ensure!(said.contains("exit code 42"), "{}", finished.describe());
        Ok(())
    })
}

/// Runs `test` with a client whose builds go to this world.
fn with_client(session: &mut Session, test: impl FnOnce(&mut Session, &Client) -> Result<()>) -> Result<()> {
    if session.world.mode == Mode::SingleUser {
        return Err(NotHere("a remote builder has a nix-daemon".into()).into());
    }
    session.stop_nix_daemon();
    let result = serve(session).and_then(|_sshd| {
        let client = Client::new()?;
        test(session, &client)
    });
    session.stop_nix_daemon();
    for path in ["/scratch/ssh", DIRECTORY] {
        let _ = fs::remove_dir_all(path);
    }
    session.resume_nix_daemon()?;
    result
}

/// Starts a nix-daemon that builds through us for a trusted user, and an sshd for that user.
fn serve(session: &mut Session) -> Result<Running> {
    let config = format!(
        "{}build-users-group = nixbld\nsandbox = false\nsubstituters =\nmax-jobs = 2\ntrusted-users = root {}\n",
        settings(session)?,
        accounts::USER
    );
    session.start_nix_daemon(Command::new("nix-daemon").env("NIX_CONFIG", config))?;
    let ssh = Path::new("/scratch/ssh");
    fs::create_dir_all(ssh)?;
    fs::create_dir_all("/run/sshd")?;
    for key in ["host", "user"] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(ssh.join(key));
        limited::run(&mut keygen, LIMIT)?.must_succeed()?;
    }
    fs::copy(ssh.join("user.pub"), ssh.join("authorized"))?;
    fs::write(
        ssh.join("sshd_config"),
        format!(
            "Port {PORT}\nListenAddress 0.0.0.0\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\n\
             PasswordAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\nUseDNS no\n",
            ssh.display()
        ),
    )?;
    let mut sshd = Command::new("/usr/sbin/sshd");
    let mut sshd = limited::start(sshd.args(["-D", "-e", "-f"]).arg(ssh.join("sshd_config")))?;
    let up = wait_until(Duration::from_secs(10), || {
        Ok(!sshd.is_running()? || TcpStream::connect(("127.0.0.1", PORT)).is_ok())
    })?;
    ensure!(up && sshd.is_running()?, "sshd: {}", String::from_utf8_lossy(&sshd.stderr_so_far()?));
    Ok(sshd)
}

/// What `nix-conf` prints for this machine.
fn settings(session: &Session) -> Result<String> {
    let mut command = Command::new(daemon::program(&session.world));
    command.args(["nix-conf", "--config", daemon::CONFIG, "--nix-version", &session.world.nix]);
    Ok(String::from_utf8(limited::run(&mut command, LIMIT)?.must_succeed()?.stdout)?)
}

/// A machine that builds nothing itself.
struct Client {
    machine: Machine,
}

impl Client {
    fn new() -> Result<Self> {
        let client = Self { machine: Machine::new(DIRECTORY)? };
        let init = client.nix_store(&["--init"])?;
        ensure!(init.status.success(), "{}", init.describe());
        // It has a network of its own: what listens on the builder's loopback is not there.
        let mut addresses = client.machine.command("ip");
        let shown = limited::run(addresses.args(["-brief", "address"]), LIMIT)?.must_succeed()?;
        ensure!(String::from_utf8_lossy(&shown.stdout).contains(ADDRESS), "{}", shown.describe());
        Ok(client)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.machine.command(program);
        let builder = format!(
            "ssh-ng://{}@{WORLD_ADDRESS} x86_64-darwin /scratch/ssh/user 4 1 big-parallel",
            accounts::USER
        );
        command.env("NIX_CONF_DIR", "/run/none").env("NIX_SSHOPTS", ssh_options()).env(
            "NIX_CONFIG",
            format!(
                "build-users-group =\nsandbox = false\nsubstituters =\nmax-jobs = 0\nbuilders = {builder}\n"
            ),
        );
        command
    }

    fn build(&self, file: &str, attribute: &str) -> Result<limited::Finished> {
        // Named as every build here, so that it is the same derivation as on the builder.
        let file = Build::of(file, attribute).file().to_owned();
        let mut command = self.command("nix-build");
        limited::run(command.args([&file, "-A", attribute, "--no-out-link"]), LIMIT)
    }

    fn nix_store(&self, arguments: &[&str]) -> Result<limited::Finished> {
        limited::run(self.command("nix-store").args(arguments), LIMIT)
    }
}

fn ssh_options() -> String {
    format!(
        "-p {PORT} -oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null -oLogLevel=ERROR -oBatchMode=yes"
    )
}
