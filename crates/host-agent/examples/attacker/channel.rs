//! Descriptors on their way out of a slot that has the host's network, through abstract sockets: both ends, inside and outside.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::call::{call, eventually, pointer, tell_io, tell_word};

/// A test that has been ended must not leave the accomplice for ever.
const LONGEST: Duration = Duration::from_secs(60);

pub fn attack(words: &[&str]) {
    let address = |name: &str| SocketAddr::from_abstract_name(name).unwrap();
    match words {
        // Inside: to an accomplice who listens.
        ["send", name, paths @ ..] => {
            let connected = UnixStream::connect_addr(&address(name));
            if let Ok(stream) = &connected {
                send(stream, paths);
            }
            tell_io("send", connected);
        }
        // Inside: to an accomplice who comes.
        ["offer", name, paths @ ..] => {
            let listener = UnixListener::bind_addr(&address(name)).unwrap();
            listener.set_nonblocking(true).unwrap();
            let mut accepted = None;
            eventually(Duration::from_secs(5), || {
                accepted = listener.accept().ok();
                accepted.is_some()
            });
            if let Some((stream, _)) = &accepted {
                send(stream, paths);
            }
            tell_word("offer", if accepted.is_some() { "taken" } else { "refused" });
        }
        // Outside.
        ["accept", name] => {
            let listener = UnixListener::bind_addr(&address(name)).unwrap();
            println!("listens");
            meddle(&receive(&listener.accept().unwrap().0));
        }
        ["fetch", name] => {
            println!("listens");
            let mut stream = None;
            eventually(LONGEST, || {
                stream = UnixStream::connect_addr(&address(name)).ok();
                stream.is_some()
            });
            meddle(&receive(&stream.unwrap()));
        }
        _ => panic!("{words:?}"),
    }
}

/// Files to be written, directories to be entered.
fn send(stream: &UnixStream, paths: &[&str]) {
    let opened: Vec<File> = paths
        .iter()
        .map(|path| File::options().read(true).write(true).open(path).or_else(|_| File::open(path)).unwrap())
        .collect();
    let fds: Vec<RawFd> = opened.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(b"f")], &rights, MsgFlags::empty(), None).unwrap();
    // Until they are held.
    let mut byte = [0];
    let _ = std::io::Read::read(&mut &*stream, &mut byte);
}

fn receive(mut stream: &UnixStream) -> Vec<OwnedFd> {
    let mut byte = [0];
    let mut control = nix::cmsg_space!([RawFd; 8]);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()).unwrap();
    let mut received = Vec::new();
    for control in message.cmsgs().unwrap() {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel has just made them for this process.
            received.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    println!("holds {}", received.len());
    let _ = std::io::Write::write(&mut stream, b"x");
    received
}

/// Writes into files and exchanges `file` and `link` in directories, for ever.
fn meddle(held: &[OwnedFd]) {
    let end = Instant::now() + LONGEST;
    let held: Vec<File> = held.iter().map(|fd| File::from(fd.try_clone().unwrap())).collect();
    let (file, link) = (pointer("file"), pointer("link"));
    while Instant::now() < end {
        for one in &held {
            let fd = one.as_raw_fd() as u64;
            if one.write_all_at(b"by the accomplice", 0).is_err() {
                let _ = call(libc::SYS_renameat2, &[fd, file, fd, link, libc::RENAME_EXCHANGE.into()]);
            }
        }
    }
}
