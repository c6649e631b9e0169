//! Promises of the log on a real Kafka node, which all tests of this program share.
#![cfg(test)]

mod consumer;
mod control;
mod lookup;
mod node;
mod offsets;
mod outage;
mod producer;
mod spools;
mod transaction;
mod trim;
