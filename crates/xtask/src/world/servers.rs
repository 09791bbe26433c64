//! Servers on a second machine: one to download from, and one that knows its name.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::{Context, Result};

/// The name that the name server knows.
pub const NAME: &str = "downloads.example";
/// Where it can be downloaded from.
pub const PORT: u16 = 8080;
/// What is there.
pub const CONTENTS: &str = "hello\n";

/// RFC 1035, 4.1.1: the part of a message before its question.
const HEADER: usize = 12;

/// Starts both on this address; they serve as long as this process is there, or the network that its caller is in.
pub fn start(address: Ipv4Addr) -> Result<()> {
    let files = TcpListener::bind((address, PORT)).context("failed to listen")?;
    let names = UdpSocket::bind((address, 53)).context("failed to listen for queries")?;
    thread::spawn(move || {
        for stream in files.incoming().map_while(Result::ok) {
            let _ = give(stream);
        }
    });
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = names.recv_from(&mut query) {
            if let Some(answer) = answer(&query[..length], address.octets()) {
                let _ = names.send_to(&answer, from);
            }
        }
    });
    Ok(())
}

/// HTTP/1.0: whatever is asked for.
fn give(mut stream: TcpStream) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{CONTENTS}", CONTENTS.len())?;
    Ok(())
}

/// The answer to a query (RFC 1035): this address if it is for the name's, nothing if it is for another thing of it.
fn answer(query: &[u8], address: [u8; 4]) -> Option<Vec<u8>> {
    let question = query.get(HEADER..)?;
    let name: Vec<u8> = NAME
        .split('.')
        .flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes()))
        .chain([0])
        .collect();
    let (asked, rest) = question.split_at_checked(name.len())?;
    let known = asked.eq_ignore_ascii_case(&name);
    // Type A, class IN.
    let has_one = known && rest.starts_with(&[0, 1, 0, 1]);
    let mut answer = query[..2].to_vec();
    // A response, with authority and recursion; "no such name" if that is so.
    answer.extend([0x85, if known { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(has_one), 0, 0, 0, 0]);
    answer.extend(asked);
    answer.extend(rest.get(..4)?);
    if has_one {
        // The name is that of the question; type, class, a lifetime of nothing, four bytes.
        answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address);
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &[u8], kind: u8) -> Vec<u8> {
        [&[7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], name, &[0, kind, 0, 1]].concat()
    }

    #[test]
    fn the_name_has_one_address_and_nothing_else() {
        let name = b"\x09downloads\x07example\0";
        let found = answer(&query(name, 1), [10, 77, 0, 2]).unwrap();
        assert_eq!(found[..2], [7, 9]);
        assert!(found.ends_with(&[0, 4, 10, 77, 0, 2]));
        let no_ipv6 = answer(&query(name, 28), [10, 77, 0, 2]).unwrap();
        assert_eq!((no_ipv6[3] & 15, no_ipv6[7]), (0, 0));
        let unknown = answer(&query(b"\x09elsewhere\x07example\0", 1), [10, 77, 0, 2]).unwrap();
        assert_eq!((unknown[3] & 15, unknown[7]), (3, 0));
        assert!(answer(b"short", [10, 77, 0, 2]).is_none());
    }
}
