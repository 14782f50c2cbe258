//! `rstdoctor man`: the manual pages, from the command line's own definition and the registry of causes.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};

use crate::command::cli::{Cli, ManArgs};
use crate::command::manual;
use crate::output;
use crate::render::catalogue;

pub fn run(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let pages = pages()?;
    match &args.directory {
        Some(directory) => {
            match std::fs::create_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(anyhow::Error::new(error))
                        .with_context(|| format!("{}: cannot make this directory", directory.display()));
                }
                _ => {}
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = rustix::fs::open(directory, flags, Mode::empty())
                .with_context(|| format!("{}: cannot open this directory", directory.display()))?;
            replace(&opened, &pages).map_err(|(name, error)| {
                let path = directory.join(name);
                anyhow::Error::new(error).context(format!("{}: cannot write", path.display()))
            })?;
        }
        None => {
            let main = pages.first().map(|(_, page)| page.as_slice()).unwrap_or_default();
            output::print(main)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts files in the place of those of their names, and of nothing that a link of such a name leads to: the directory may be one
/// where others write. None is put there before all are written, so that a full disk leaves the directory as it was.
fn replace<'a>(directory: &OwnedFd, pages: &'a [(String, Vec<u8>)]) -> Result<(), (&'a str, io::Error)> {
    let unfinished = |name: &str| format!(".{name}.{}", std::process::id());
    let written = pages
        .iter()
        .try_for_each(|(name, page)| write(directory, &unfinished(name), page).map_err(|error| (name.as_str(), error)));
    let placed = written.and_then(|()| {
        pages.iter().try_for_each(|(name, _)| {
            renameat(directory, unfinished(name), directory, name).map_err(|error| (name.as_str(), error.into()))
        })
    });
    if placed.is_err() {
        for (name, _) in pages {
            // The first error says more; of those that were not begun there is nothing.
            let _ = unlinkat(directory, unfinished(name), AtFlags::empty());
        }
    }
    placed
}

fn write(directory: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    File::from(openat(directory, name, flags, mode)?).write_all(bytes)
}

/// File name and text of every page, rstdoctor(1) first.
///
/// # Errors
/// None in practice: they are written to memory.
pub fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
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

fn page(command: clap::Command) -> io::Result<(String, Vec<u8>)> {
    let name = format!("{}.1", command.get_name());
    let mut text = Vec::new();
    // Without a date, so that the same source gives the same page.
    clap_mangen::Man::new(command.clone().version(env!("CARGO_PKG_VERSION"))).date("").render(&mut text)?;
    text.extend(manual::sections(command.get_name()));
    Ok((name, text))
}
