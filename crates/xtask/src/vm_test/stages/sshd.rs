//! 5: logging in by key on 127.0.0.1 works, and nothing else does.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::vm_test::machine::Machine;
use crate::vm_test::ssh::Ssh;
use crate::vm_test::stage::{Need, Sabotage, Stage};
use crate::world::Guest;
use crate::world::limited::Finished;

/// The stage.
pub const STAGE: Stage = Stage {
    number: 5,
    name: "sshd",
    purpose: "a key logs in on 127.0.0.1 only; passwords, other keys, other addresses and forwarding are refused",
    needs: &[Need::Ssh],
    limit: 240,
    run,
    across_reset: None,
    sabotage: Sabotage { what: "the client's key is replaced by another one", act: sabotage },
};

fn run(machine: &mut Machine) -> Result<()> {
    let ssh = machine.ssh()?.context("ssh is not switched on")?;
    machine.wait(60, "the client's key is there", || Ok(ssh.client_key.exists()))?;
    let finished = machine.run(ssh.by_key(machine, &ssh.client_key).arg("echo ok; uname -s; id -un"), 60)?;
    let finished = finished.must_succeed().context("the key does not log in")?;
    let said = String::from_utf8_lossy(&finished.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    let system = match machine.plan.guest {
        Guest::Darling => "Darwin",
        Guest::Linux => "Linux",
    };
    ensure!(said == format!("ok {system} builder"), "expected `ok {system} builder`, got {said:?}");
    machine.say(format!("by key: {said}, after {:.1} s", finished.wall.as_secs_f64()));
    let status = machine.run(ssh.by_key(machine, &ssh.client_key).arg("exit 7"), 60)?;
    ensure!(status.status.code() == Some(7), "expected exit status 7: {}", status.describe());

    let mut root = ssh.command(machine);
    root.args(["-o", "BatchMode=yes", "-i"]).arg(&ssh.client_key).args(["root@127.0.0.1", "echo ok"]);
    let root = machine.run(&mut root, 60)?.must_succeed().context("the key does not log in as root")?;
    ensure!(root.stdout == b"ok\n", "expected `ok` as root: {}", root.describe());

    let other = machine.scratch("other-key");
    make_key(machine, &other)?;
    refused(machine, "another key", ssh.by_key(machine, &other).arg("echo in"), "ermission denied")?;
    fs::remove_file(&other)?;
    fs::remove_file(other.with_extension("pub"))?;
    let mut password = ssh.command(machine);
    password.args([
        "-o",
        "PubkeyAuthentication=no",
        "-o",
        "PreferredAuthentications=password,keyboard-interactive",
    ]);
    password.args(["-o", "NumberOfPasswordPrompts=1", "builder@127.0.0.1", "echo in"]);
    refused(machine, "a password", &mut password, "ermission denied (publickey)")?;
    // Standard input and output to a port on the other side.
    let mut forwarding = ssh.command(machine);
    let aim = format!("127.0.0.1:{}", ssh.port);
    forwarding.arg("-i").arg(&ssh.client_key).args(["-W", &aim, "builder@127.0.0.1"]);
    refused(machine, "forwarding", &mut forwarding, "prohibited")?;
    other_addresses(machine, &ssh)
}

/// An error unless the command fails and says this.
fn refused(machine: &Machine, what: &str, command: &mut Command, says: &str) -> Result<Finished> {
    let finished = machine.run(command, 60)?;
    ensure!(
        !finished.status.success() && !finished.timed_out,
        "{what} is not refused: {}",
        finished.describe()
    );
    let stderr = String::from_utf8_lossy(&finished.stderr).into_owned();
    ensure!(stderr.contains(says), "{what} failed, but not with {says:?}: {}", finished.describe());
    machine.say(format!("{what}: {}", stderr.lines().last().unwrap_or_default().trim()));
    Ok(finished)
}

/// Nothing listens at any other address of this machine, nor at another one of the loopback interface.
fn other_addresses(machine: &Machine, ssh: &Ssh) -> Result<()> {
    let mut addresses: Vec<IpAddr> =
        vec![Ipv4Addr::new(127, 0, 0, 2).into(), std::net::Ipv6Addr::LOCALHOST.into()];
    for interface in nix::ifaddrs::getifaddrs()? {
        let Some(address) = interface.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            addresses.push(v4.ip().into());
        }
    }
    addresses.retain(|address| *address != IpAddr::from(Ipv4Addr::LOCALHOST));
    for address in &addresses {
        let to = SocketAddr::new(*address, ssh.port);
        match TcpStream::connect_timeout(&to, Duration::from_secs(5)) {
            Ok(_) => bail!("{to} answers"),
            // An address family that the machine does not have is as good.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::AddrNotAvailable) => {}
            Err(error)
                if matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable) => {}
            Err(error) => return Err(error).with_context(|| format!("{to}: expected a refusal")),
        }
    }
    machine.say(format!("refused at {addresses:?}"));
    Ok(())
}

fn make_key(machine: &Machine, file: &std::path::Path) -> Result<()> {
    let mut command = machine.root("ssh-keygen");
    machine.must(command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file))?;
    Ok(())
}

fn sabotage(machine: &mut Machine) -> Result<()> {
    let ssh = machine.ssh()?.context("ssh is not switched on")?;
    machine.wait(60, "the client's key is there", || Ok(ssh.client_key.exists()))?;
    fs::remove_file(&ssh.client_key)?;
    make_key(machine, &ssh.client_key)
}
