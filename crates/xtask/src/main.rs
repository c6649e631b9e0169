//! Developer commands; no product code.

fn main() {}
