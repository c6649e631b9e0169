//! Record in, events out: decode, normalise, redact, enrich.

pub mod pricing;
pub mod redact;
