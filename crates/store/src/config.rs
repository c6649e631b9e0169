//! How to reach ClickHouse, and how long it keeps what it is given.

use fleetlog_runtime::{Secret, config_section};

config_section! {
    /// The ClickHouse server or embedded engine, shared by the services that use it.
    pub struct StoreConfig, "clickhouse" {
        /// Address of its HTTP interface.
        pub url: String = "http://127.0.0.1:8123".to_owned(),
        /// User.
        pub user: String = "default".to_owned(),
        /// Password; never logged.
        pub password: Secret = Secret::default(),
        /// Database of all tables; a plain identifier.
        pub database: String = "fleetlog".to_owned(),
        /// Cluster of one shard whose replicas hold the tables; empty: a single node. It must be set before the first
        /// start, and is not proved against a replicated server yet: docs/replication.md.
        pub cluster: String = String::new(),
        /// On a cluster: how far the clocks of its servers may be apart, milliseconds; a proof waits that much longer.
        pub clock_skew_ms: u32 = 5000,
        /// Whether requests and answers are compressed (LZ4): worth it across a network, not on one machine.
        pub compression: bool = false,
        /// Days that facts are kept after they were received.
        pub retention_days: u32 = 90,
        /// Days that calls, sessions and usage are kept.
        pub derived_retention_days: u32 = 396,
        /// Longest an insert may run, seconds; it bounds how long a retry has to wait for the proof of the first try.
        pub insert_timeout_s: u32 = 30,
        /// Longest a read of the aggregator may run, seconds.
        pub read_timeout_s: u32 = 60,
    }
}
