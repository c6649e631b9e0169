//! The numbered ClickHouse migrations.
