//! Ships files to a gateway: in chunks, with retries, and resumable after a crash or Ctrl-C.
//!
//! A chunk is acknowledged before the next one is read, and how far a file was acknowledged is remembered in a
//! checkpoint, so a second run continues where the first ended. Each chunk carries an `Idempotency-Key` made of the
//! file and its byte range: what is sent again after a crash is recognisable as the same.
//!
//! What the lines mean is not decided here. [`sniff`] tells apart only what needs different framing: OTLP bodies,
//! universal events, and everything else, which goes to `/v1/raw/auto` with its place in the stream.

mod checkpoint;
mod chunk;
mod error;
mod ship;
mod sniff;

pub use checkpoint::CheckpointStore;
pub use chunk::{Chunk, ChunkReader, Limits};
pub use error::ShipError;
pub use ship::{Options, Outcome, Progress, ship_file};
pub use sniff::{Framing, Target, sniff};
