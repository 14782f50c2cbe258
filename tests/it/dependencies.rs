//! What the program is built of is as `deny.toml` allows: licences, origin, one version of each, and the oldest supported Rust.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::common::skipped;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The packages in the tree of Linux builds, this one excepted; `None` where cargo cannot be asked.
fn packages() -> Option<Vec<Value>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--offline", "--format-version=1"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = match cargo.arg("--filter-platform=x86_64-unknown-linux-gnu").output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            skipped(format!("cargo metadata does not run here: {}", String::from_utf8_lossy(&output.stderr).trim()));
            return None;
        }
        Err(error) => {
            skipped(format!("cargo does not run here: {error}"));
            return None;
        }
    };
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let used: BTreeSet<&str> = nodes.iter().map(|node| node["id"].as_str().unwrap()).collect();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let packages = packages.filter(|it| used.contains(it["id"].as_str().unwrap()) && it["name"] != "rstdoctor");
    let packages: Vec<Value> = packages.cloned().collect();
    assert!(packages.len() > 20, "the tree was found");
    Some(packages)
}

fn rules() -> toml::Table {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

/// Whether an SPDX expression can be met by the licences that are allowed. A `/` is an old way to write OR.
fn met(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let plain = |part: &str| part.split(" OR ").flat_map(|it| it.split('/')).any(|it| allowed.contains(it.trim()));
    expression.split(" AND ").all(|part| plain(part.trim().trim_matches(['(', ')'])))
}

#[test]
fn licences_and_origins_are_allowed() {
    let (Some(packages), rules) = (packages(), rules()) else { return };
    let allowed: BTreeSet<&str> =
        rules["licenses"]["allow"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert!(met("(MIT OR GPL-3.0) AND Zlib", &allowed) && !met("MIT AND GPL-3.0", &allowed));
    let problem = |package: &Value| {
        let expression = package["license"].as_str().unwrap_or_default();
        (!met(expression, &allowed) || package["source"] != CRATES_IO).then(|| {
            format!("{} {}: licence {expression:?}, {}", package["name"], package["version"], package["source"])
        })
    };
    let problems: Vec<_> = packages.iter().filter_map(problem).collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn of_each_crate_there_is_one_version() {
    let (Some(packages), rules) = (packages(), rules()) else { return };
    let skip = rules["bans"]["skip"].as_array().unwrap();
    let mut skip: BTreeSet<&str> = skip.iter().map(|it| it["crate"].as_str().unwrap()).collect();
    let mut versions = BTreeMap::<&str, Vec<&str>>::new();
    for package in &packages {
        versions.entry(package["name"].as_str().unwrap()).or_default().push(package["version"].as_str().unwrap());
    }
    let mut several: Vec<_> = versions.into_iter().filter(|(_, versions)| versions.len() > 1).collect();
    several.retain_mut(|(name, versions)| {
        versions.retain(|version| {
            let entry = skip.iter().copied().find(|skip| {
                let (of, prefix) = skip.split_once('@').unwrap();
                of == *name && version.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'))
            });
            entry.is_none_or(|entry| !skip.remove(entry))
        });
        versions.len() > 1
    });
    assert!(several.is_empty(), "in more than one version: {several:?}");
    assert!(skip.is_empty(), "deny.toml skips what is there once: {skip:?}");
}

/// The lint `incompatible_msrv` guards what this crate calls; a dependency says it itself.
#[test]
fn all_build_with_the_oldest_supported_rust() {
    let Some(packages) = packages() else { return };
    let number = |text: &str| -> Vec<u32> { text.split('.').take(2).map(|part| part.parse().unwrap()).collect() };
    let oldest = number(env!("CARGO_PKG_RUST_VERSION"));
    let newer = packages.iter().filter(|it| it["rust_version"].as_str().is_some_and(|it| number(it) > oldest));
    let newer: Vec<_> = newer.map(|it| format!("{} {}: {}", it["name"], it["version"], it["rust_version"])).collect();
    assert!(newer.is_empty(), "{newer:#?}");
}
