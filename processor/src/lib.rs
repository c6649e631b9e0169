//! Record in, events out: decode, normalise, redact, enrich.
