//! Idle limits of servers and network devices: who ends, or forgets, a connection after how many seconds without data.

use std::sync::LazyLock;

use serde::Deserialize;

/// Who has the limit, and so how the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Closes by FIN.
    Server,
    /// Forgets the connection; the next packet is dropped or answered with a RST.
    Device,
    /// The pool of a caller closes by FIN.
    Client,
}

/// One documented default.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdleLimit {
    pub name: String,
    pub seconds: u64,
    pub role: Role,
}

#[derive(Deserialize)]
struct File {
    limit: Vec<IdleLimit>,
}

/// All limits of `idle_timeouts.toml`, the shortest first.
pub static IDLE_LIMITS: LazyLock<Vec<IdleLimit>> = LazyLock::new(|| {
    // The file is part of the binary, and a test parses it.
    toml::from_str::<File>(include_str!("idle_timeouts.toml")).map(|file| file.limit).unwrap_or_default()
});

/// Limits that explain a connection that died after `idle` seconds, the nearest first. A connection dies at its first use
/// after the limit, so it is idle a little longer than that, and up to a tenth or 5 s is taken as a little.
pub fn near(idle: f64) -> Vec<&'static IdleLimit> {
    let fits = |limit: &&IdleLimit| {
        let seconds = limit.seconds as f64;
        // One second early: idle times are sampled and rounded.
        (seconds - 1.0..=seconds + (seconds / 10.0).max(5.0)).contains(&idle)
    };
    let mut limits: Vec<_> = IDLE_LIMITS.iter().filter(fits).collect();
    let distance = |limit: &IdleLimit| (idle - limit.seconds as f64).abs();
    limits.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
    limits
}

/// As [`near`], only devices on the path.
pub fn devices_near(idle: f64) -> Vec<&'static IdleLimit> {
    near(idle).into_iter().filter(|limit| limit.role == Role::Device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_and_in_order() {
        assert!(IDLE_LIMITS.len() > 25);
        assert!(IDLE_LIMITS.is_sorted_by_key(|limit| limit.seconds));
    }

    #[test]
    fn a_connection_that_died_after_351_s_met_an_aws_device() {
        let names: Vec<_> = devices_near(351.2).iter().map(|limit| limit.name.as_str()).collect();
        assert!(names.contains(&"AWS Network Load Balancer") && names.contains(&"AWS NAT gateway"), "{names:?}");
    }

    #[test]
    fn the_nearest_comes_first_and_nothing_fits_an_odd_age() {
        assert_eq!(near(65.1).first().map(|limit| limit.seconds), Some(65));
        assert!(near(2000.0).is_empty() && near(f64::NAN).is_empty());
    }
}
