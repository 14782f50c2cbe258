//! A recording of a node that ran real containers of Docker, Podman and containerd (with a pod of its CRI plugin): the report of
//! it, and what of it may not be in there.

use serde_json::Value;

use crate::cli::rstdoctor;

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/redacted.rst");

fn output(arguments: &[&str]) -> String {
    let output = rstdoctor(arguments).output().expect("it starts");
    String::from_utf8(output.stdout).expect("text")
}

/// While it was made, a client in a network namespace called a published port of Docker (address translation), whose program
/// listened on 127.0.0.1 in its container.
#[test]
fn a_recording_of_a_node_tells_one_story_with_the_container_first() {
    let report: Value = serde_json::from_str(&output(&["scan", "--from", RECORDING, "--json"])).expect("JSON");
    let causes = report["causes"].as_array().expect("causes");
    let told: Vec<_> = causes.iter().map(|cause| (cause["id"].as_str(), cause["because_of"].as_str())).collect();
    let follows = (Some("upstream-refused"), Some("wrong-bind-address"));
    assert_eq!(told.first(), Some(&(Some("wrong-bind-address"), None)), "{told:?}");
    assert!(told.contains(&follows), "{told:?}");
    let subject = &causes[0]["subjects"][0];
    assert_eq!(
        (&subject["container"]["name"], &subject["container"]["runtime"]),
        (&"container-1".into(), &"docker".into())
    );
    let remedy = &causes[0]["remedies"][0];
    let verify = remedy["verify"].as_str().expect("a text");
    assert!(
        verify.ends_with(", run in container container-1"),
        "of another host nothing is named in a command: {verify}"
    );
    assert_eq!(remedy["verify_command"], "ss -lnt 'sport = :8080'");
    let containers =
        report["namespaces"].as_array().expect("namespaces").iter().flat_map(|one| one["containers"].as_array());
    let runtimes: std::collections::BTreeSet<_> =
        containers.flatten().filter_map(|it| it["runtime"].as_str()).collect();
    assert_eq!(runtimes, ["containerd", "docker", "podman"].into());
    assert_eq!(report["node"]["looked"], report["node"]["known"]);
}

#[test]
fn the_page_of_a_recording_names_the_container_and_how_it_is_restarted() {
    let page = output(&["scan", "--from", RECORDING, "--all"]);
    for part in [
        "In container container-1:",
        "docker restart CONTAINER",
        "pod namespace-1/pod-1",
        "service service-1 of project-1",
    ] {
        assert!(page.contains(part), "{part} in\n{page}");
    }
}

/// The names that were there when it was made.
#[test]
fn a_redacted_recording_holds_no_name_of_a_container_pod_image_or_namespace() {
    let answers = output(&["recording", "show", RECORDING, "host/node"]);
    assert!(answers.contains("container-1") && answers.contains("image-1"), "{answers}");
    let all = answers
        + &output(&["recording", "show", RECORDING, "namespaces"])
        + &output(&["scan", "--from", RECORDING, "--all"]);
    for name in ["node-loop", "node-pod", "shop", "web-7d9f", "localhost/", "node-cl", "cni-", "nginx", "7adc00b32ab9"]
    {
        assert!(!all.contains(name), "{name} in\n{all}");
    }
}
