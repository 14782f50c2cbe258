//! What is known of a container, and the files and names that tell it. All are read as they lie there: no daemon is asked.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::value::outside;

/// A container, as far as the files of its runtime tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// 64 hex digits, as the path of its control group has them.
    pub id: String,
    /// `docker`, `podman`, `containerd`, `cri-o`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// As its runtime, or the pod's manifest, names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The namespace of Kubernetes in which the pod is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
    /// Project and service of a compose file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Uid of the user whose Podman runs it, where that is not root's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// It only holds the network namespace of a pod.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pause: bool,
}

/// As `docker ps` and a process's control group show it.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

impl Container {
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }

    /// Its name, else the id that `docker ps` would show.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| short(&self.id))
    }

    pub fn is_pause(&self) -> bool {
        self.pause
    }

    /// Whether somebody means it by that word: its name, its pod, `NAMESPACE/POD`, or `PROJECT/SERVICE`.
    pub fn is_called(&self, spec: &str) -> bool {
        let both = |outer: &Option<String>, inner: &Option<String>| {
            let (Some(outer), Some(inner)) = (outer, inner) else { return false };
            spec.split_once('/').is_some_and(|(a, b)| a == outer && b == inner)
        };
        [&self.name, &self.pod].into_iter().any(|name| name.as_deref() == Some(spec))
            || both(&self.pod_namespace, &self.pod)
            || both(&self.project, &self.service)
    }

    /// Takes from `other` what is not known yet.
    pub fn complete(self, other: Self) -> Self {
        Self {
            id: self.id,
            runtime: self.runtime.or(other.runtime),
            name: self.name.or(other.name),
            image: self.image.or(other.image),
            pod: self.pod.or(other.pod),
            pod_namespace: self.pod_namespace.or(other.pod_namespace),
            project: self.project.or(other.project),
            service: self.service.or(other.service),
            user: self.user.or(other.user),
            pause: self.pause || other.pause,
        }
    }

    pub(super) fn bounded(self) -> Self {
        let short = |text: Option<String>| text.map(|text| outside::bounded(&text, outside::NAME));
        Self {
            id: outside::bounded(&self.id, 64),
            runtime: short(self.runtime),
            name: short(self.name),
            image: short(self.image),
            pod: short(self.pod),
            pod_namespace: short(self.pod_namespace),
            project: short(self.project),
            service: short(self.service),
            user: self.user,
            pause: self.pause,
        }
    }

    fn labelled(mut self, labels: &Value) -> Self {
        let label = |names: &[&str]| names.iter().find_map(|name| text(labels.get(name)?));
        let found = Self {
            name: label(&["io.kubernetes.container.name", "io.kubernetes.cri.container-name", "nerdctl/name"]),
            image: label(&["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"]),
            pod: label(&["io.kubernetes.pod.name", "io.kubernetes.cri.sandbox-name"]),
            pod_namespace: label(&["io.kubernetes.pod.namespace", "io.kubernetes.cri.sandbox-namespace"]),
            project: label(&["com.docker.compose.project", "io.podman.compose.project"]),
            service: label(&["com.docker.compose.service"]),
            ..Self::default()
        };
        let kind = label(&[
            "io.kubernetes.cri.container-type",
            "io.kubernetes.cri-o.ContainerType",
            "io.kubernetes.docker.type",
        ]);
        self.pause |= matches!(kind.as_deref(), Some("sandbox" | "podsandbox"));
        // The name that the runtime gives to a container of a pod is made of the pod's.
        if found.pod.is_some() && found.name.is_some() {
            self.name = None;
        }
        self.complete(found)
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Docker: `/var/lib/docker/containers/ID/config.v2.json` (moby container/container.go, `type Container`).
pub fn docker(id: &str, bytes: &[u8]) -> Option<Container> {
    let json: Value = serde_json::from_slice(bytes).ok()?;
    let config = json.get("Config")?;
    let found = Container {
        runtime: Some("docker".to_owned()),
        name: json.get("Name").and_then(text).map(|name| name.trim_start_matches('/').to_owned()),
        image: config.get("Image").and_then(text),
        ..Container::new(id)
    };
    Some(match config.get("Labels") {
        Some(labels) => found.labelled(labels),
        None => found,
    })
}

/// containers/storage, for Podman and CRI-O: `STORAGE/DRIVER-containers/containers.json` (containers/storage containers.go,
/// `type Container`). The metadata is JSON in a string: of Podman in libpod/storage.go (`RuntimeContainerMetadata`), of CRI-O in
/// internal/storage/runtime.go, which has the same names.
pub fn storage(bytes: &[u8]) -> Vec<Container> {
    let all: Vec<Value> = serde_json::from_slice(bytes).unwrap_or_default();
    all.iter().filter_map(stored).collect()
}

fn stored(entry: &Value) -> Option<Container> {
    let id = text(entry.get("id")?)?;
    let metadata = entry.get("metadata").and_then(Value::as_str).unwrap_or_default();
    let metadata: Value = serde_json::from_str(metadata).unwrap_or_default();
    let of = |name: &str| metadata.get(name).and_then(text);
    let first = entry.get("names").and_then(Value::as_array).and_then(|names| text(names.first()?));
    let pod = of("pod-name");
    Some(Container {
        runtime: Some(if pod.is_some() { "cri-o" } else { "podman" }.to_owned()),
        name: if pod.is_some() { of("metadata-name") } else { of("name").or(first) },
        image: of("image-name"),
        pod_namespace: of("namespace").filter(|_| pod.is_some()),
        pod,
        ..Container::new(&id)
    })
}

/// The runtime specification of a container, `config.json` (opencontainers/runtime-spec config.md, "Annotations"): containerd's CRI
/// plugin, CRI-O, nerdctl and Podman write what they know into its annotations.
pub fn oci(id: &str, runtime: &str, bytes: &[u8]) -> Option<Container> {
    let json: Value = serde_json::from_slice(bytes).ok()?;
    let annotations = json.get("annotations")?;
    let container = Container { runtime: Some(runtime.to_owned()), ..Container::new(id) }.labelled(annotations);
    // nerdctl and CRI-O keep the labels as JSON in one annotation.
    let labels = ["nerdctl/extra-labels", "io.kubernetes.cri-o.Labels"];
    let nested = labels.iter().find_map(|name| serde_json::from_str(annotations.get(name)?.as_str()?).ok());
    Some(match nested {
        Some(labels) => container.labelled(&labels),
        None => container,
    })
}

/// The links that kubelet makes for every runtime: `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`
/// (kubernetes pkg/kubelet/kuberuntime/legacy.go, `legacyLogSymlink`). No part of it may hold an underscore.
pub fn kubelet_log(file_name: &str) -> Option<Container> {
    let stem = file_name.strip_suffix(".log")?;
    let (rest, id) = stem.rsplit_once('-')?;
    let mut parts = rest.split('_');
    let (pod, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && is_id(id) && [pod, namespace, name].iter().all(|part| !part.is_empty());
    whole.then(|| Container {
        name: Some(name.to_owned()),
        pod: Some(pod.to_owned()),
        pod_namespace: Some(namespace.to_owned()),
        ..Container::new(id)
    })
}

/// conmon, which stands above each container of Podman and CRI-O, is told its id and name: conmon(8), `-c ID -n NAME`. It tells
/// those of users without root as well, whose storage is somewhere below their home. Arguments as in /proc/PID/cmdline, and the
/// bundle directory, `-b`, with the runtime specification.
pub fn conmon(arguments: &[u8]) -> Option<(Container, Option<String>)> {
    let words: Vec<_> = arguments.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word)).collect();
    if words.first()?.rsplit('/').next() != Some("conmon") {
        return None;
    }
    let after = |option: &str| {
        let place = words.iter().position(|word| word == option)?;
        words.get(place + 1).map(|word| word.to_string())
    };
    let id = after("-c").filter(|id| is_id(id))?;
    let kubernetes = words.iter().any(|word| word.contains("crio"));
    let runtime = if kubernetes { "cri-o" } else { "podman" };
    let name = after("-n").filter(|_| !kubernetes);
    Some((Container { runtime: Some(runtime.to_owned()), name, ..Container::new(&id) }, after("-b")))
}

/// Whether it is the id of a container.
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The id in the path of a control group, and the runtime where the path says it: `/docker/ID`, `docker-ID.scope`,
/// `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-ID.scope`, `/kubepods/.../ID`, and for containerd without systemd `/NAMESPACE/ID`.
///
/// A user names the control groups of his own manager as he likes, also like another's container. There it is one of Podman, whose
/// name is asked of what watches it, or none.
pub fn of_cgroup(path: &str) -> Option<(String, Option<&'static str>)> {
    let segments: Vec<&str> = path.split('/').collect();
    segments.iter().enumerate().rev().find_map(|(place, segment)| {
        let name = segment.strip_suffix(".scope").unwrap_or(segment);
        let id = name.rsplit(['-', ':']).next().filter(|id| is_id(id))?;
        // What watches a container stands beside it.
        let prefix = name.strip_suffix(id)?.trim_end_matches(['-', ':']);
        let parent = place.checked_sub(1).and_then(|place| segments.get(place)).copied().unwrap_or_default();
        let runtime = match (prefix.rsplit(':').next().unwrap_or(prefix), parent) {
            ("docker", _) | ("", "docker") => Some("docker"),
            ("cri-containerd" | "nerdctl", _) => Some("containerd"),
            ("crio", _) => Some("cri-o"),
            ("libpod", _) | ("", "libpod_parent") => Some("podman"),
            ("libpod-conmon" | "crio-conmon", _) => return None,
            _ => None,
        };
        let of_user = segments.iter().take(place).any(|above| above.starts_with("user@"));
        (!of_user || runtime == Some("podman")).then(|| (id.to_owned(), runtime))
    })
}

#[cfg(test)]
mod tests;
