//! Files that are generated from the code are in sync with it. `RSTDOCTOR_UPDATE=1 cargo test --test it generated::` renews them.

use std::fs;
use std::path::Path;

use data_encoding::BASE64;
use rstdoctor::command;
use rstdoctor::render::{self, catalogue, document};
use sha2::{Digest, Sha256};

use crate::page::{diagnosed, recordings};

fn check(path: &str, wanted: &[u8]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("RSTDOCTOR_UPDATE").is_some() {
        fs::create_dir_all(file.parent().expect("in the repository")).expect("directory");
        fs::write(&file, wanted).expect("write the generated file");
        return;
    }
    let found = fs::read(&file).unwrap_or_default();
    assert!(
        found == wanted,
        "{path} is not what the code generates; renew it with: RSTDOCTOR_UPDATE=1 cargo test --test it generated::"
    );
}

#[test]
fn the_schemas_are_in_sync() {
    check("src/render/json/report.v1.schema.json", render::json::report_schema().as_bytes());
    check("src/render/json/trace.v1.schema.json", render::json::trace_schema().as_bytes());
    check("src/render/json/history.v1.schema.json", render::json::history_schema().as_bytes());
}

#[test]
fn the_manual_pages_are_in_sync() {
    for (name, page) in command::man::pages().expect("pages") {
        check(&format!("man/{name}"), &page);
    }
}

#[test]
fn there_is_no_manual_page_of_something_gone() {
    let pages: Vec<_> = command::man::pages().expect("pages").into_iter().map(|(name, _)| name).collect();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("man")).expect("man/") {
        let name = entry.expect("entry").file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || pages.contains(&name), "man/{name} is not generated: remove it");
    }
}

#[test]
fn the_table_of_causes_in_the_readme_is_in_sync() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(path).expect("README.md");
    let wanted = catalogue::renew_readme(&readme).expect("README.md has the marks of the table of causes");
    check("README.md", wanted.as_bytes());
}

/// A browser refuses the style sheet of a page whose policy does not name it (Content Security Policy Level 3, 6.7.3.3).
#[test]
fn the_policy_of_a_page_names_its_style_sheet() {
    let page = document::scan_html(&diagnosed(&recordings()[0]), &render::Options::default()).expect("a page");
    let (style, _) =
        page.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>")).expect("a style sheet");
    let hash = format!("sha256-{}", BASE64.encode(&Sha256::digest(style.as_bytes())));
    check("src/render/document/html/style.sha256", hash.as_bytes());
    let renewed = std::env::var_os("RSTDOCTOR_UPDATE").is_some();
    assert!(renewed || page.contains(&format!("style-src '{hash}'")), "{page}");
}
