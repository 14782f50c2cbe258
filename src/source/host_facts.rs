//! Which host, kernel, network namespace and privileges the observation was made with.

/// Identity of the observed host; live facts, none of them needed for a verdict.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostFacts {
    pub hostname: Option<String>,
    /// Kernel release, e.g. `6.18.44`.
    pub kernel: Option<String>,
    /// Seconds since boot.
    pub uptime_s: Option<f64>,
    /// Inode of the network namespace.
    pub netns: Option<u64>,
    /// Effective user id of the observer.
    pub uid: Option<u32>,
    /// CapEff bits, capabilities(7).
    pub capabilities: Option<u64>,
}
