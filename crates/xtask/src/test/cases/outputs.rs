//! What a builder leaves, and what becomes of it in the store.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cases;
use crate::world::FrontEnd;
use crate::world::daemon::STATE;
use crate::world::limited::{self, wait_until};
use crate::world::session::{Build, LIMIT, Session};

const FILE: &str = "outputs.nix";

cases! {
    Everywhere: several_outputs_with_references_between_them, references_to_inputs_and_not_beyond, self_reference,
        names_that_are_not_utf8, modes_become_canonical, a_hard_link_to_a_foreign_file_is_refused,
        as_deep_as_nix_takes_it_and_one_level_more;
    SingleUser: a_cycle_between_outputs_is_refused, references_in_names_and_links_count,
        a_reference_across_chunks_counts, links_stay_as_they_are, a_link_can_be_an_output, set_id_bits_vanish,
        hard_links_within_outputs, a_fifo_is_refused, an_output_that_all_can_write_is_refused, empty_outputs,
        a_missing_output_fails_the_build, a_valid_output_is_left_alone_when_its_sibling_is_made_again,
        check_does_not_touch_a_valid_output;
}

fn several_outputs_with_references_between_them(session: &mut Session) -> Result<()> {
    let build = Build::of(FILE, "several");
    let derivation = session.instantiate(&build)?;
    session.build(&build.with(&["-A", "several.all"]))?.succeeds()?;
    let [out, lib, dev, doc] =
        ["out", "lib", "dev", "doc"].map(|name| session.output_named(&derivation, name));
    let (out, lib, dev, doc) = (out?, lib?, dev?, doc?);
    for path in [&out, &lib, &dev, &doc] {
        session.sound(path)?;
        let deriver = session.query(&["-q", "--deriver"], path)?;
        ensure!(deriver == [derivation.display().to_string()], "deriver {deriver:?}");
    }
    session.refers_to(&out, &[&lib])?;
    session.refers_to(&lib, &[])?;
    session.refers_to(&dev, &[&out, &lib])?;
    session.refers_to(&doc, &[])?;
    let shown = limited::run(&mut Command::new(out.join("bin/show")), LIMIT)?.must_succeed()?;
    ensure!(shown.stdout == b"library\n", "{}", shown.describe());
    Ok(())
}

fn references_to_inputs_and_not_beyond(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "referring"))?.succeeds()?;
    let several = session.instantiate(&Build::of(FILE, "several"))?;
    session.refers_to(built.output()?, &[&session.output_named(&several, "out")?])?;
    session.sound(built.output()?)
}

fn self_reference(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "self"))?.succeeds()?;
    session.refers_to(built.output()?, &[built.output()?])?;
    session.sound(built.output()?)
}

fn a_cycle_between_outputs_is_refused(session: &mut Session) -> Result<()> {
    let status = session.status_of_rejection();
    session.build(&Build::of(FILE, "cycle"))?.fails_with(status)?.says("cycle")?;
    Ok(())
}

fn references_in_names_and_links_count(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "hidden-references"))?.succeeds()?;
    let several = session.instantiate(&Build::of(FILE, "several"))?;
    let itself = session.build(&Build::of(FILE, "self"))?.succeeds()?;
    session.refers_to(built.output()?, &[&session.output_named(&several, "out")?, itself.output()?])
}

fn a_reference_across_chunks_counts(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "reference-across-chunks"))?.succeeds()?;
    let itself = session.build(&Build::of(FILE, "self"))?.succeeds()?;
    session.refers_to(built.output()?, &[itself.output()?])
}

fn names_that_are_not_utf8(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "odd-names"))?.succeeds()?;
    let out = built.output()?;
    session.sound(out)?;
    let at = |name: &[u8]| out.join(OsStr::from_bytes(name));
    ensure!(fs::read(at(b"na\xefve-\xff"))? == b"latin\n", "contents");
    ensure!(fs::read(at(b"two\nlines"))? == b"line\n", "contents");
    ensure!(fs::read_link(at(b"link-\xfe"))?.as_os_str().as_bytes() == b"to-\xff", "target");
    Ok(())
}

fn links_stay_as_they_are(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "links"))?.succeeds()?;
    let out = built.output()?;
    session.sound(out)?;
    let absolute = out.join("file");
    let targets: [(&str, &Path); 4] = [
        ("relative", Path::new("file")),
        ("dangling", Path::new("/nowhere/at/all")),
        ("absolute", &absolute),
        ("loop", Path::new(".")),
    ];
    for (name, target) in targets {
        let got = fs::read_link(out.join(name))?;
        ensure!(got == target, "{name} leads to {}", got.display());
    }
    session.refers_to(out, &[out])
}

fn a_link_can_be_an_output(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "link-itself"))?.succeeds()?;
    let several = session.instantiate(&Build::of(FILE, "several"))?;
    ensure!(fs::symlink_metadata(built.output()?)?.is_symlink(), "not a link");
    session.refers_to(built.output()?, &[&session.output_named(&several, "out")?])?;
    session.sound(built.output()?)
}

fn modes_become_canonical(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "modes"))?.succeeds()?;
    session.sound(built.output()?)?;
    for (name, mode) in
        [("plain", 0o444), ("executable", 0o555), ("group-only", 0o444), ("private/file", 0o444)]
    {
        let got = fs::metadata(built.output()?.join(name))?.permissions().mode() & 0o7777;
        ensure!(got == mode, "{name} has mode {got:o}");
    }
    Ok(())
}

fn set_id_bits_vanish(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "setuid"))?.succeeds()?;
    session.sound(built.output()?)
}

fn hard_links_within_outputs(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "hard-links"))?.succeeds()?;
    let out = built.output()?;
    session.sound(out)?;
    let [one, two] = ["one", "two"].map(|name| fs::metadata(out.join(name)));
    ensure!(one?.ino() == two?.ino(), "the two names are two files now");
    ensure!(fs::read(out.join("two"))? == b"shared\n", "contents");
    Ok(())
}

fn a_hard_link_to_a_foreign_file_is_refused(session: &mut Session) -> Result<()> {
    let secret = PathBuf::from("/nix/var/secret");
    fs::write(&secret, "only root may read this\n")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let running = limited::start(&mut session.build_command(&Build::of(FILE, "planted")))?;
    let mut output = None;
    wait_until(Duration::from_secs(8), || {
        output = find(Path::new(STATE), "waiting");
        Ok(output.is_some())
    })?;
    let planted = (|| {
        let waiting = output
            .as_deref()
            .context("the builder's output is not to be seen below the daemon's directory")?;
        let directory = waiting.parent().context("no directory")?;
        fs::hard_link(&secret, directory.join("planted"))?;
        Ok::<_, anyhow::Error>(fs::write(directory.join("go"), "")?)
    })();
    let built = crate::world::session::Built::from(running.finish(LIMIT)?);
    planted.with_context(|| built.finished.describe())?;
    built.fails()?.says("planted")?;
    let metadata = fs::metadata(&secret)?;
    ensure!(
        (metadata.mode() & 0o7777, metadata.uid()) == (0o600, 0),
        "the foreign file has mode {:o} and owner {} now",
        metadata.mode() & 0o7777,
        metadata.uid()
    );
    fs::remove_file(&secret)?;
    Ok(())
}

fn as_deep_as_nix_takes_it_and_one_level_more(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "deep-64"))?.succeeds()?;
    let out = built.output()?;
    session.sound(out)?;
    // What was taken can be read and written by this very Nix.
    let copied = Path::new("/scratch/copied");
    let copy = format!("nix-store --dump {} | nix-store --restore {}", out.display(), copied.display());
    let mut shell = session.root_command("sh");
    limited::run(shell.args(["-euc", &copy]), LIMIT)?.must_succeed()?;
    fs::remove_dir_all(copied)?;

    let deeper = session.build(&Build::of(FILE, "deep-65"))?;
    if !session.nix_at_least(2, 24) {
        return session.sound(deeper.succeeds()?.output()?);
    }
    let status = session.status_of_rejection();
    let words = match session.world.front_end {
        FrontEnd::Hook => "is nested 65 levels deep",
        FrontEnd::ExternalBuilder => "exceeds maximum NAR directory depth of 64",
    };
    deeper.fails_with(status)?.says(words)?;
    Ok(())
}

/// A file of this name somewhere below `directory`.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        if entry.file_name() == name {
            return Some(path);
        }
        let below = entry.file_type().is_ok_and(|kind| kind.is_dir()).then(|| find(&path, name)).flatten();
        if below.is_some() {
            return below;
        }
    }
    None
}

fn a_fifo_is_refused(session: &mut Session) -> Result<()> {
    let status = session.status_of_rejection();
    session.build(&Build::of(FILE, "fifo"))?.fails_with(status)?.says("pipe")?;
    Ok(())
}

fn an_output_that_all_can_write_is_refused(session: &mut Session) -> Result<()> {
    let status = session.status_of_rejection();
    session.build(&Build::of(FILE, "writable-by-all"))?.fails_with(status)?.says("writable")?;
    Ok(())
}

fn empty_outputs(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "empty-directory").and("empty-file"))?.succeeds()?;
    ensure!(built.outputs.len() == 2, "{:?}", built.outputs);
    for output in &built.outputs {
        session.sound(output)?;
        session.refers_to(output, &[])?;
    }
    Ok(())
}

fn a_missing_output_fails_the_build(session: &mut Session) -> Result<()> {
    let status = session.status_of_rejection();
    session.build(&Build::of(FILE, "missing"))?.fails_with(status)?.says("failed to produce output path")?;
    let built = session.build(&Build::of(FILE, "missing-one"))?.fails_with(status)?;
    built.says("failed to produce output path")?.says("-missing-one-dev")?;
    Ok(())
}

fn a_valid_output_is_left_alone_when_its_sibling_is_made_again(session: &mut Session) -> Result<()> {
    let build = Build::of(FILE, "independent").and("independent.doc");
    let built = session.build(&build)?.succeeds()?;
    let [out, doc] = built.outputs.as_slice() else { anyhow::bail!("{:?}", built.outputs) };
    let (before, old_doc) = (fs::read(out)?, fs::read(doc)?);
    let inode = fs::metadata(out)?.ino();
    let mut command = session.root_command("nix-store");
    limited::run(command.arg("--delete").arg(doc), LIMIT)?.must_succeed()?;
    session.build(&build)?.succeeds()?;
    ensure!(fs::read(out)? == before && fs::metadata(out)?.ino() == inode, "the valid output was touched");
    ensure!(fs::read(doc)? != old_doc, "the deleted output was not made again");
    session.sound(out)?;
    session.sound(doc)
}

fn check_does_not_touch_a_valid_output(session: &mut Session) -> Result<()> {
    let build = Build::of(FILE, "independent");
    let built = session.build(&build)?.succeeds()?;
    let out = built.output()?;
    let before = (fs::read(out)?, fs::metadata(out)?.ino());
    // Nobody can do it: Nix has no such machine, and before 2.34 asks the hook as for a normal build when it has no
    // local slots. What matters is that nothing is lost.
    session.build(&build.with(&["--check", "-j0"]))?.fails()?;
    ensure!(before == (fs::read(out)?, fs::metadata(out)?.ino()), "the valid output was touched");
    session.sound(out)
}
