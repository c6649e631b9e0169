//! The aggregator's metrics.

use fleetlog_runtime::Metric;

/// Rows stored.
pub const ROWS: Metric =
    Metric::counter("fleetlog_aggregator_rows_total", "Rows stored as facts, by topic they came from.");
/// Ranges stored.
pub const RANGES: Metric = Metric::counter(
    "fleetlog_aggregator_ranges_total",
    "Ranges of a partition stored and committed, by topic; each is one insert a table.",
);
/// Time of storing a range.
pub const STORE_SECONDS: Metric = Metric::histogram(
    "fleetlog_aggregator_store_seconds",
    "Time to store one range, retries included, seconds.",
);
/// Attempts repeated.
pub const STORE_RETRIES: Metric = Metric::counter(
    "fleetlog_aggregator_store_retries_total",
    "Times that a range was not stored and was tried again, by error code.",
);
/// Rows proved missing.
pub const MISSING_ROWS: Metric = Metric::counter(
    "fleetlog_aggregator_missing_rows_total",
    "Rows that were proved missing after an insert of unknown outcome, and were inserted alone.",
);
/// Rows that are refused.
pub const REFUSED_ROWS: Metric = Metric::counter(
    "fleetlog_aggregator_refused_rows_total",
    "Rows that ClickHouse refuses for their data, stored as stand-ins at their positions, by table; after a crash a row \
     may be counted again.",
);
/// Questions asked to find them.
pub const REFUSAL_PROBES: Metric = Metric::counter(
    "fleetlog_aggregator_refusal_probes_total",
    "Inserts into probe tables, made to find the rows that ClickHouse refuses.",
);
/// Rows stored twice.
pub const REPEATED_ROWS: Metric = Metric::counter(
    "fleetlog_aggregator_repeated_rows_total",
    "Rows found stored twice when positions were read back: a broken promise (INV-4).",
);
/// Ranges proved again.
pub const REPLAYED_RANGES: Metric = Metric::counter(
    "fleetlog_aggregator_replayed_ranges_total",
    "Ranges that an earlier owner had on their way and that were proved on assignment, by topic.",
);
/// Duplicates.
pub const DUPLICATES: Metric = Metric::counter(
    "fleetlog_aggregator_duplicates_total",
    "Events that were stored already and came again: counted, not stored.",
);
/// Exact lookups.
pub const LOOKUPS: Metric = Metric::counter(
    "fleetlog_aggregator_dedup_lookups_total",
    "Events that memory could not tell to be new and that were looked up among the stored ones.",
);
/// How far memory reaches back.
pub const DEDUP_HORIZON: Metric = Metric::gauge(
    "fleetlog_aggregator_dedup_horizon_seconds",
    "Own time of an event, seconds since the epoch, from which on repeats are recognised from memory, by partition.",
);
/// How far memory reaches back for events without times.
pub const DEDUP_UNTIMED_HORIZON: Metric = Metric::gauge(
    "fleetlog_aggregator_dedup_untimed_horizon_seconds",
    "Receipt of an event without a time of its own, seconds since the epoch, from which on repeats are recognised from \
     memory, by partition.",
);
/// Memory for recognising repeats.
pub const DEDUP_BYTES: Metric = Metric::gauge(
    "fleetlog_aggregator_dedup_bytes",
    "Memory in use for recognising repeats, bytes, by partition.",
);
/// Time between inserts.
pub const BATCH_WAIT: Metric = Metric::gauge(
    "fleetlog_aggregator_batch_wait_seconds",
    "Time between two inserts of a partition as it was chosen, seconds.",
);
/// Records that do not decode.
pub const UNDECODABLE: Metric = Metric::counter(
    "fleetlog_aggregator_undecodable_total",
    "Records of the events or dead-letter topic that do not decode; they become dead letters.",
);
/// Records lost to retention.
pub const LOST: Metric = Metric::counter(
    "fleetlog_aggregator_lost_offsets_total",
    "Offsets that retention deleted before they were stored.",
);
/// Groups recomputed.
pub const DERIVED_GROUPS: Metric = Metric::counter(
    "fleetlog_aggregator_derived_groups_total",
    "Groups (sessions, traces, minutes without either) recomputed.",
);
/// Sightings read.
pub const DERIVED_SIGHTINGS: Metric = Metric::counter(
    "fleetlog_aggregator_derived_sightings_total",
    "Events read to recompute groups; divided by stored rows: how often a fact is read again.",
);
/// Time of a recomputation.
pub const DERIVE_SECONDS: Metric = Metric::histogram(
    "fleetlog_aggregator_derive_seconds",
    "Time of one recomputation: read, derive, write, usage, seconds.",
);
/// Failed recomputations.
pub const DERIVE_RETRIES: Metric = Metric::counter(
    "fleetlog_aggregator_derive_retries_total",
    "Recomputations that failed and are repeated, by error code.",
);
/// Groups waiting.
pub const DERIVE_PENDING: Metric =
    Metric::gauge("fleetlog_aggregator_derive_pending_groups", "Touched groups that wait for recomputation.");
/// Groups set aside.
pub const DERIVE_ASIDE: Metric = Metric::gauge(
    "fleetlog_aggregator_derive_set_aside_groups",
    "Touched groups that cannot be recomputed: tried again now and then, while the others go on. Alert above 0.",
);
/// Age of the oldest one.
pub const DERIVE_LAG: Metric = Metric::gauge(
    "fleetlog_aggregator_derive_lag_seconds",
    "How long the group that waits longest has been waiting, seconds.",
);
/// Overflows.
pub const DERIVE_OVERFLOWS: Metric = Metric::counter(
    "fleetlog_aggregator_derive_overflows_total",
    "Ranges whose touched groups did not fit into memory and are found again in the store.",
);

/// All of them, for the reference.
pub const ALL: &[Metric] = &[
    ROWS,
    RANGES,
    STORE_SECONDS,
    STORE_RETRIES,
    MISSING_ROWS,
    REFUSED_ROWS,
    REFUSAL_PROBES,
    REPEATED_ROWS,
    REPLAYED_RANGES,
    DUPLICATES,
    LOOKUPS,
    DEDUP_HORIZON,
    DEDUP_UNTIMED_HORIZON,
    DEDUP_BYTES,
    BATCH_WAIT,
    UNDECODABLE,
    LOST,
    DERIVED_GROUPS,
    DERIVED_SIGHTINGS,
    DERIVE_SECONDS,
    DERIVE_RETRIES,
    DERIVE_PENDING,
    DERIVE_ASIDE,
    DERIVE_LAG,
    DERIVE_OVERFLOWS,
];
