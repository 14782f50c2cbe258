//! The metrics of one diagnosis, as Prometheus reads them.

use super::Format;
use crate::metrics;

pub const FORMAT: Format = Format {
    name: "openmetrics",
    help: "Metrics for Prometheus",
    for_people: false,
    print: |diagnosis, _| Ok(metrics::once(diagnosis)?),
    plugin: None,
};
