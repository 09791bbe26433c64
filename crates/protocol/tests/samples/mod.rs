//! One message of every variant, with its payload in hex, and generators for arbitrary ones.
#![allow(dead_code, reason = "each test file uses its part")]

use proptest::prelude::*;
use protocol::ByteString;
use protocol::hello::{Channel, Features, Hello, Identity, MAGIC};
use protocol::message::{
    Exit, FromAgent, ProcessEntry, ResourceLimits, Stream, Streams, TerminalSize, ToAgent, Usage,
};

pub fn to_agent() -> Vec<ToAgent> {
    vec![
        ToAgent::Prepare {
            program: "/bin/sh".into(),
            directory: "/build".into(),
            streams: Streams::Pty,
            umask: 0o022,
        },
        ToAgent::Prepare {
            program: b"/\xff".into(),
            directory: "/".into(),
            streams: Streams::Pipes,
            umask: 0o077,
        },
        ToAgent::Prepare {
            program: "/bin/bash".into(),
            directory: "/build".into(),
            streams: Streams::Terminal(TerminalSize { rows: 24, columns: 80 }),
            umask: 0o022,
        },
        ToAgent::Prepare {
            program: "/bin/cat".into(),
            directory: "/build".into(),
            streams: Streams::PipesWithInput,
            umask: 0o022,
        },
        ToAgent::Arguments(vec!["sh".into(), "-e".into(), "".into()]),
        ToAgent::Environment(vec![("A".into(), "1".into()), ("B".into(), b"\0\xfe".into())]),
        ToAgent::Limits(ResourceLimits { core: 0, file_size: None }),
        ToAgent::Limits(ResourceLimits { core: u64::MAX, file_size: Some(1 << 32) }),
        ToAgent::Start,
        ToAgent::Signal(15),
        ToAgent::Ping(0x0102_0304_0506_0708),
        ToAgent::Diagnose,
        ToAgent::Input("ls\n".into()),
        ToAgent::Resize(TerminalSize { rows: 50, columns: 300 }),
    ]
}

pub fn to_agent_name(message: &ToAgent) -> &'static str {
    // Exhaustive on purpose: a new variant needs a sample.
    match message {
        ToAgent::Prepare { .. } => "Prepare",
        ToAgent::Arguments(_) => "Arguments",
        ToAgent::Environment(_) => "Environment",
        ToAgent::Limits(_) => "Limits",
        ToAgent::Start => "Start",
        ToAgent::Signal(_) => "Signal",
        ToAgent::Ping(_) => "Ping",
        ToAgent::Diagnose => "Diagnose",
        ToAgent::Input(_) => "Input",
        ToAgent::Resize(_) => "Resize",
    }
}

pub fn from_agent() -> Vec<FromAgent> {
    let usage = Usage { wall_micros: 1_500_000, user_micros: 2, system_micros: 3, max_rss_bytes: 4096 };
    let output = |stream| FromAgent::Output { stream, at_micros: 258, bytes: "hi\n".into() };
    let exited = |exit| FromAgent::Exited { exit, usage };
    vec![
        FromAgent::Started { pid: 42 },
        output(Stream::Pty),
        output(Stream::Stdout),
        output(Stream::Stderr),
        exited(Exit::Code(0)),
        exited(Exit::Signal(9)),
        exited(Exit::SpawnFailed { step: "execve /x".into(), errno: 2 }),
        exited(Exit::TimedOut),
        exited(Exit::Silent),
        exited(Exit::LogLimit),
        exited(Exit::Killed),
        FromAgent::Pong(7),
        FromAgent::Diagnostics {
            system: "Darwin 20.6.0 x86_64".into(),
            processes: vec![ProcessEntry { pid: 3, parent: 2, command: "sleep 9".into() }],
            agent_rss_bytes: 1 << 21,
        },
        FromAgent::InputTaken,
    ]
}

pub fn from_agent_name(message: &FromAgent) -> &'static str {
    match message {
        FromAgent::Started { .. } => "Started",
        FromAgent::Output { stream, .. } => match stream {
            Stream::Pty => "Output Pty",
            Stream::Stdout => "Output Stdout",
            Stream::Stderr => "Output Stderr",
        },
        FromAgent::Exited { exit, .. } => match exit {
            Exit::Code(_) => "Exited Code",
            Exit::Signal(_) => "Exited Signal",
            Exit::SpawnFailed { .. } => "Exited SpawnFailed",
            Exit::TimedOut => "Exited TimedOut",
            Exit::Silent => "Exited Silent",
            Exit::LogLimit => "Exited LogLimit",
            Exit::Killed => "Exited Killed",
        },
        FromAgent::Pong(_) => "Pong",
        FromAgent::Diagnostics { .. } => "Diagnostics",
        FromAgent::InputTaken => "InputTaken",
    }
}

pub fn hello() -> Vec<Hello> {
    let hello = |channel| Hello {
        magic: MAGIC,
        version_min: 1,
        version_max: 2,
        features: Features(5),
        channel,
        identity: Identity::made_of("darwin-agent 0.1.0"),
    };
    vec![hello(Channel::Control), hello(Channel::Tick)]
}

pub fn any_bytes() -> impl Strategy<Value = ByteString> {
    prop::collection::vec(any::<u8>(), 0..200).prop_map(ByteString::from)
}

pub fn any_to_agent() -> impl Strategy<Value = ToAgent> {
    let size = || any::<(u16, u16)>().prop_map(|(rows, columns)| TerminalSize { rows, columns });
    let streams = prop_oneof![
        Just(Streams::Pty),
        Just(Streams::Pipes),
        size().prop_map(Streams::Terminal),
        Just(Streams::PipesWithInput)
    ];
    prop_oneof![
        (any_bytes(), any_bytes(), streams, any::<u32>()).prop_map(|(program, directory, streams, umask)| {
            ToAgent::Prepare { program, directory, streams, umask }
        }),
        prop::collection::vec(any_bytes(), 0..20).prop_map(ToAgent::Arguments),
        prop::collection::vec((any_bytes(), any_bytes()), 0..20).prop_map(ToAgent::Environment),
        (any::<u64>(), any::<Option<u64>>())
            .prop_map(|(core, file_size)| ToAgent::Limits(ResourceLimits { core, file_size })),
        Just(ToAgent::Start),
        any::<i32>().prop_map(ToAgent::Signal),
        any::<u64>().prop_map(ToAgent::Ping),
        Just(ToAgent::Diagnose),
        any_bytes().prop_map(ToAgent::Input),
        size().prop_map(ToAgent::Resize),
    ]
}

fn any_exit() -> impl Strategy<Value = Exit> {
    prop_oneof![
        any::<i32>().prop_map(Exit::Code),
        any::<i32>().prop_map(Exit::Signal),
        (".{0,40}", any::<i32>()).prop_map(|(step, errno)| Exit::SpawnFailed { step, errno }),
        Just(Exit::TimedOut),
        Just(Exit::Silent),
        Just(Exit::LogLimit),
        Just(Exit::Killed),
    ]
}

pub fn any_from_agent() -> impl Strategy<Value = FromAgent> {
    let stream = prop_oneof![Just(Stream::Pty), Just(Stream::Stdout), Just(Stream::Stderr)];
    let usage = any::<[u64; 4]>().prop_map(|[wall_micros, user_micros, system_micros, max_rss_bytes]| {
        Usage { wall_micros, user_micros, system_micros, max_rss_bytes }
    });
    let process = (any::<i32>(), any::<i32>(), any_bytes()).prop_map(|(pid, parent, command)| ProcessEntry {
        pid,
        parent,
        command,
    });
    prop_oneof![
        any::<i32>().prop_map(|pid| FromAgent::Started { pid }),
        (stream, any::<u64>(), any_bytes()).prop_map(|(stream, at_micros, bytes)| FromAgent::Output {
            stream,
            at_micros,
            bytes
        }),
        (any_exit(), usage).prop_map(|(exit, usage)| FromAgent::Exited { exit, usage }),
        any::<u64>().prop_map(FromAgent::Pong),
        (".{0,40}", prop::collection::vec(process, 0..10), any::<u64>()).prop_map(
            |(system, processes, agent_rss_bytes)| FromAgent::Diagnostics {
                system,
                processes,
                agent_rss_bytes
            }
        ),
        Just(FromAgent::InputTaken),
    ]
}

pub fn any_hello() -> impl Strategy<Value = Hello> {
    let channel = prop_oneof![Just(Channel::Control), Just(Channel::Tick)];
    (any::<u32>(), any::<u32>(), any::<u64>(), channel, ".{0,60}").prop_map(
        |(version_min, version_max, features, channel, identity)| Hello {
            magic: MAGIC,
            version_min,
            version_max,
            features: Features(features),
            channel,
            identity: Identity::made_of(&identity),
        },
    )
}
