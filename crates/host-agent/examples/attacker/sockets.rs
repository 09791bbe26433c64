//! Connects to whatever listens, wherever that is.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::time::Duration;

use crate::call::{all_procs, tell_io, tell_word};

/// `attack ADDRESS…`: paths, `@NAME` for abstract names, `HOST:PORT`; and all that the kernel lists.
pub fn attack(words: &[&str]) {
    let mut addresses: BTreeSet<String> = words.iter().map(|word| (*word).to_owned()).collect();
    for proc in all_procs() {
        let listed = fs::read_to_string(proc.join("self/net/unix")).unwrap_or_default();
        addresses.extend(
            listed.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().nth(7)).map(str::to_owned),
        );
    }
    tell_word("listed", addresses.len());
    for address in addresses {
        if let Some(name) = address.strip_prefix('@') {
            let to = SocketAddr::from_abstract_name(name).unwrap();
            tell_io(format!("connect-@{name}"), UnixStream::connect_addr(&to));
            tell_io(
                format!("send-@{name}"),
                UnixDatagram::unbound().and_then(|socket| socket.connect_addr(&to)),
            );
        } else if address.starts_with('/') {
            tell_io(format!("connect-{address}"), UnixStream::connect(&address));
            tell_io(
                format!("send-{address}"),
                UnixDatagram::unbound().and_then(|socket| socket.connect(&address)),
            );
        } else {
            let to = address.parse().unwrap();
            tell_io(format!("connect-{address}"), TcpStream::connect_timeout(&to, Duration::from_secs(2)));
        }
    }
}
