//! The only user of the ClickHouse client; applies the DDL.
