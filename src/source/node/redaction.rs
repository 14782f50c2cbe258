//! What of the node may leave it: inodes, process ids and the names of runtimes.

use super::{Line, lines, text};
use crate::source::process::redaction::cgroup_segment;
use crate::source::pseudonyms::Pseudonyms;

pub(super) fn redact(names: &mut Pseudonyms, bytes: Vec<u8>) -> Option<Vec<u8>> {
    let mut kept = lines(&bytes).ok()?;
    for line in &mut kept {
        match line {
            Line::Own(_) | Line::Hidden(_) => {}
            Line::Netns(netns) => {
                if let Some(name) = &mut netns.name {
                    *name = names.label("netns", name);
                }
                // A path holds names of all kinds, and leads nowhere on another host.
                netns.path = None;
                if let Some(name) = &mut netns.process {
                    *name = String::from_utf8_lossy(&names.process(name.as_bytes())).into_owned();
                }
                if let Some(unit) = &mut netns.unit {
                    *unit = cgroup_segment(names, unit);
                }
                if let Some(slice) = &mut netns.slice {
                    *slice = cgroup_segment(names, slice);
                }
                netns.containers.iter_mut().for_each(|id| *id = names.container(id));
            }
            Line::Container(container) => {
                container.id = names.container(&container.id);
                let parts = [
                    ("container", &mut container.name),
                    ("image", &mut container.image),
                    ("pod", &mut container.pod),
                    ("namespace", &mut container.pod_namespace),
                    ("project", &mut container.project),
                    ("service", &mut container.service),
                ];
                for (word, name) in parts {
                    if let Some(name) = name {
                        *name = names.label(word, name);
                    }
                }
                let known = ["docker", "podman", "containerd", "cri-o"];
                container.runtime = container.runtime.take().filter(|name| known.contains(&name.as_str()));
            }
        }
    }
    Some(text(&kept).into_bytes())
}
