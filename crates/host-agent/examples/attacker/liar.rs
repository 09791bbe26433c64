//! An agent that lies: it speaks the protocol, and then says what no agent may say.
//!
//! Which lie is told by the end of its own file (`LIE=…`) for those that come with the greeting, else by the environment of the builder
//! that it is asked to run. Without a lie it makes the output `out` and reports success.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use protocol::frame;
use protocol::hello::{Channel, Hello};
use protocol::limits::CHUNK_MAX;
use protocol::message::{Exit, FromAgent, Stream, ToAgent, Usage};

use crate::call::pause;

/// Before the value, at the end of the file. Put together so that it is not in the program itself.
fn mark() -> Vec<u8> {
    [b"\nLI".as_slice(), b"E="].concat()
}

const FOR_EVER: Duration = Duration::from_secs(3600);

pub fn serve(socket: &str) {
    let below_root = socket.strip_prefix("/Volumes/SystemRoot").filter(|_| !Path::new(socket).exists());
    let socket = below_root.unwrap_or(socket);
    let file = std::fs::read("/proc/self/exe").unwrap();
    let mark = mark();
    let lie = match file.windows(mark.len()).rposition(|window| window == mark) {
        Some(at) => String::from_utf8_lossy(&file[at + mark.len()..]).into_owned(),
        None => String::new(),
    };
    drop(file);
    let mut hello = Hello::ours(Channel::Control, "attacker");
    match &*lie {
        "greeting-garbage" => return say_raw(socket, &[0xee; 200]),
        "greeting-huge" => return say_raw(socket, &[0xff; 4]),
        "greeting-silent" => return say_raw(socket, b""),
        "greeting-dripping" => return drip(socket, &frame::encode(&hello).unwrap()),
        "greeting-version" => hello.version_min = 99,
        "greeting-identity" => return say_raw(socket, &with_a_name_for_terminals()),
        "greeting-many" => {
            let all: Vec<UnixStream> = (0..100).map_while(|_| UnixStream::connect(socket).ok()).collect();
            std::thread::sleep(FOR_EVER);
            drop(all);
        }
        _ => {}
    }
    let mut control = greet(socket, &hello);
    let ticks = greet(socket, &Hello::ours(Channel::Tick, "attacker"));
    if lie == "deaf" {
        answer_ticks(ticks, "");
    } else {
        let told = until_started(&mut control);
        lie_as_told(control, ticks, &told);
    }
}

fn greet(socket: &str, hello: &Hello) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    frame::write(&mut stream, hello).unwrap();
    let _: Option<Hello> = frame::read(&mut stream).unwrap();
    stream
}

fn say_raw(socket: &str, bytes: &[u8]) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(bytes).unwrap();
    std::thread::sleep(FOR_EVER);
}

/// A greeting whose name would set a terminal's title.
fn with_a_name_for_terminals() -> Vec<u8> {
    const NAME: &[u8; 10] = b"\x1b]0;pwned\x07";
    let mut bytes = frame::encode(&Hello::ours(Channel::Control, "AAAAAAAAAA")).unwrap();
    let at = bytes.windows(NAME.len()).position(|window| window == b"AAAAAAAAAA").unwrap();
    bytes[at..at + NAME.len()].copy_from_slice(NAME);
    bytes
}

fn drip(socket: &str, bytes: &[u8]) {
    let mut stream = UnixStream::connect(socket).unwrap();
    for byte in bytes {
        let _ = stream.write_all(&[*byte]);
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[derive(Default)]
struct Told {
    lie: String,
    out: String,
}

/// Reads until the builder is to be started.
fn until_started(control: &mut UnixStream) -> Told {
    let mut told = Told::default();
    while let Ok(Some(message)) = frame::read::<ToAgent>(control) {
        match message {
            ToAgent::Environment(variables) => {
                for (name, value) in variables {
                    let value = String::from_utf8_lossy(&value).into_owned();
                    match &name[..] {
                        b"LIE" => told.lie = value,
                        b"out" => told.out = value,
                        _ => {}
                    }
                }
                if told.lie == "early" {
                    let _ = frame::write(control, &exited(Exit::Code(0)));
                }
            }
            ToAgent::Start => break,
            _ => {}
        }
    }
    told
}

fn exited(exit: Exit) -> FromAgent {
    FromAgent::Exited { exit, usage: Usage::default() }
}

fn output(bytes: &[u8]) -> FromAgent {
    FromAgent::Output { stream: Stream::Pty, at_micros: 0, bytes: bytes.into() }
}

fn lie_as_told(mut control: UnixStream, ticks: UnixStream, told: &Told) {
    let started = FromAgent::Started { pid: 42 };
    let say = |control: &mut UnixStream, messages: &[FromAgent]| {
        messages.iter().try_for_each(|message| frame::write(control, message)).is_ok()
    };
    let lie = told.lie.clone();
    std::thread::spawn(move || answer_ticks(ticks, &lie));
    if told.lie != "unstarted" {
        say(&mut control, std::slice::from_ref(&started));
    }
    let end = |exit| vec![exited(exit)];
    let messages = match &*told.lie {
        "" | "unstarted" | "tick-flood-after" => {
            std::fs::write(&told.out, "honest").unwrap();
            vec![output(b"hello\n"), exited(Exit::Code(0))]
        }
        "twice" => {
            std::fs::write(&told.out, "honest").unwrap();
            vec![exited(Exit::Code(0)), exited(Exit::Code(1)), started]
        }
        "started-twice" => vec![started],
        "claims" => vec![output(b"made it\n"), exited(Exit::Code(0))],
        "code-high" => end(Exit::Code(i32::MAX)),
        "code-negative" => end(Exit::Code(-1)),
        "code-beyond" => end(Exit::Code(256)),
        "signal-none" => end(Exit::Signal(0)),
        "signal-negative" => end(Exit::Signal(i32::MIN)),
        "signal-high" => end(Exit::Signal(4711)),
        "timed-out" => end(Exit::TimedOut),
        "was-silent" => end(Exit::Silent),
        "log-limit" => end(Exit::LogLimit),
        "killed" => end(Exit::Killed),
        "usage" => {
            std::fs::write(&told.out, "honest").unwrap();
            let most = u64::MAX;
            let usage =
                Usage { wall_micros: most, user_micros: most, system_micros: most, max_rss_bytes: most };
            vec![FromAgent::Exited { exit: Exit::Code(0), usage }]
        }
        "spawn-text" => {
            let step = "line\n\x1b]0;pwned\x07@nix {\"action\":\"msg\"}\r\u{202e}".repeat(20_000);
            end(Exit::SpawnFailed { step, errno: i32::MIN })
        }
        "output-late" => {
            std::fs::write(&told.out, "honest").unwrap();
            let late = FromAgent::Output { stream: Stream::Stderr, at_micros: u64::MAX, bytes: "x".into() };
            vec![late, exited(Exit::Code(0))]
        }
        "output-large" => vec![output(&vec![b'x'; 1_000_000])],
        "pong" => vec![FromAgent::Pong(1)],
        "input-taken" => vec![FromAgent::InputTaken],
        "diagnostics" => {
            let system = "x".repeat(1_000_000);
            vec![FromAgent::Diagnostics { system, processes: Vec::new(), agent_rss_bytes: 0 }]
        }
        _ => Vec::new(),
    };
    say(&mut control, &messages);
    match &*told.lie {
        "frame-huge" => drop(control.write_all(&u32::MAX.to_le_bytes())),
        "frame-garbage" => drop(control.write_all(&[&[100, 0, 0, 0][..], &[0xee; 100]].concat())),
        "frame-cut" => {
            let _ = control.write_all(&[100, 0, 0, 0, 1, 2, 3]);
            return;
        }
        "gone" => return,
        "pong-flood" => flood(&mut control, &FromAgent::Pong(7)),
        "output-flood" => flood(&mut control, &output(&[b'x'; CHUNK_MAX])),
        "empty-flood" => flood(&mut control, &output(b"")),
        _ => {}
    }
    pause();
}

/// Many in one write, so that the daemon always has one that it has not looked at.
fn flood(control: &mut UnixStream, message: &FromAgent) {
    let one = frame::encode(message).unwrap();
    let many = one.repeat((1 << 18) / one.len() + 1);
    while control.write_all(&many).is_ok() {}
}

fn answer_ticks(mut ticks: UnixStream, lie: &str) {
    if lie == "silent" {
        pause();
    }
    if lie.starts_with("tick-flood") {
        while ticks.write_all(&[b't'; 1 << 16]).is_ok() {}
    }
    let mut byte = [0];
    while ticks.read_exact(&mut byte).is_ok() {
        let _ = ticks.write_all(&byte);
    }
}
