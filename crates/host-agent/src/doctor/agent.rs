//! The agent's file: there, of the right kind, and open to everybody, since a slot's uid executes it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use super::Finding;
use crate::config::{Config, GuestKind};
use crate::guest::{agent_file, darling, linux};

/// What a program is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    LinuxX86,
    DarwinX86,
    DarwinArm,
    Other,
}

impl Kind {
    /// From the first bytes: `elf.h` (e_machine at 18, EM_X86_64 = 62) and `mach-o/loader.h` (magic, cputype).
    fn of(head: &[u8]) -> Self {
        match head {
            [0x7f, b'E', b'L', b'F', 2, 1, ..] if head.get(18..20) == Some(&[62, 0]) => Kind::LinuxX86,
            [0xcf, 0xfa, 0xed, 0xfe, 7, 0, 0, 1, ..] => Kind::DarwinX86,
            [0xcf, 0xfa, 0xed, 0xfe, 12, 0, 0, 1, ..] => Kind::DarwinArm,
            _ => Kind::Other,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Kind::LinuxX86 => "an x86_64 program for Linux",
            Kind::DarwinX86 => "an x86_64 program for Darwin",
            Kind::DarwinArm => "an arm64 program for Darwin",
            Kind::Other => "neither a program for Linux nor one for Darwin, both x86_64",
        }
    }
}

pub(super) fn finding(config: &Config) -> Finding {
    const NAME: &str = "agent";
    let (name, wanted, make) = match config.guest {
        GuestKind::Darling => (
            darling::AGENT_NAME,
            Kind::DarwinX86,
            "make it with `cargo xtask darwin` and install it as ../libexec/darling-builder/darwin-agent-macho, or set `agent`",
        ),
        GuestKind::Linux => (
            linux::AGENT_NAME,
            Kind::LinuxX86,
            "make it with `cargo build -p darwin-agent` and install it beside host-agent, or set `agent`",
        ),
    };
    let path = match agent_file::find(config.agent.as_deref(), name) {
        Ok(path) => path,
        Err(error) => return Finding::broken(NAME, error, make),
    };
    let shown = path.display();
    let mut head = Vec::new();
    let mode = match File::open(&path).and_then(|file| {
        let mode = file.metadata()?.permissions().mode();
        file.take(64).read_to_end(&mut head)?;
        Ok(mode)
    }) {
        Ok(mode) => mode,
        Err(error) => return Finding::broken(NAME, format!("{shown}: {error}"), make),
    };
    let kind = Kind::of(&head);
    if kind != wanted {
        let detail = format!(
            "{shown} is {}, and guest `{}` needs {}",
            kind.as_str(),
            config.guest.as_str(),
            wanted.as_str()
        );
        return Finding::broken(NAME, detail, make);
    }
    if mode & 0o005 != 0o005 {
        return Finding::broken(
            NAME,
            format!("{shown} has mode {:04o}, and slots execute it with uids of their own", mode & 0o7777),
            format!("chmod 0755 {shown}"),
        );
    }
    Finding::fine(NAME, format!("{shown}, {}", kind.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_programs_are_told_apart() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(Kind::of(&own[..64]), Kind::LinuxX86);
        assert_eq!(Kind::of(&[0xcf, 0xfa, 0xed, 0xfe, 7, 0, 0, 1, 3, 0, 0, 0]), Kind::DarwinX86);
        assert_eq!(Kind::of(&[0xcf, 0xfa, 0xed, 0xfe, 12, 0, 0, 1, 0, 0, 0, 0]), Kind::DarwinArm);
        for other in [&b"#!/bin/sh\n"[..], b"", b"\x7fELF", &[0xca, 0xfe, 0xba, 0xbe]] {
            assert_eq!(Kind::of(other), Kind::Other);
        }
    }
}
