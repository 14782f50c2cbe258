//! `rstdoctor schema`: the JSON Schema of what this very binary prints.

use std::io::Write;
use std::process::ExitCode;

use crate::command::cli::{Document, SchemaArgs};
use crate::render::json;

pub fn run(args: &SchemaArgs) -> anyhow::Result<ExitCode> {
    let schema = match args.document {
        Document::Report => json::report_schema(),
        Document::Trace => json::trace_schema(),
    };
    std::io::stdout().lock().write_all(schema.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
