//! 4: the Mach-O agent starts in a slot, greets, and carries data, exit statuses and signals both ways.

use std::fs::{self, File};
use std::io::Read;

use anyhow::{Context, Result, ensure};

use crate::vm_test::machine::Machine;
use crate::vm_test::stage::{Need, Sabotage, Stage};

/// The stage.
pub const STAGE: Stage = Stage {
    number: 4,
    name: "agent",
    purpose: "the Mach-O agent starts in a slot, greets, carries data and exit statuses both ways",
    needs: &[Need::Darling],
    limit: 180,
    run,
    across_reset: None,
    sabotage: Sabotage { what: "the configuration names a Linux program as the agent", act: sabotage },
};

/// How a Mach-O file of 64 bits begins.
const MACH_O: [u8; 4] = [0xcf, 0xfa, 0xed, 0xfe];
/// Bytes sent through a slot and back.
const BYTES: usize = 1 << 20;

fn run(machine: &mut Machine) -> Result<()> {
    let findings = machine.doctor()?;
    for name in ["agent", "agent-handshake", "agent-round-trip"] {
        let finding = findings.iter().find(|finding| finding["name"] == name);
        let finding = finding.with_context(|| format!("doctor has no finding {name}: no slot booted?"))?;
        let detail = finding["detail"].as_str().unwrap_or_default();
        ensure!(finding["severity"] == "fine", "doctor: {name}: {detail}");
        machine.say(format!("{name}: {detail}"));
        if name == "agent" {
            let file = detail.split(',').next().unwrap_or_default();
            let mut magic = [0; 4];
            File::open(file)
                .and_then(|mut file| file.read_exact(&mut magic))
                .with_context(|| format!("failed to read {file}"))?;
            ensure!(magic == MACH_O, "{file} is no Mach-O program of 64 bits: it begins with {magic:02x?}");
        }
    }
    round_trip(machine)?;
    for (script, expected) in [("exit 42", 42), ("kill -KILL $$", 137), ("kill -SEGV $$", 139)] {
        let shell = machine.run(&mut machine.host_agent(&["shell", "--", "sh", "-c", script]), 60)?;
        let code = shell.status.code();
        ensure!(code == Some(expected), "expected {expected} of `{script}`: {}", shell.describe());
    }
    machine.say("exit statuses and signals arrive");
    Ok(())
}

fn round_trip(machine: &Machine) -> Result<()> {
    let file = machine.scratch("round-trip");
    let sent: Vec<u8> = (0..BYTES as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(&file, &sent)?;
    let mut cat = machine.root("sh");
    cat.args(["-c", "exec host-agent shell -- cat < \"$0\""]).arg(&file);
    let finished = machine.run(&mut cat, 60)?.must_succeed()?;
    fs::remove_file(&file)?;
    let back = finished.stdout;
    ensure!(back == sent, "{} bytes came back of {BYTES}, and not the same", back.len());
    machine.say(format!("{BYTES} bytes went in and came back in {:.1} s", finished.wall.as_secs_f64()));
    Ok(())
}

fn sabotage(machine: &mut Machine) -> Result<()> {
    machine.configure_wrongly("", "agent", "/bin/true")
}
