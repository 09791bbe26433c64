//! `host-agent man`: manual pages from the same definition that parses the command line.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use super::fail;

/// Prints the program's page, or writes one for each command into `directory`.
pub(super) fn run(program: clap::Command, directory: Option<&Path>) -> ExitCode {
    let written = match directory {
        None => clap_mangen::Man::new(program).render(&mut io::stdout()),
        Some(directory) => write_all(program, directory),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("failed to write the manual: {error}")),
    }
}

fn write_all(program: clap::Command, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    pages(program)?.into_iter().try_for_each(|(name, page)| std::fs::write(directory.join(name), page))
}

/// File name and text of the page of each command that people type.
pub(super) fn pages(program: clap::Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    fn add(command: &clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
        for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            add(command, pages)?;
        }
        let page = clap_mangen::Man::new(command.clone());
        let mut text = Vec::new();
        page.render(&mut text)?;
        pages.push((page.get_filename(), text));
        Ok(())
    }
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let mut pages = Vec::new();
    add(&program, &mut pages)?;
    Ok(pages)
}
