//! The gateway as its senders see it: in this process, on a free port, in front of a real Kafka node.
#![cfg(test)]

mod answers;
mod bounds;
mod grpc;
mod harness;
mod hooks;
mod langfuse;
mod langsmith;
mod limits;
mod openai;
mod opik;
mod otlp;
mod outage;
mod overload;
mod spool;
