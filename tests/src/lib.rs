//! End-to-end promises on real Kafka and the real ClickHouse engine.
