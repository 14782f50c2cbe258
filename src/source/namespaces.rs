//! The network namespaces under observation (network_namespaces(7)).

use std::collections::BTreeSet;
use std::time::Duration;

use super::redaction::Rule;
use crate::ask::{self, Ask, Probe, What};
use crate::value::{NetnsId, Observed, ParseError};

const SOURCE: &str = "network namespaces";

/// More than any host has; a bound for what a recording can make us look at.
const MAX_NAMESPACES: usize = 65_536;

/// Inodes stay, names go.
pub const REDACTION: Rule = Rule::text(SOURCE, |what| *what == What::Namespaces, |_, text| Some(inodes(&text)));

/// One network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    pub id: NetnsId,
    /// As `ip netns` names it, where it was found by that name.
    pub name: Option<String>,
}

/// The namespaces that the probe looks into, each once.
pub fn collect(probe: &mut dyn Probe) -> (Observed<Vec<Namespace>>, Duration) {
    let (bytes, took) = ask::read(probe, &Ask::host(What::Namespaces));
    let observed = match bytes.and_then(|bytes| Ok(parse(&bytes)?)) {
        Ok(namespaces) => Observed::Full(namespaces),
        Err(failure) => Observed::Unavailable(failure),
    };
    (observed, took)
}

/// The lines of [`What::Namespaces`].
///
/// # Errors
/// A line that does not begin with an inode number, or too many lines.
pub fn parse(bytes: &[u8]) -> Result<Vec<Namespace>, ParseError> {
    let (mut found, mut known) = (Vec::new(), BTreeSet::new());
    for (line, text) in super::text::lines(SOURCE, bytes)? {
        let (inode, name) = text.split_once(' ').map_or((text, None), |(inode, name)| (inode, Some(name)));
        let id = NetnsId(super::text::number(SOURCE, line, "the inode", inode)?);
        if found.len() >= MAX_NAMESPACES {
            return Err(ParseError::new(SOURCE, Some(line), "there are too many"));
        }
        if known.insert(id) {
            found.push(Namespace { id, name: name.map(str::to_owned) });
        }
    }
    Ok(found)
}

fn inodes(text: &[u8]) -> Vec<u8> {
    let inode = |line: &[u8]| line.iter().copied().take_while(u8::is_ascii_digit).chain([b'\n']).collect();
    let lines: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(inode).collect();
    lines.into_iter().filter(|line| line.len() > 1).flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_kept_and_no_namespace_is_there_twice() {
        let found = parse(b"4026531840\n4026532200 blue\n4026531840 again\n").unwrap();
        let blue = Namespace { id: NetnsId(4_026_532_200), name: Some("blue".into()) };
        assert_eq!(found, [Namespace { id: NetnsId(4_026_531_840), name: None }, blue]);
        assert!(parse(b"net:[4026531840]\n").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = parse(&bytes);
        }
    }
}
