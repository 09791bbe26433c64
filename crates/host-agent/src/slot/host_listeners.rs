//! Whether what listens on this machine can be reached from a network that is to keep it out of reach: tried, with listeners made for
//! that, on each of the machine's addresses and under a name of their own.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};

/// Nothing but this machine answers, and it does at once.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// They listen as long as this lives. Nobody is ever accepted.
#[derive(Debug)]
pub(super) struct HostListeners {
    _tcp: Vec<TcpListener>,
    _named: UnixListener,
    targets: HostTargets,
}

/// Where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTargets {
    tcp: Vec<SocketAddr>,
    name: String,
}

impl HostListeners {
    pub(super) fn new() -> io::Result<Self> {
        let name = format!("darling-builder-{:016x}", RandomState::new().hash_one(std::process::id()));
        let named = UnixListener::bind_addr(&UnixAddress::from_abstract_name(&name)?)?;
        let mut addresses: Vec<SocketAddr> =
            vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
        for address in getifaddrs()?.filter_map(|interface| interface.address) {
            if let Some(address) = address.as_sockaddr_in() {
                addresses.push((address.ip(), 0).into());
            } else if let Some(address) = address.as_sockaddr_in6() {
                addresses.push(std::net::SocketAddrV6::new(address.ip(), 0, 0, address.scope_id()).into());
            }
        }
        // One that can't be listened on (there is no IPv6, or it is still being tested for duplicates) is nobody's.
        let tcp: Vec<TcpListener> =
            addresses.iter().filter_map(|address| TcpListener::bind(address).ok()).collect();
        let targets = tcp.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        Ok(Self { _tcp: tcp, _named: named, targets: HostTargets { tcp: targets, name } })
    }

    pub(super) fn targets(&self) -> &HostTargets {
        &self.targets
    }
}

impl HostTargets {
    /// The first that can be reached from the network that this process is in, of which `interface` leads out.
    pub(super) fn reached(&self, interface: &str) -> io::Result<Option<String>> {
        let name = UnixAddress::from_abstract_name(&self.name)?;
        if UnixStream::connect_addr(&name).is_ok() {
            return Ok(Some("abstract sockets".into()));
        }
        let scope = if_nametoindex(interface)?;
        let reached = self.tcp.iter().find(|address| {
            let mut address = **address;
            if let SocketAddr::V6(address) = &mut address
                && address.scope_id() != 0
            {
                address.set_scope_id(scope);
            }
            TcpStream::connect_timeout(&address, ANSWER_LIMIT).is_ok()
        });
        Ok(reached.map(|address| what_listens_on(address.ip())))
    }
}

fn what_listens_on(address: IpAddr) -> String {
    format!("what listens on {address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_reaches_itself() {
        let listeners = HostListeners::new().unwrap();
        assert_eq!(listeners.targets().reached("lo").unwrap().unwrap(), "abstract sockets");
        let targets = HostTargets { name: "nobody-has-this-name".into(), ..listeners.targets().clone() };
        assert_eq!(targets.reached("lo").unwrap().unwrap(), "what listens on 127.0.0.1");
        drop(listeners);
        assert_eq!(targets.reached("lo").unwrap(), None);
    }
}
