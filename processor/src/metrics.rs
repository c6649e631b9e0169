//! The processor's metrics.

use fleetlog_runtime::Metric;

/// Raw records settled.
pub const RAW_RECORDS: Metric = Metric::counter(
    "fleetlog_processor_raw_records_total",
    "Raw records (requests or pieces of them) settled.",
);
/// Events produced.
pub const EVENTS: Metric = Metric::counter("fleetlog_processor_events_total", "Events produced.");
/// Events kept whole because they were not understood.
pub const UNKNOWN_EVENTS: Metric = Metric::counter(
    "fleetlog_processor_unknown_events_total",
    "Events kept as raw.unknown, by reason: unknown_type, unknown_format, bad_shape, no_context or too_many_events.",
);
/// Records by fate.
pub const RECORDS: Metric = Metric::counter(
    "fleetlog_processor_records_total",
    "Records as the gateway counted them, by fate: event, filtered, dead or context.",
);
/// Records dropped by policy.
pub const FILTERED_RECORDS: Metric = Metric::counter(
    "fleetlog_processor_filtered_records_total",
    "Records dropped by policy, by rule: those of processor.span_policy, and what a format never stores.",
);
/// Dead letters by reason.
pub const DEAD_LETTERS: Metric =
    Metric::counter("fleetlog_processor_dead_letters_total", "Dead letters written, by reason.");
/// Secrets replaced.
pub const REDACTIONS: Metric =
    Metric::counter("fleetlog_processor_redactions_total", "Secrets replaced in events, by rule.");
/// Calls without a computed cost.
pub const UNPRICED_CALLS: Metric = Metric::counter(
    "fleetlog_processor_unpriced_calls_total",
    "Records that state a call to a model and cannot be priced by themselves, by reason: no_model, unknown_model, other_host, no_price_then, \
     unknown_tier, no_tokens or absurd.",
);
/// Numbers that cannot be.
pub const IMPLAUSIBLE: Metric = Metric::counter(
    "fleetlog_processor_implausible_events_total",
    "Events of which a number is kept out of its column because it cannot be, by what it is of: tokens (a bucket of a \
     call above 1,000,000,000), cost (above 1,000,000 USD) or duration (negative, or longer than a year).",
);
/// Events by format and version.
pub const FORMAT_EVENTS: Metric = Metric::counter(
    "fleetlog_processor_format_events_total",
    "Events, by format and version of the sending program; the base of the rates below.",
);
/// Records not understood, by format and version.
pub const FORMAT_UNKNOWN: Metric = Metric::counter(
    "fleetlog_processor_format_unknown_total",
    "Events kept as raw.unknown, by format and version.",
);
/// Fields that no capture had, by format and version.
pub const FORMAT_NEW_FIELDS: Metric = Metric::counter(
    "fleetlog_processor_format_new_fields_total",
    "Fields that none of the captures had from which a format was mapped, by format and version.",
);
/// Calls, by format and version.
pub const FORMAT_CALLS: Metric = Metric::counter(
    "fleetlog_processor_format_calls_total",
    "Sightings of calls to a model that did not fail, by format and version.",
);
/// Calls without tokens, by format and version.
pub const FORMAT_ZERO_TOKEN_CALLS: Metric = Metric::counter(
    "fleetlog_processor_format_zero_token_calls_total",
    "Sightings of calls to a model that did not fail and state no tokens, by format and version.",
);
/// Records processed alone.
pub const ISOLATED_RECORDS: Metric = Metric::counter(
    "fleetlog_processor_isolated_records_total",
    "Raw records processed alone, because an earlier owner of the partition did not survive the cycle they were in.",
);
/// Time of a cycle's transformations.
pub const TRANSFORM_SECONDS: Metric = Metric::histogram(
    "fleetlog_processor_transform_seconds",
    "Time to decode, enrich and encode one cycle's raw records, seconds.",
);
/// Time of a cycle.
pub const CYCLE_SECONDS: Metric = Metric::histogram(
    "fleetlog_processor_cycle_seconds",
    "Time of one cycle from its first record read to its commit, seconds.",
);
/// All of them, for the reference.
pub const ALL: &[Metric] = &[
    RAW_RECORDS,
    EVENTS,
    UNKNOWN_EVENTS,
    RECORDS,
    FILTERED_RECORDS,
    DEAD_LETTERS,
    REDACTIONS,
    UNPRICED_CALLS,
    IMPLAUSIBLE,
    FORMAT_EVENTS,
    FORMAT_UNKNOWN,
    FORMAT_NEW_FIELDS,
    FORMAT_CALLS,
    FORMAT_ZERO_TOKEN_CALLS,
    ISOLATED_RECORDS,
    TRANSFORM_SECONDS,
    CYCLE_SECONDS,
];
