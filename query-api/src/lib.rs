//! Read-only answers over the stored facts and derivations.
