//! What listens on the machine is not there for a builder.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use host_agent::request::Network;

use crate::attack::{Attacker, Told, kernel_has_scopes, skipped};
use crate::harness::{Daemon, darling};

/// Where Nix's daemon, this daemon and others of root's listen, whether or not they do on this machine.
const SERVICES: &[&str] = &[
    "/nix/var/nix/daemon-socket/socket",
    "/run/darling-builder/socket",
    "/run/db/a",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
    "/run/docker.sock",
    "/var/run/docker.sock",
];

/// Tries all of them, a socket at a path, an abstract one and a port of the host's loopback interface.
fn attack(daemon: &Daemon, network: Network, abstract_name: &str) -> (Told, String) {
    let path = daemon.directory.path().join("service");
    let _service = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    let address = SocketAddr::from_abstract_name(abstract_name).unwrap();
    let _hidden = UnixListener::bind_addr(&address).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let port_address = port.local_addr().unwrap().to_string();
    let attacker = Attacker::new(daemon);
    let (own, path) = (daemon.socket(), path.display());
    let services = SERVICES.join(" ");
    let script = format!(
        "$attacker sockets {services} {} {path} @{abstract_name} {port_address}; echo > $out",
        own.display()
    );
    let mut request = attacker.request(&script);
    request.network = network;
    let told = attacker.build(&request);
    assert!(told.is_built(), "{:?} {}", told.done.report, told.log());
    (told, port_address)
}

#[test]
fn no_socket_of_the_machine_can_be_reached_from_a_build() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0");
    let name = format!("hostile-{}-loopback", std::process::id());
    let (told, port) = attack(&daemon, Network::Loopback, &name);
    // Inside Darling its own servers' are found: in its prefix, and by abstract names, which are those of the slot's network.
    let is_guests = |what: &str| darling() && (what.contains("-/var/d/") || what.contains("-@"));
    let reached = told.attempts.iter().filter(|one| one.came == "done" && !is_guests(&one.what));
    let reached: Vec<_> = reached.collect();
    assert!(reached.is_empty(), "{reached:?}");
    for service in SERVICES {
        assert_eq!(told.came_of(&format!("connect-{service}")), "ENOENT", "{service}");
    }
    assert_eq!(told.came_of(&format!("connect-{}", daemon.socket().display())), "ENOENT");
    assert_eq!(told.came_of(&format!("connect-@{name}")), "ECONNREFUSED");
    assert_eq!(told.came_of(&format!("connect-{port}")), "ECONNREFUSED");
}

#[test]
fn with_a_network_no_socket_of_the_machines_files_or_abstract_names_can_be_reached() {
    if skipped() {
        return;
    }
    for network in ["host", "auto"] {
        let daemon = Daemon::start(&format!("warm-slots = 0\nfixed-output-network = \"{network}\""));
        let name = format!("hostile-{}-{network}", std::process::id());
        let (told, _) = attack(&daemon, Network::Outside, &name);
        for service in SERVICES {
            assert_eq!(told.came_of(&format!("connect-{service}")), "ENOENT", "{service}");
        }
        assert_eq!(told.came_of(&format!("connect-{}", daemon.socket().display())), "ENOENT");
        let came = told.came_of(&format!("connect-@{name}"));
        // In the host's network namespace it is Landlock that keeps it from that; in one of its own there is no such name.
        let wanted: &[&str] = match (network, kernel_has_scopes()) {
            ("host", true) => &["EPERM"],
            ("host", false) => &["done"],
            (_, true) => &["EPERM", "ECONNREFUSED"],
            _ => &["done", "ECONNREFUSED"],
        };
        assert!(wanted.contains(&came), "{network}: {came}");
    }
}
