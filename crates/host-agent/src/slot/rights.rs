//! Frames with descriptors attached, over a Unix socket.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use protocol::frame::{self, FrameError, HEADER_LEN};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Descriptors with one message, at most.
const ATTACHED_MAX: usize = 2;

/// Sends one message, its first byte carrying `attached`.
pub fn send<T: Serialize>(
    mut socket: &UnixStream,
    message: &T,
    attached: &[BorrowedFd<'_>],
) -> Result<(), FrameError> {
    let frame = frame::encode(message)?;
    let fds: Vec<RawFd> = attached.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let sent = sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(&frame)],
        if fds.is_empty() { &[] } else { &rights },
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .map_err(io::Error::from)?;
    Ok(socket.write_all(&frame[sent..])?)
}

/// Receives one message and the descriptors that came with it; `None` when the peer has closed.
pub fn receive<T: DeserializeOwned>(
    mut socket: &UnixStream,
) -> Result<Option<(T, Vec<OwnedFd>)>, FrameError> {
    let mut header = [0; HEADER_LEN];
    let mut control = nix::cmsg_space!([RawFd; ATTACHED_MAX]);
    let mut attached = Vec::new();
    let read = {
        let mut parts = [IoSliceMut::new(&mut header)];
        let message =
            recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)
                .map_err(io::Error::from)?;
        for control in message.cmsgs().map_err(io::Error::from)? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                attached.extend(fds.into_iter().map(own));
            }
        }
        message.bytes
    };
    if read == 0 {
        return Ok(None);
    }
    let truncated = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Truncated,
        _ => FrameError::Io(error),
    };
    socket.read_exact(&mut header[read..]).map_err(truncated)?;
    let mut payload = vec![0; frame::payload_len(header)?];
    socket.read_exact(&mut payload).map_err(truncated)?;
    Ok(Some((frame::decode(&payload)?, attached)))
}

/// Sends a descriptor with nothing else. Makes plain system calls and small allocations only.
pub(crate) fn pass(socket: &UnixStream, fd: &OwnedFd) -> io::Result<()> {
    let fds = [fd.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(b"f")], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives what [`pass`] sent.
pub(crate) fn take(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut control = nix::cmsg_space!(RawFd);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    message
        .cmsgs()?
        .find_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => fds.into_iter().map(own).next_back(),
            _ => None,
        })
        .ok_or_else(|| io::Error::other("no descriptor came"))
}

#[expect(unsafe_code, reason = "a descriptor received over a socket has no other owner")]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just installed it in this process for this message.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
