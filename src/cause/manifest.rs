//! What the manifest of a pod says against a cause: Kubernetes, not a command in the pod, starts and ends its programs.

use super::{Finding, Remedy, Restart, Setting, SubjectKind};

/// Where in a manifest a container's settings stand.
const CONTAINER: &str = "spec.containers";

/// Adds to a finding in a pod what its manifest can do about it. `container`: the name of the container in the manifest.
pub fn advise(id: &str, finding: &mut Finding, container: &str) {
    let place = format!("{CONTAINER}, {container}");
    let setting = |line: &str| Setting::config(line, "the manifest of the pod", Some(&place), Restart::Service);
    match id {
        // kubelet sends TERM at once, while the pod is still taken out of the endpoints of its Services (kubernetes.io, "Pod
        // Lifecycle", "Termination of Pods").
        "listener-closed" | "process-exit" => {
            let first = usize::from(id == "process-exit").min(finding.remedies.len());
            let text = "If the pod was ended on purpose: let it leave its Service before it ends, and give it \
                        terminationGracePeriodSeconds for this and its longest request";
            let wait = Remedy::new(text, "rstdoctor scan during a rollout shows no reset of it")
                .setting(setting("lifecycle: {preStop: {exec: {command: [\"sleep\", \"10\"]}}}"));
            finding.remedies.insert(first, wait);
        }
        "port-without-listener" => {
            let listeners = [SubjectKind::Listener, SubjectKind::Host];
            let port = finding.subjects.iter().filter(|it| listeners.contains(&it.kind)).find_map(|it| it.port);
            let Some(port) = port else { return };
            let text = "If the program listens later than its container starts: send it clients only when it does";
            let ready = Remedy::new(text, "rstdoctor scan during a rollout shows no refused connect")
                .setting(setting(&format!("readinessProbe: {{tcpSocket: {{port: {port}}}, periodSeconds: 2}}")));
            finding.remedies.push(ready);
        }
        _ => {}
    }
}
