//! `rstdoctor explain`: what a cause or an error text means, and what to change.

use std::io::BufRead;
use std::process::ExitCode;

use super::{explain_log, explain_text, scan};
use crate::cause::{Cause, REGISTRY};
use crate::command::cli::{ExplainArgs, ScanArgs};
use crate::command::config::Terminal;
use crate::input::is_no_text;
use crate::output;
use crate::render::layout::{self, Page};
use crate::render::{catalogue, markdown};

/// Neither a cause nor an error text that is known.
#[derive(Debug, thiserror::Error)]
#[error("{what:?} is neither a known cause nor a known error text{}: rstdoctor explain lists all causes", near(.similar))]
pub struct Unknown {
    what: String,
    similar: Vec<&'static str>,
}

fn near(similar: &[&str]) -> String {
    if similar.is_empty() { String::new() } else { format!(", but like {}", similar.join(" and ")) }
}

pub fn run(args: &ExplainArgs, terminal: Terminal) -> anyhow::Result<ExitCode> {
    let what = args.what.join(" ");
    let mut page = Page::new(terminal.columns(), terminal.colour());
    match what.trim() {
        "" => list(&mut page),
        // A person need not know which of the two reads what: the bytes stay where scan reads them.
        "-" if is_no_text(std::io::stdin().lock().fill_buf()?) => {
            let args = ScanArgs { from: vec!["-".into()], ..ScanArgs::default() };
            return scan::run(&args, terminal);
        }
        "-" => explain_log::log(&mut page, &mut std::io::stdin().lock())?,
        text => match catalogue::find(text) {
            Some(cause) => explain(&mut page, cause),
            None if explain_text::text(&mut page, text) => {}
            None => {
                let similar = catalogue::similar(text).iter().map(|cause| cause.id).collect();
                return Err(Unknown { what: text.to_owned(), similar }.into());
            }
        },
    }
    output::print(terminal.shown(&page.finish()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn list(page: &mut Page) {
    let widest = REGISTRY.iter().map(|cause| cause.id.len()).max().unwrap_or(0);
    for cause in REGISTRY {
        let room = page.width().saturating_sub(widest + 2);
        page.line(&format!("{:widest$}  {}", cause.id, layout::shorten(&catalogue::first_sentence(cause), room)));
    }
    page.gap();
    page.line("rstdoctor explain CAUSE says how it shows, how to confirm it and what to change.");
}

fn explain(page: &mut Page, cause: &Cause) {
    markdown::title(page, cause.title, cause.id);
    page.gap();
    markdown::write(page, &catalogue::documentation(cause));
}
