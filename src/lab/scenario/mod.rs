//! The scenarios, in the order in which `lab all` runs them: one file per fault, variants side by side.

mod accept_queue;
mod addresses;
mod closing;
mod common;
mod conntrack;
mod elsewhere;
mod firewall;
mod healthy;
mod later_exit;
mod limits;
mod mixtures;
mod no_answer;
mod node;
mod paths;
mod peer;
mod program_limits;
mod refused;
mod servers;
mod syn_queue;
mod timeouts;
mod two_resets;
mod vanished;

use super::counters::Premise;
use super::stage::{Stage, Stop};
use crate::reset::Kind;

/// One reproducible fault and what must be said about it.
pub struct Scenario {
    /// The id of the cause, then the variant.
    pub name: &'static str,
    pub title: &'static str,
    /// What is being done, as a person would do it by hand.
    pub by_hand: &'static str,
    pub expect: Expect,
    pub needs: &'static [Need],
    /// What the observed host's counters must show, or the fault did not happen.
    pub premises: &'static [Premise],
    pub run: fn(&mut Stage) -> Result<(), Stop>,
}

/// What the diagnosis must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expect {
    /// The id of the first cause; `None`: the host is healthy and the verdict ok.
    pub cause: Option<&'static str>,
    pub port: Option<u16>,
    pub process: Option<&'static str>,
    /// Faults made at the same time that must be found as well, behind it; then nothing else may be an alarm.
    pub also: &'static [&'static str],
    /// Causes that must not be claimed as active faults.
    pub forbidden: &'static [&'static str],
    /// What every RST that the host sends must have been, where single ones are seen; `None`: it is left open.
    pub sent: Option<&'static [Kind]>,
    /// So many network namespaces are looked into at least, where it is a whole node.
    pub namespaces: Option<usize>,
    /// So many more may have an alarm, about what they get from the faulty one.
    pub felt: usize,
    /// So many end in the window.
    pub gone: usize,
}

impl Expect {
    pub const NOTHING: Self = Self {
        cause: None,
        port: None,
        process: None,
        also: &[],
        forbidden: &[],
        sent: None,
        namespaces: None,
        felt: 0,
        gone: 0,
    };
}

/// What must be there for a scenario to run at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// An installed program.
    Program(&'static str),
    /// The reset tracepoints, because counters alone look the same for other causes.
    ResetEvents,
    /// A directory for temporary files, `temporary::DIRECTORY`.
    Files,
}

pub const NFT: Need = Need::Program("nft");

impl Scenario {
    /// A fault that must be found.
    const fn fault(
        name: &'static str,
        cause: &'static str,
        title: &'static str,
        by_hand: &'static str,
        run: fn(&mut Stage) -> Result<(), Stop>,
    ) -> Self {
        let expect = Expect { cause: Some(cause), ..Expect::NOTHING };
        Self { name, title, by_hand, expect, needs: &[], premises: &[], run }
    }

    /// Noise that must not raise an alarm.
    const fn healthy(
        name: &'static str,
        title: &'static str,
        by_hand: &'static str,
        run: fn(&mut Stage) -> Result<(), Stop>,
    ) -> Self {
        Self { name, title, by_hand, expect: Expect::NOTHING, needs: &[], premises: &[], run }
    }

    const fn port(mut self, port: u16) -> Self {
        self.expect.port = Some(port);
        self
    }

    const fn process(mut self, process: &'static str) -> Self {
        self.expect.process = Some(process);
        self
    }

    const fn never(mut self, forbidden: &'static [&'static str]) -> Self {
        self.expect.forbidden = forbidden;
        self
    }

    const fn and(mut self, also: &'static [&'static str]) -> Self {
        self.expect.also = also;
        self
    }

    const fn sends(mut self, kinds: &'static [Kind]) -> Self {
        self.expect.sent = Some(kinds);
        self
    }

    const fn namespaces(mut self, count: usize) -> Self {
        self.expect.namespaces = Some(count);
        self
    }

    /// So many namespaces more may have an alarm, about what they get from the faulty one.
    const fn felt(mut self, count: usize) -> Self {
        self.expect.felt = count;
        self
    }

    const fn gone(mut self, count: usize) -> Self {
        self.expect.gone = count;
        self
    }

    const fn needs(mut self, needs: &'static [Need]) -> Self {
        self.needs = needs;
        self
    }

    const fn shows(mut self, premises: &'static [Premise]) -> Self {
        self.premises = premises;
        self
    }
}

static ALL: &[&[Scenario]] = &[
    accept_queue::SCENARIOS,
    syn_queue::SCENARIOS,
    refused::SCENARIOS,
    addresses::SCENARIOS,
    firewall::SCENARIOS,
    closing::SCENARIOS,
    two_resets::SCENARIOS,
    later_exit::SCENARIOS,
    vanished::SCENARIOS,
    limits::SCENARIOS,
    conntrack::SCENARIOS,
    timeouts::SCENARIOS,
    peer::SCENARIOS,
    paths::SCENARIOS,
    healthy::SCENARIOS,
    elsewhere::SCENARIOS,
    servers::SCENARIOS,
    program_limits::SCENARIOS,
    no_answer::SCENARIOS,
    mixtures::SCENARIOS,
    node::SCENARIOS,
];

pub fn all() -> impl Iterator<Item = &'static Scenario> {
    ALL.iter().copied().flatten()
}

pub fn find(name: &str) -> Option<&'static Scenario> {
    all().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_kebab_case_and_say_what_to_expect() {
        let mut seen = BTreeSet::new();
        for scenario in all() {
            let name = scenario.name;
            assert!(seen.insert(name), "{name} exists twice");
            let kebab = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            assert!(kebab, "{name} is not kebab-case");
            match scenario.expect.cause {
                None => assert!(name.starts_with("healthy-"), "{name} expects no cause"),
                Some(cause) => {
                    assert!(name.starts_with(cause) || name.starts_with("server-"), "{name} expects {cause}");
                }
            }
        }
    }

    #[test]
    fn a_person_can_reproduce_every_scenario_by_hand() {
        for scenario in all() {
            assert!(!scenario.title.is_empty() && !scenario.by_hand.is_empty(), "{}", scenario.name);
        }
    }

    #[test]
    fn no_scenario_forbids_what_it_expects() {
        for Scenario { name, expect, .. } in all() {
            assert!(expect.cause.is_none_or(|cause| !expect.forbidden.contains(&cause)), "{name}");
        }
    }
}
