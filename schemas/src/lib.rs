//! Names and shapes only: the event model, Avro schemas and ClickHouse DDL.
