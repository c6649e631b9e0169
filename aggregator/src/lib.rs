//! Writes facts to ClickHouse and keeps what is derived from them true.

pub mod derive;
