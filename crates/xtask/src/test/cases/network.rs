//! What fixed-output builds have for a network: with pasta one of their own, which leads to other machines and to nothing of this
//! one; on request this machine's.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{NotHere, cases};
use crate::world::machine::{ADDRESS, ADDRESS_6, CABLE, WORLD_ADDRESS, WORLD_ADDRESS_6, has_ipv6, ip};
use crate::world::servers::{NAME, PORT};
use crate::world::session::{Build, LIMIT, Session};
use crate::world::way_out::WayOut;
use crate::world::{Guest, daemon, limited};

const FILE: &str = "network.nix";

/// More addresses of the world, which are not on the cable that leads out.
const OTHERS: [(&str, &str); 2] = [("other", "10.78.0.1"), ("other-6", "fd00:78::1")];
/// Name of a socket.
const ABSTRACT: &str = "of-the-world";
/// What is tried with it.
const ABSTRACT_SOCKET: &str = "abstract-socket";
/// Said to whoever connects.
const GREETING: &[u8] = b"the world\n";

cases! {
    SingleUser: a_fixed_output_is_downloaded_from_another_machine, nothing_of_this_machine_is_reached,
        doctor_tells_which_network_it_is_by_trying, pasta_that_is_insisted_on_and_does_not_work_is_an_error;
}

fn a_fixed_output_is_downloaded_from_another_machine(session: &mut Session) -> Result<()> {
    let way_out = way_out()?;
    // Nothing is said about it: where pasta works it is what there is.
    session.restart_daemon("")?;
    let log = daemon::log_tail();
    ensure!(log.contains("fixed-output builds have a network of their own"), "{log}");
    // By name as well: what answers in the slot asks the machine's resolver. Darling's getaddrinfo finds no names in any network, but
    // what reads resolv.conf by itself does.
    let by_name = match session.world.guest {
        Guest::Linux => "download",
        Guest::Darling => "lookup",
    };
    let downloaded =
        fetch(session, "download", "address", ADDRESS).and_then(|()| fetch(session, by_name, "name", NAME));
    drop(way_out);
    session.restart_daemon("")?;
    downloaded
}

fn fetch(session: &Session, attribute: &str, run: &str, host: &str) -> Result<()> {
    let port = PORT.to_string();
    let arguments = ["--argstr", "run", run, "--argstr", "host", host, "--argstr", "port", &port];
    session.build(&Build::of(FILE, attribute).with(&arguments))?.succeeds().map(drop)
}

fn nothing_of_this_machine_is_reached(session: &mut Session) -> Result<()> {
    let way_out = way_out()?;
    let listening = Listening::start(session.world.guest)?;
    let all: BTreeSet<String> = listening
        .tried(CABLE)?
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| !name.contains("gateway") && name != ABSTRACT_SOCKET)
        .collect();
    session.restart_daemon("")?;
    let with_pasta = listening.reached(session, "eth0");
    // The machine's own network, so that what is looked for can be seen.
    let restarted = session.restart_daemon("fixed-output-network = \"host\"\n");
    let with_hosts = restarted.and_then(|()| listening.reached(session, CABLE));
    drop(way_out);
    session.restart_daemon("")?;
    let (with_pasta, mut with_hosts) = (with_pasta?, with_hosts?);
    ensure!(with_pasta.is_empty(), "reached through pasta: {with_pasta:?}");
    // That Landlock keeps them from by itself (Linux 6.12).
    with_hosts.remove(ABSTRACT_SOCKET);
    ensure!(with_hosts == all, "reached on the host's network: {with_hosts:?}, not {all:?}");
    Ok(())
}

fn doctor_tells_which_network_it_is_by_trying(session: &mut Session) -> Result<()> {
    // There is no way out yet: pasta can't work, installed or not.
    let (severity, text) = doctor(session)?;
    ensure!(severity == "warning" && text.contains("CVE-2025-46416"), "{severity}: {text}");
    let way_out = way_out()?;
    let with_pasta = doctor(session);
    drop(way_out);
    let (severity, text) = with_pasta?;
    ensure!(severity == "fine" && text.contains("/pasta gave a slot one of its own"), "{severity}: {text}");
    Ok(())
}

/// Severity and text of what `host-agent doctor` finds.
fn doctor(session: &Session) -> Result<(String, String)> {
    let mut command = Command::new(daemon::program(&session.world));
    let finished = limited::run(command.args(["doctor", "--json", "--config", daemon::CONFIG]), LIMIT)?;
    let report: Value = serde_json::from_slice(&finished.stdout).with_context(|| finished.describe())?;
    let findings = report["findings"].as_array().context("no findings")?;
    let finding = findings.iter().find(|finding| finding["name"] == "fixed-output-network");
    let finding = finding.context("no finding of the network")?;
    let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    Ok((text("severity"), text("detail")))
}

fn pasta_that_is_insisted_on_and_does_not_work_is_an_error(session: &mut Session) -> Result<()> {
    let started = session.restart_daemon("fixed-output-network = \"pasta\"\n");
    session.restart_daemon("")?;
    let said = format!("{:#}", started.err().context("the daemon started without a way out")?);
    ensure!(said.contains("pasta"), "{said}");
    Ok(())
}

fn way_out() -> Result<WayOut> {
    WayOut::new().map_err(|error| NotHere(format!("no way out of the world: {error:#}")).into())
}

/// What listens in the world, on all of its addresses and under a name.
#[derive(Debug)]
struct Listening {
    port: u16,
    /// Darwin has no such names.
    has_abstract: bool,
}

impl Listening {
    fn start(guest: Guest) -> Result<Self> {
        let all = if has_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let tcp = TcpListener::bind(all)?;
        let port = tcp.local_addr()?.port();
        let name = SocketAddr::from_abstract_name(ABSTRACT)?;
        let named = UnixListener::bind_addr(&name)?;
        for (_, address) in OTHERS.iter().filter(|(_, address)| has_ipv6() || !address.contains(':')) {
            // It may be there already, from an earlier test.
            let _ = ip(&format!("address add {address} dev lo"));
        }
        thread::spawn(move || {
            tcp.incoming().flatten().for_each(|mut stream| drop(stream.write_all(GREETING)))
        });
        thread::spawn(move || {
            named.incoming().flatten().for_each(|mut stream| drop(stream.write_all(GREETING)));
        });
        ensure!(UnixStream::connect_addr(&name)?.read(&mut [0])? == 1, "the abstract socket does not answer");
        Ok(Self { port, has_abstract: guest == Guest::Linux })
    }

    /// Names and addresses of what builders try to reach, whose own interface is called `interface`.
    fn tried(&self, interface: &str) -> Result<Vec<(String, String)>> {
        let mut tried = vec![
            ("loopback", "127.0.0.1".to_owned()),
            ("own", WORLD_ADDRESS.into()),
            // With pasta's default it would be the machine's loopback.
            ("gateway", ADDRESS.into()),
        ];
        if has_ipv6() {
            let link_local = link_local()?;
            tried.extend([
                ("loopback-6", Ipv6Addr::LOCALHOST.to_string()),
                ("own-6", WORLD_ADDRESS_6.into()),
                ("gateway-6", ADDRESS_6.into()),
                ("link-local", format!("{link_local}%{interface}")),
            ]);
        }
        let others = OTHERS.iter().filter(|(_, address)| has_ipv6() || !address.contains(':'));
        tried.extend(others.map(|(name, address)| (*name, (*address).to_owned())));
        let mut tried: Vec<_> = tried.into_iter().map(|(name, address)| (name.to_owned(), address)).collect();
        if self.has_abstract {
            tried.push((ABSTRACT_SOCKET.into(), String::new()));
        }
        Ok(tried)
    }

    /// Names of what a fixed-output build reaches.
    fn reached(&self, session: &Session, interface: &str) -> Result<BTreeSet<String>> {
        let tried = self.tried(interface)?;
        let targets: Vec<String> = tried
            .iter()
            .filter(|(_, address)| !address.is_empty())
            .map(|(name, address)| format!("{name}={address}"))
            .collect();
        let build = Build::of(FILE, "probe").with(&[
            "--argstr",
            "run",
            interface,
            "--argstr",
            "targets",
            &targets.join(" "),
            "--argstr",
            "port",
            &self.port.to_string(),
            "--argstr",
            "abstract",
            if self.has_abstract { ABSTRACT } else { "" },
        ]);
        let built = session.build(&build)?.succeeds()?;
        let said = String::from_utf8_lossy(&built.finished.stderr).into_owned();
        let mut reached = BTreeSet::new();
        for (name, _) in tried {
            let says = |what: &str| said.lines().any(|line| line.ends_with(&format!("{what} {name}")));
            match (says("reached"), says("kept from")) {
                (true, false) => drop(reached.insert(name)),
                (false, true) => {}
                _ => anyhow::bail!("nothing was said of {name}: {}", built.finished.describe()),
            }
        }
        Ok(reached)
    }
}

/// The address that the cable has by itself (RFC 4291).
fn link_local() -> Result<Ipv6Addr> {
    let addresses = std::fs::read_to_string("/proc/net/if_inet6")?;
    let hexadecimal = addresses
        .lines()
        .find(|line| line.starts_with("fe80") && line.ends_with(CABLE))
        .and_then(|line| line.get(..32))
        .context("the cable has no link-local address")?;
    Ok(u128::from_str_radix(hexadecimal, 16)?.into())
}
