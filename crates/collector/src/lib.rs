//! Ships files to a gateway: in chunks, with retries, and resumable after a crash or Ctrl-C.
//!
//! A chunk is acknowledged before the next one is read, and how far a file was acknowledged is remembered in a
//! checkpoint, so a second run continues where the first ended. Each chunk carries an `Idempotency-Key` made of the
//! file and its byte range: what is sent again after a crash is recognisable as the same.
//!
//! What the lines mean is not decided here. [`sniff`] tells apart only what needs different framing: OTLP bodies,
//! universal events, and everything else, which goes to `/v1/raw` with its place in the stream and what the lines
//! before it said ([`fleetlog_formats::follow_body`]); that is remembered in the checkpoint too.
//!
//! [`follow()`] goes on with files as they grow, are replaced or cut off. The files themselves are the buffer: of each no
//! more than a chunk is in memory, and a gateway that is away only makes the reading wait.

mod checkpoint;
mod chunk;
mod courier;
mod error;
mod follow;
#[cfg(test)]
mod gateway;
mod ship;
mod shipment;
mod sniff;
mod walk;

pub use checkpoint::CheckpointStore;
pub use chunk::Limits;
pub use error::ShipError;
pub use follow::{Followed, follow};
pub use ship::{Options, Outcome, Progress, ship_file};
pub use sniff::{Framing, Target, sniff};
pub use walk::files_in;
