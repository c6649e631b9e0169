//! The only user of rdkafka: topics, producers, consumers, the control topic with its keys, and what gateways tell of their
//! spools.
//!
//! How a service uses it (`config` is the `kafka` section, [`KafkaConfig`]):
//!
//! ```no_run
//! # use fleetlog_log::*;
//! # async fn example(config: KafkaConfig, shutdown: fleetlog_runtime::Shutdown) -> Result<(), LogError> {
//! // At start: wait for the cluster and create what is missing.
//! let Some(topics) = Admin::new(&config)?.wait_for_topics(&shutdown).await? else { return Ok(()) };
//!
//! // Produce: `enqueue` never waits (a full queue is `LogError::QueueFull`), the delivery is acks=all.
//! let producer = Producer::new(&config, fleetlog_schemas::topic::EVENTS_MAX_MESSAGE_BYTES)?;
//! let delivery = producer.enqueue(Outgoing {
//!     topic: fleetlog_schemas::topic::EVENTS,
//!     target: Target::Partition(0),
//!     key: None,
//!     payload: Some(b"bytes"),
//! })?;
//! let position = delivery.await?;
//! producer.flush(std::time::Duration::from_secs(5)).await?;
//!
//! // Consume in a group: one reader a partition, each in a task of its own. Not reading is backpressure.
//! let options = ConsumerOptions::new("fleetlog.processor", fleetlog_schemas::topic::RAW);
//! let mut consumer = Consumer::start(&config, options)?;
//! while let Some(mut partition) = consumer.next_assignment().await? {
//!     // `partition.assignment()`: epoch, first offset, committed offset and metadata, `Start::Lost`.
//!     let lease = partition.lease(); // every task of the partition holds one; a revocation waits for all
//!     while let Some(read) = partition.next().await? {
//!         if let Read::Record(record) = read {
//!             lease.commit(record.position.offset + 1, "").await?; // confirmed; refused when not ours any more
//!         }
//!     }
//!     // `None`: revoked. Settle, commit, drop the partition and the leases.
//! }
//! consumer.close().await; // gives everything back, waiting for the leases
//!
//! // Keys: a view that follows the control topic; `follow` runs as a supervised task.
//! let (view, follower) = ControlView::open(&config)?;
//! # let task =
//! follower.follow(shutdown); // .await
//! view.caught_up().await;
//! let principal = view.authenticate("fl_<key id>_<secret>"); // Result<Principal, AuthError>
//! # drop(task);
//! # Ok(())
//! # }
//! ```

mod admin;
mod config;
mod consumer;
mod context;
mod control;
mod error;
mod lookup;
pub mod metrics;
mod offsets;
mod producer;
mod record;
mod spools;
mod tail;
mod transaction;
mod trim;

pub use admin::{Admin, Topics};
pub use config::{Compression, KafkaConfig, Security};
pub use consumer::{AssignedPartition, Assignment, Committed, Consumer, ConsumerOptions, Lease, Read, Start};
pub use control::{AuthError, ControlFollower, ControlView, ControlWriter, NewKey, Principal};
pub use error::LogError;
pub use lookup::Lookup;
pub use offsets::Offsets;
pub use producer::{Acks, Delivery, Outgoing, Producer, Target};
pub use record::{Isolation, Record};
pub use spools::{SpoolReader, forget_spool, tell_spool};
pub use tail::{From, Tail, TailRead};
pub use transaction::{TRANSACTION_TIMEOUT_MOST_MS, TransactionLog, Transactor, Unit, Write};
pub use trim::Trimmer;
