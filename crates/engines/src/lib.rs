//! Fetches, verifies, starts and stops the pinned Kafka and ClickHouse engines.
