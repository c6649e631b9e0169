//! Promises of the log on a real Kafka node, which all tests of this program share.

mod consumer;
mod control;
mod node;
mod producer;
