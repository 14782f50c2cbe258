//! Connection tracking: how full the table is and what it rejected.

use super::counters::Counters;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conntrack {
    /// nf_conntrack_count: entries now, of this network namespace.
    pub count: u64,
    /// nf_conntrack_max.
    pub max: u64,
    /// /proc/net/stat/nf_conntrack summed over the CPUs, by column name: `invalid`, `drop`, `early_drop`, ...; absent
    /// when the file is not readable.
    pub stat: Option<Counters>,
}
