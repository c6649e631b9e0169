//! The benchmark suite: load generator and reports.

fn main() {}
