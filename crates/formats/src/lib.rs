//! Bytes in, events out: one module a format, pure.
