//! Metrics as declared constants, so that the table of metrics in the docs is generated and cannot drift.

/// What a metric's number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A declared metric. Each service lists its own in `metrics.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name as exported.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// What it says, with its unit and labels.
    pub help: &'static str,
}

#[expect(
    clippy::disallowed_macros,
    reason = "this is the one place that turns a declaration into a recording"
)]
impl Metric {
    /// Declares a counter.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, help }
    }

    /// Declares a gauge.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, help }
    }

    /// Declares a histogram; durations are in seconds.
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, help }
    }

    /// Adds to a counter.
    pub fn add(&self, n: u64) {
        metrics::counter!(self.name).increment(n);
    }

    /// Adds to a counter under one label.
    pub fn add_for(&self, label: &'static str, value: impl Into<String>, n: u64) {
        metrics::counter!(self.name, label => value.into()).increment(n);
    }

    /// Adds to a counter under two labels.
    pub fn add_for_both(&self, labels: [(&'static str, String); 2], n: u64) {
        metrics::counter!(self.name, &labels).increment(n);
    }

    /// Sets a gauge.
    pub fn set(&self, value: f64) {
        metrics::gauge!(self.name).set(value);
    }

    /// Sets a gauge under one label.
    pub fn set_for(&self, label: &'static str, label_value: impl Into<String>, value: f64) {
        metrics::gauge!(self.name, label => label_value.into()).set(value);
    }

    /// Records one observation of a distribution.
    pub fn record(&self, value: f64) {
        metrics::histogram!(self.name).record(value);
    }

    /// The counter itself, for paths too hot to look it up by name.
    pub fn counter_handle(&self) -> metrics::Counter {
        metrics::counter!(self.name)
    }

    /// The counter itself under one label, for paths too hot to look it up by name.
    pub fn counter_handle_for(&self, label: &'static str, value: &'static str) -> metrics::Counter {
        metrics::counter!(self.name, label => value)
    }

    /// The gauge itself, for paths too hot to look it up by name.
    pub fn gauge_handle(&self) -> metrics::Gauge {
        metrics::gauge!(self.name)
    }

    /// The histogram itself, for paths too hot to look it up by name.
    pub fn histogram_handle(&self) -> metrics::Histogram {
        metrics::histogram!(self.name)
    }
}
