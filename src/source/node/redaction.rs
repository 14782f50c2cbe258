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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::node::{Container, Netns};

    const ID: &str = "7adc00b32ab9d673563333823adcc281c1f702e6bd50cad2efae626954ca249a";

    #[test]
    fn no_name_of_a_container_pod_image_or_namespace_is_left() {
        let secret = |text: &str| Some(format!("secret-{text}"));
        let netns = Netns {
            inode: 7,
            name: secret("netns"),
            path: secret("/path"),
            process: secret("comm"),
            unit: secret("unit.service"),
            slice: secret("machine.slice"),
            containers: vec![ID.to_owned()],
            ..Netns::default()
        };
        let container = Container {
            runtime: secret("runtime"),
            name: secret("name"),
            image: secret("image"),
            pod: secret("pod"),
            pod_namespace: secret("namespace"),
            project: secret("project"),
            service: secret("service"),
            ..Container::new(ID)
        };
        let given = text(&[Line::Netns(netns), Line::Container(container)]);
        let kept = redact(&mut Pseudonyms::default(), given.into_bytes()).expect("sound");
        let kept = String::from_utf8(kept).expect("text");
        assert!(!kept.contains("secret") && !kept.contains(&ID[..12]), "{kept}");
        assert!(kept.contains("container-1") && kept.contains("pod-1"), "{kept}");
    }
}
