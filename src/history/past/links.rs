//! Which episode follows from which.

use std::collections::BTreeSet;

use super::{Episode, Past};
use crate::value::leads;
use crate::value::words::thousands;

impl Past {
    /// Ties each episode to that of the cause which explains it. Of two that were each said to follow from the other, as may be
    /// where a fault grows, the later one does.
    pub(super) fn link(&mut self) {
        let slack = self.longest_interval.saturating_mul(2);
        let root = |index: usize| {
            let episode = self.episodes.get(index)?;
            let because_of = episode.because_of.as_ref()?;
            self.episodes.iter().enumerate().position(|(other, root)| {
                other != index
                    && root.id == because_of.id
                    && root.place.is_same(&because_of.place)
                    && root.span.from <= episode.span.until.saturating_add(slack)
                    && episode.span.from <= root.span.until.saturating_add(slack)
            })
        };
        let mut roots: Vec<Option<usize>> = (0..self.episodes.len()).map(root).collect();
        for index in 0..roots.len() {
            let leads_back = leads(index, &index, roots.len(), |at| roots.get(*at).copied().flatten());
            if let Some(root) = roots.get_mut(index).filter(|_| leads_back) {
                *root = None;
            }
        }
        for (episode, root) in self.episodes.iter_mut().zip(roots) {
            episode.root = root;
        }
    }

    /// The episode from which all others of its story follow, as its place in the list.
    pub fn story(&self, mut index: usize) -> usize {
        while let Some(root) = self.episodes.get(index).and_then(|episode| episode.root) {
            index = root;
        }
        index
    }

    /// What is to be known where an earlier version recorded it.
    pub(super) fn unlinked(&self) -> Option<String> {
        let run = |at: u64| self.runs.iter().rposition(|(begun, _)| *begun <= at);
        // One that told any tells.
        let told: BTreeSet<Option<usize>> =
            self.episodes.iter().filter(|it| it.because_of.is_some()).map(|it| run(it.span.until)).collect();
        let tells = |at: u64| {
            let run = run(at);
            told.contains(&run) || run.and_then(|run| self.runs.get(run)).is_none_or(|(_, tells)| *tells)
        };
        let unlinked =
            |episode: &&Episode| episode.is_fault() && episode.because_of.is_none() && !tells(episode.span.until);
        let count = self.episodes.iter().filter(unlinked).count() as u64;
        (count > 1).then(|| {
            format!(
                "{} of these episodes were recorded by an earlier version, which did not tell what follows from what: several may be \
                 one fault",
                thousands(count)
            )
        })
    }
}
