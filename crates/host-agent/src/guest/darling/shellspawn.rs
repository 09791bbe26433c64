//! Darling's `shellspawn`, which starts programs in a prefix: its protocol, as Darling's launcher speaks it (2017 to
//! now).
//!
//! Commands on a Unix stream socket: two native-endian 16-bit numbers, kind and length, then so many bytes. The last carries
//! standard input, output and error and starts the program; its exit code comes back as a 32-bit number. When the connection
//! closes before, the program is killed, so the connection is kept for as long as the program shall live.
//!
//! Spoken here, and not by the launcher, because that costs 30 to 50 ms, needs an account for its uid, and passes on its
//! environment.

use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// Where it listens, in a prefix.
pub(super) const SOCKET: &str = "var/run/shellspawn.sock";

const ADD_ARGUMENT: u16 = 1;
const SET_ENVIRONMENT: u16 = 2;
const CHANGE_DIRECTORY: u16 = 3;
const GO: u16 = 4;
const SET_IDS: u16 = 6;
const SET_EXECUTABLE: u16 = 7;

/// What to start.
#[derive(Debug)]
pub(super) struct Program<'a> {
    /// Path, and the first argument.
    pub(super) path: &'a str,
    /// The other arguments.
    pub(super) arguments: &'a [&'a str],
    /// `NAME=value`, added to what `shellspawn` itself has.
    pub(super) environment: &'a [&'a str],
    /// uid and gid, as programs inside are told; no right depends on it.
    pub(super) id: u32,
    /// Input, output, error.
    pub(super) streams: [BorrowedFd<'a>; 3],
}

/// Starts the program.
pub(super) fn start(mut connection: &UnixStream, program: &Program<'_>) -> io::Result<()> {
    connection.write_all(&commands(program)?)?;
    let streams = program.streams.map(|stream| stream.as_raw_fd());
    let rights = [ControlMessage::ScmRights(&streams)];
    let go = command(GO, b"")?;
    sendmsg::<()>(connection.as_raw_fd(), &[IoSlice::new(&go)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

fn commands(program: &Program<'_>) -> io::Result<Vec<u8>> {
    let id = program.id.to_ne_bytes();
    let ids = [id, id].concat();
    let text = |text: &str| [text.as_bytes(), b"\0"].concat();
    let mut commands = Vec::new();
    for variable in program.environment {
        commands.extend(command(SET_ENVIRONMENT, &text(variable))?);
    }
    // Before all arguments: it resets them.
    commands.extend(command(SET_EXECUTABLE, &text(program.path))?);
    for argument in std::iter::once(&program.path).chain(program.arguments) {
        commands.extend(command(ADD_ARGUMENT, &text(argument))?);
    }
    commands.extend(command(CHANGE_DIRECTORY, &text("/"))?);
    commands.extend(command(SET_IDS, &ids)?);
    Ok(commands)
}

fn command(kind: u16, data: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(data.len())
        .map_err(|_| io::Error::other(format!("{} bytes are too many for shellspawn", data.len())))?;
    Ok([&kind.to_ne_bytes(), &length.to_ne_bytes(), data].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_program_is_its_commands_in_the_order_that_shellspawn_needs() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let program = Program {
            path: "/p",
            arguments: &["x"],
            environment: &["A=b"],
            id: 7,
            streams: [null.as_fd(); 3],
        };
        let expected = [
            b"\x02\0\x04\0A=b\0".as_slice(),
            b"\x07\0\x03\0/p\0",
            b"\x01\0\x03\0/p\0",
            b"\x01\0\x02\0x\0",
            b"\x03\0\x02\0/\0",
            b"\x06\0\x08\0\x07\0\0\0\x07\0\0\0",
        ];
        assert_eq!(commands(&program).unwrap(), expected.concat());
        assert!(command(ADD_ARGUMENT, &[0; 65536]).is_err());
    }
}
