//! The command line: up, send, keys, migrate, check-config.

fn main() {}
