use super::*;

const ID: &str = "0123456789ab0123456789ab0123456789ab0123456789ab0123456789abcdef";

#[test]
fn a_path_of_a_control_group_has_the_id_and_mostly_the_runtime() {
    let of = |path: &str| of_cgroup(&path.replace("ID", ID)).map(|(id, runtime)| (id == ID, runtime));
    for (path, runtime) in [
        ("/docker/ID", Some("docker")),
        ("/system.slice/docker-ID.scope", Some("docker")),
        ("/machine.slice/libpod-ID.scope", Some("podman")),
        ("/machine.slice/libpod-ID.scope/container", Some("podman")),
        ("/libpod_parent/ID", Some("podman")),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-ID.scope",
            Some("containerd"),
        ),
        ("/kubepods.slice/kubepods-pod1.slice/crio-ID.scope", Some("cri-o")),
        ("/system.slice/kubepods-burstable-pod1.slice:cri-containerd:ID", Some("containerd")),
        ("/kubepods/burstable/pod1/ID", None),
        ("/default/ID", None),
    ] {
        assert_eq!(of(path), Some((true, runtime)), "{path}");
    }
    assert_eq!(of("/machine.slice/libpod-conmon-ID.scope"), None, "what watches it is not in it");
    assert_eq!(of("/system.slice/nginx.service"), None);
    let of_user = |name: &str| of(&format!("/user.slice/user-1.slice/user@1.service/user.slice/{name}"));
    assert_eq!(of_user("libpod-ID.scope/container"), Some((true, Some("podman"))));
    assert_eq!(of_user("docker-ID.scope"), None, "a user calls it as he likes");
    assert_eq!(of_user("cri-containerd-ID.scope"), None);
}

#[test]
fn docker_tells_name_image_and_compose_service() {
    let text = r#"{"Name":"/shop-web-1","Config":{"Image":"nginx:1.25","Env":["SECRET=1"],
        "Labels":{"com.docker.compose.project":"shop","com.docker.compose.service":"web"}}}"#;
    let found = docker(ID, text.as_bytes()).unwrap();
    let expected = Container {
        runtime: Some("docker".into()),
        name: Some("shop-web-1".into()),
        image: Some("nginx:1.25".into()),
        project: Some("shop".into()),
        service: Some("web".into()),
        ..Container::new(ID)
    };
    assert_eq!(found, expected);
    assert!(found.is_called("shop-web-1") && found.is_called("shop/web") && !found.is_called("web"));
}

#[test]
fn a_container_of_kubernetes_has_the_name_of_its_manifest() {
    let docker_shim = r#"{"Name":"/k8s_app_web-7d_default_0f_0","Config":{"Image":"sha256:1","Labels":{
        "io.kubernetes.container.name":"app","io.kubernetes.pod.name":"web-7d","io.kubernetes.pod.namespace":"default",
        "io.kubernetes.docker.type":"container"}}}"#;
    let found = docker(ID, docker_shim.as_bytes()).unwrap();
    assert_eq!((found.name.as_deref(), found.pod.as_deref()), (Some("app"), Some("web-7d")));
    let containerd = r#"{"annotations":{"io.kubernetes.cri.container-type":"container","io.kubernetes.cri.container-name":"app",
        "io.kubernetes.cri.image-name":"registry.k8s.io/app:1","io.kubernetes.cri.sandbox-name":"web-7d",
        "io.kubernetes.cri.sandbox-namespace":"default"}}"#;
    let found = oci(ID, "containerd", containerd.as_bytes()).unwrap();
    assert_eq!((found.label(), found.pod.as_deref(), found.pause), ("app", Some("web-7d"), false));
    assert!(found.is_called("default/web-7d") && found.is_called("web-7d"));
    let sandbox =
        r#"{"annotations":{"io.kubernetes.cri.container-type":"sandbox","io.kubernetes.cri.sandbox-name":"web-7d"}}"#;
    assert!(oci(ID, "containerd", sandbox.as_bytes()).unwrap().pause);
    let nerdctl =
        r#"{"annotations":{"nerdctl/name":"db","nerdctl/extra-labels":"{\"com.docker.compose.service\":\"db\"}"}}"#;
    let found = oci(ID, "containerd", nerdctl.as_bytes()).unwrap();
    assert_eq!((found.label(), found.service.as_deref()), ("db", Some("db")));
}

#[test]
fn the_name_of_a_log_tells_pod_namespace_and_container() {
    let found = kubelet_log(&format!("web-7d_default_my-app-{ID}.log")).unwrap();
    let told = (found.pod.as_deref(), found.pod_namespace.as_deref(), found.name.as_deref());
    assert_eq!(told, (Some("web-7d"), Some("default"), Some("my-app")));
    for wrong in
        ["web_default_app.log", "web_default_app-12.log", &format!("a_b_c_d-{ID}.log"), &format!("__-{ID}.log")]
    {
        assert_eq!(kubelet_log(wrong), None, "{wrong}");
    }
}

#[test]
fn conmon_is_told_the_name_of_its_container() {
    let of = |text: &str| conmon(text.replace(' ', "\0").replace("ID", ID).as_bytes());
    let (found, bundle) =
        of("/usr/bin/conmon --api-version 1 -c ID -u ID -r /usr/bin/crun -b /x/userdata -n web ").unwrap();
    assert_eq!(
        (found.label(), found.runtime.as_deref(), bundle.as_deref()),
        ("web", Some("podman"), Some("/x/userdata"))
    );
    assert!(of("/usr/bin/sleep -c ID -n web").is_none() && of("conmon -c 12 -n web").is_none() && of("").is_none());
}

#[test]
fn hostile_files_are_no_container() {
    for bytes in [&b"{}"[..], b"[]", b"{\"Config\":7}", b"[1,{\"id\":3}]", b"\xff", b"{\"annotations\":[]}"] {
        let _ = (docker(ID, bytes), storage(bytes), oci(ID, "x", bytes));
    }
    assert!(storage(b"{}").is_empty() && docker(ID, b"{}").is_none());
}

const DOCKER: &[u8] = include_bytes!("samples/docker-20.10.24.json");
const DOCKER_TASK: &[u8] = include_bytes!("samples/containerd-1.6.20-of-docker.json");
const SANDBOX: &[u8] = include_bytes!("samples/containerd-1.6.20-cri-sandbox.json");
const OF_POD: &[u8] = include_bytes!("samples/containerd-1.6.20-cri-container.json");
const STORAGE: &[u8] = include_bytes!("samples/podman-4.3.1-containers.json");
const SPEC: &[u8] = include_bytes!("samples/podman-4.3.1-config.json");
const CONMON: &[u8] = include_bytes!("samples/podman-4.3.1-conmon");

/// What real runtimes of Debian 12 wrote of a container that was started with known names.
#[test]
fn real_state_files_tell_the_names() {
    let text = Some;
    let found = docker(ID, DOCKER).unwrap();
    assert_eq!((found.name.as_deref(), found.image.as_deref()), (text("node-loop"), text("shop/web:1.0")));
    assert_eq!((found.project.as_deref(), found.service.as_deref()), (text("shop"), text("web")));
    let found = oci(ID, "docker", DOCKER_TASK);
    assert!(found.is_none_or(|found| found.name.is_none()), "containerd knows less of Docker's containers");

    let found = oci(ID, "containerd", OF_POD).unwrap();
    assert_eq!((found.pod_namespace.as_deref(), found.pod.as_deref()), (text("shop"), text("web-7d9f")));
    assert_eq!((found.name.as_deref(), found.image.as_deref()), (text("app"), text("docker.io/shop/web:1.0")));
    assert!(!found.pause);
    let found = oci(ID, "containerd", SANDBOX).unwrap();
    assert_eq!((found.pod.as_deref(), found.pause), (text("web-7d9f"), true));

    let all = storage(STORAGE);
    let told =
        |found: &Container| (found.label().to_owned(), found.image.clone().unwrap(), found.runtime.clone().unwrap());
    let one = |name: &str| (name.to_owned(), "localhost/shop/web:1.0".to_owned(), "podman".to_owned());
    assert_eq!(all.iter().map(told).collect::<Vec<_>>(), [one("node-pod-bridge"), one("node-pod-none")]);
    assert_eq!(oci(ID, "podman", SPEC).unwrap().pod, None, "Podman writes annotations of CRI-O, too");
    let (found, bundle) = conmon(CONMON).unwrap();
    assert_eq!((found.id.as_str(), found.label()), (all[0].id.as_str(), "node-pod-bridge"));
    assert!(bundle.unwrap().ends_with("/userdata"));
}
