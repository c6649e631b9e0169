//! The log's metrics, the same in every service.

use fleetlog_runtime::Metric;

/// Records refused by a full producer.
pub const QUEUE_FULL: Metric = Metric::counter(
    "fleetlog_log_queue_full_total",
    "Records refused because the producer's bounded queue was full.",
);
/// Records acknowledged.
pub const DELIVERED: Metric =
    Metric::counter("fleetlog_log_delivered_total", "Records acknowledged by every in-sync replica.");
/// Records not acknowledged.
pub const UNDELIVERED: Metric = Metric::counter(
    "fleetlog_log_undelivered_total",
    "Records that were queued and not acknowledged in time.",
);
/// Assignments.
pub const ASSIGNED: Metric =
    Metric::counter("fleetlog_log_assigned_total", "Partitions assigned to consumers of this process.");
/// Offsets lost.
pub const LOST: Metric = Metric::counter(
    "fleetlog_log_lost_offsets_total",
    "Offsets that retention deleted before the group had settled them: loss.",
);
/// Waiting for work to stop.
pub const REVOCATION_SECONDS: Metric = Metric::histogram(
    "fleetlog_log_revocation_seconds",
    "Time a rebalance waited for the work on revoked partitions to stop.",
);
/// Commits.
pub const COMMIT_SECONDS: Metric = Metric::histogram(
    "fleetlog_log_commit_seconds",
    "Time from a commit to its confirmation, retries included.",
);
/// Commits without an answer.
pub const UNANSWERED_COMMITS: Metric = Metric::counter(
    "fleetlog_log_unanswered_commits_total",
    "Times a commit was not answered within its budget: its outcome is unknown, and the partition waits for it.",
);

/// Transactions.
pub const TRANSACTIONS: Metric =
    Metric::counter("fleetlog_log_transactions_total", "Kafka transactions committed.");
/// Transactions that did not happen.
pub const ABORTED_TRANSACTIONS: Metric = Metric::counter(
    "fleetlog_log_aborted_transactions_total",
    "Kafka transactions aborted; what they held is tried again or left to the partition's next owner.",
);
/// Commits whose outcome was looked up.
pub const DOUBTFUL_TRANSACTIONS: Metric = Metric::counter(
    "fleetlog_log_doubtful_transactions_total",
    "Kafka transactions whose commit failed or was not answered, by what the committed offsets told afterwards: \
     committed or aborted.",
);

/// Offsets trimmed.
pub const TRIMMED: Metric = Metric::counter(
    "fleetlog_log_trimmed_offsets_total",
    "Offsets deleted behind the consumers: settled, and older than what is to be kept.",
);
/// Failed trims.
pub const TRIM_FAILURES: Metric = Metric::counter(
    "fleetlog_log_trim_failures_total",
    "Times a partition could not be trimmed; the next look repeats it.",
);

/// Every metric, for the generated table.
pub const ALL: &[Metric] = &[
    QUEUE_FULL,
    DELIVERED,
    UNDELIVERED,
    ASSIGNED,
    LOST,
    REVOCATION_SECONDS,
    COMMIT_SECONDS,
    UNANSWERED_COMMITS,
    TRANSACTIONS,
    ABORTED_TRANSACTIONS,
    DOUBTFUL_TRANSACTIONS,
    TRIMMED,
    TRIM_FAILURES,
];
