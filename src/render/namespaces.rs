//! The network namespaces of a node: how many were looked at, which are well, which are gone.

use super::block::whereabouts;
use super::layout::Page;
use super::verdict;
use crate::diagnosis::node::{Coverage, Namespace};
use crate::diagnosis::{Diagnosis, Status};
use crate::value::words::thousands;

/// Namespaces that are named in a line; the others are counted.
const NAMED: usize = 4;

/// Those in which nothing was found: `14 network namespaces: this one, container db, 12 more`. `None` unless there is another than this.
pub fn rest(diagnosis: &Diagnosis) -> Option<String> {
    let fine: Vec<&Namespace> =
        diagnosis.namespaces.iter().filter(|one| one.status == Status::Ok && !one.gone).collect();
    (!fine.is_empty()).then(|| listed(&fine))
}

/// Those that ended while they were watched.
pub fn gone(diagnosis: &Diagnosis) -> Option<String> {
    let gone: Vec<&Namespace> = diagnosis.namespaces.iter().filter(|one| one.gone).collect();
    (!gone.is_empty()).then(|| format!("ended in the meantime, and looked at until then: {}", listed(&gone)))
}

fn listed(namespaces: &[&Namespace]) -> String {
    let mut names: Vec<String> = namespaces.iter().take(NAMED).map(|one| one.location.to_string()).collect();
    let more = namespaces.len().saturating_sub(NAMED) as u64;
    if more > 0 {
        names.push(format!("{} more", thousands(more)));
    }
    names.join(", ")
}

/// `14 of 14 network namespaces`; nothing where there is only this one.
pub fn share(diagnosis: &Diagnosis) -> Option<String> {
    let coverage = diagnosis.coverage.as_ref()?;
    (coverage.known > 1 || coverage.more && coverage.needs.is_some()).then(|| coverage.share())
}

/// What would let one see the others.
pub fn needs(diagnosis: &Diagnosis) -> Option<String> {
    let Coverage { needs, guest, narrowed, .. } = diagnosis.coverage.as_ref()?;
    match needs {
        _ if *narrowed => None,
        Some(needs) => Some(format!("for the others: {needs}")),
        None if *guest => Some("this is a container: on the host, rstdoctor sees all namespaces".to_owned()),
        None => None,
    }
}

/// The table of all, for the long report.
pub fn write(page: &mut Page, diagnosis: &Diagnosis) {
    if diagnosis.namespaces.is_empty() {
        return;
    }
    page.gap();
    page.heading("Network namespaces");
    for one in &diagnosis.namespaces {
        let word = if one.gone {
            format!("{}, gone", verdict::status(one.status))
        } else {
            verdict::status(one.status).to_owned()
        };
        let counts = [("sent", &one.ledger.sent), ("received", &one.ledger.received), ("lost", &one.ledger.dropped)];
        let counts: Vec<String> = counts
            .iter()
            .map(|(name, account)| match &account.total {
                Ok(total) => format!("{name} {}", thousands(*total)),
                Err(_) => format!("{name} ?"),
            })
            .collect();
        page.field("  -", 4, &format!("{}: {word}; {}", whereabouts(&one.location), counts.join(", ")));
    }
}
