//! The machine's own addresses, in a network that is joined to the machine's.
//!
//! What is sent to one of them from there would be sent on by a program on this machine, and so reach whatever listens here. So
//! the network has them all itself: what is sent to them does not leave it, and nobody listens.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, recv, send, socket,
};

/// rtnetlink(7).
const RTM_NEWADDR: u16 = libc::RTM_NEWADDR;
/// linux/if_addr.h: no other machine is asked whether it has the address.
const IFA_F_NODAD: u8 = libc::IFA_F_NODAD as u8;
/// netlink(7), of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Every address of the machine that other machines could know, in the network namespace that this process is in.
pub(super) fn of_this_network() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = getifaddrs()?
        .filter_map(|interface| {
            let address = interface.address?;
            match address.family()? {
                AddressFamily::Inet => address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip())),
                AddressFamily::Inet6 => address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())),
                _ => None,
            }
        })
        .filter(|address| !address.is_loopback())
        .collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// Gives them to the network namespace that this process is in, of which `interface` leads out. Needs CAP_NET_ADMIN over it.
pub(super) fn give(addresses: &[IpAddr], interface: &str) -> io::Result<()> {
    let (loopback, outward) = (if_nametoindex("lo")?, if_nametoindex(interface)?);
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    for (number, address) in addresses.iter().enumerate() {
        // One of IPv6 that is for one link only must be on that link.
        let index = if address.is_ipv4() { loopback } else { outward };
        send(socket.as_raw_fd(), &request(number as u32, *address, index), MsgFlags::empty())?;
        let mut reply = [0; 4096];
        let length = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        match refused(reply.get(..length).unwrap_or_default()) {
            // pasta has given it already; or there is no IPv6 on that interface.
            None | Some(Errno::EEXIST) => {}
            Some(Errno::EACCES) if address.is_ipv6() => {}
            Some(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// `struct nlmsghdr`, `struct ifaddrmsg`, attributes.
fn request(number: u32, address: IpAddr, interface: u32) -> Vec<u8> {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let scope = match address {
        IpAddr::V6(address) if is_link_local(address) => libc::RT_SCOPE_LINK,
        IpAddr::V6(_) => libc::RT_SCOPE_UNIVERSE,
        IpAddr::V4(_) => libc::RT_SCOPE_HOST,
    };
    let mut payload = vec![family as u8, 8 * bytes.len() as u8, IFA_F_NODAD, scope];
    payload.extend(interface.to_ne_bytes());
    attribute(&mut payload, libc::IFA_LOCAL, &bytes);
    // `struct ifa_cacheinfo`: never preferred to the address that pasta sends from, valid for ever.
    let lifetimes = [0, u32::MAX, 0, 0].map(u32::to_ne_bytes).concat();
    attribute(&mut payload, libc::IFA_CACHEINFO, &lifetimes);

    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE) as u16;
    let mut message = ((HEADER + payload.len()) as u32).to_ne_bytes().to_vec();
    message.extend(RTM_NEWADDR.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(number.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(payload);
    message
}

/// `struct rtattr` with what follows it; everything here is a multiple of four.
fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend((4 + value.len() as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
}

/// What a `struct nlmsgerr` says, or that it is none.
fn refused(reply: &[u8]) -> Option<Errno> {
    let number =
        reply.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match number {
        Some(0) => None,
        Some(number) => Some(Errno::from_raw(-number)),
        None => Some(Errno::EBADMSG),
    }
}

/// RFC 4291, 2.5.6.
pub(super) fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_rtnetlink_says() {
        let message = request(7, IpAddr::from([10, 1, 2, 3]), 1);
        assert_eq!(message.len(), 16 + 8 + 8 + 20);
        assert_eq!(message[..4], 52u32.to_ne_bytes());
        assert_eq!(message[16..24], [2, 32, 2, 254, 1, 0, 0, 0]);
        assert_eq!(message[24..32], [8, 0, 2, 0, 10, 1, 2, 3]);
        let message = request(7, "fe80::1".parse().unwrap(), 2);
        assert_eq!(message[16..20], [10, 128, 2, 253]);
    }

    #[test]
    fn an_answer_that_is_none_is_no_success() {
        let answer = |error: i32| [&[0; HEADER][..], &error.to_ne_bytes()].concat();
        assert_eq!(refused(&answer(0)), None);
        assert_eq!(refused(&answer(-libc::EEXIST)), Some(Errno::EEXIST));
        assert_eq!(refused(b""), Some(Errno::EBADMSG));
    }

    #[test]
    fn a_network_has_the_addresses_that_it_is_given() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        // A thread can be in a network of its own.
        let given: Vec<IpAddr> = ["10.88.0.1", "10.88.0.2"].map(|address| address.parse().unwrap()).into();
        let wanted = given.clone();
        let has = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            crate::slot::loopback::up().unwrap();
            give(&given, "lo").unwrap();
            // Once more is no error.
            give(&given, "lo").unwrap();
            of_this_network().unwrap()
        });
        assert_eq!(has.join().unwrap(), wanted);
    }
}
