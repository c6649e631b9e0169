//! Turns requests into accepted log records.
