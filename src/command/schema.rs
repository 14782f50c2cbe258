//! `rstdoctor schema`: the JSON Schema of what this very binary prints.

use std::process::ExitCode;

use crate::command::cli::{Document, SchemaArgs};
use crate::output;
use crate::render::json;

pub fn run(args: &SchemaArgs) -> anyhow::Result<ExitCode> {
    let schema = match args.document {
        Document::Report => json::report_schema(),
        Document::History => json::history_schema(),
        Document::Trace => json::trace_schema(),
    };
    output::print(schema)?;
    Ok(ExitCode::SUCCESS)
}
