//! The programs that rule containers.

use crate::source::node::Container;

/// The program that rules a container, run as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engine {
    pub restart: &'static str,
    pub logs: &'static str,
    pub list: &'static str,
    pub pid: &'static str,
}

const DOCKER: Engine = Engine {
    restart: "docker restart",
    logs: "docker logs --since 10m",
    list: "docker ps -a",
    pid: "docker inspect -f {{.State.Pid}}",
};

pub const PODMAN: Engine = Engine {
    restart: "podman restart",
    logs: "podman logs --since 10m",
    list: "podman ps -a",
    pid: "podman inspect -f {{.State.Pid}}",
};

impl Engine {
    /// Of containerd and CRI-O there is no such program that every host has; the containers of another user's Podman are not
    /// known to root's.
    pub fn of(container: &Container) -> Option<&'static Self> {
        match container.runtime.as_deref()? {
            "docker" => Some(&DOCKER),
            "podman" if container.user.is_none() => Some(&PODMAN),
            _ => None,
        }
    }
}
