//! `rstdoctor man`: the manual pages, from the command line's own definition and the registry of causes.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;

use crate::command::cli::{Cli, ManArgs};
use crate::render::catalogue;

pub fn run(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let pages = pages()?;
    match &args.directory {
        Some(directory) => {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("{}: cannot make this directory", directory.display()))?;
            for (name, page) in &pages {
                let path = directory.join(name);
                std::fs::write(&path, page).with_context(|| format!("{}: cannot write", path.display()))?;
            }
        }
        None => {
            let main = pages.first().map(|(_, page)| page.as_slice()).unwrap_or_default();
            std::io::stdout().lock().write_all(main)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// File name and text of every page, rstdoctor(1) first.
///
/// # Errors
/// None in practice: they are written to memory.
pub fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = vec![page(command.clone())?];
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        // The page is about `rstdoctor scan`, and man finds it as rstdoctor-scan.
        let name: &'static str = format!("rstdoctor-{}", sub.get_name()).leak();
        pages.push(page(sub.clone().name(name))?);
    }
    pages.push(("rstdoctor-causes.7".to_owned(), catalogue::causes_page()));
    Ok(pages)
}

fn page(command: clap::Command) -> std::io::Result<(String, Vec<u8>)> {
    let name = format!("{}.1", command.get_name());
    let mut text = Vec::new();
    // Without a date, so that the same source gives the same page.
    clap_mangen::Man::new(command.version(env!("CARGO_PKG_VERSION"))).date("").render(&mut text)?;
    Ok((name, text))
}
