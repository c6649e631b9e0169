//! The drop-in APIs: what the official SDKs send in, events out.

#![cfg(test)]

mod langfuse;
mod langsmith;
mod openai_agents;
mod opik;
mod pieces;
#[path = "../support/mod.rs"]
mod support;

use fleetlog_formats::{Body, Input, decode, inspect};
use fleetlog_schemas::event::AgentEvent;
use fleetlog_schemas::record::{Route, StreamContext};
use support::input;

/// A request to a drop-in API as the gateway passes it on.
#[derive(Clone, Copy)]
struct Request<'a> {
    hint: &'a str,
    content_type: &'a str,
    body: &'a [u8],
    /// The id in the path.
    id: &'a str,
}

impl<'a> Request<'a> {
    fn json(hint: &'a str, body: &'a [u8]) -> Self {
        Self { hint, content_type: "application/json", body, id: "" }
    }

    /// The events, after the gateway's and the processor's counts have been compared.
    fn events(self) -> Vec<AgentEvent> {
        let (decoded, settled, records) = self.run();
        assert_eq!(settled, (0..records).collect::<Vec<_>>(), "every record has one event or another fate");
        decoded
    }

    /// The same where a record may have several events.
    fn decoded(self) -> Vec<AgentEvent> {
        let (decoded, mut settled, records) = self.run();
        settled.dedup();
        assert_eq!(settled, (0..records).collect::<Vec<_>>(), "every record has events or another fate");
        decoded
    }

    fn run(self) -> (Vec<AgentEvent>, Vec<u32>, u32) {
        let Self { hint, content_type, body, id } = self;
        let bytes = Body { route: Route::Raw, content_type, format_hint: hint, bytes: body };
        let found = inspect::inspect(&bytes, "p1").unwrap();
        let rejected: Vec<u32> = found.rejected.iter().map(|rejected| rejected.index).collect();
        let stream = StreamContext { stream_id: id.to_owned(), ..StreamContext::default() };
        let input = Input {
            content_type,
            format_hint: hint,
            rejected: &rejected,
            stream: (!id.is_empty()).then_some(&stream),
            ..input(Route::Raw, "body.json", body)
        };
        let decoded = decode(&input).unwrap();
        let mut settled: Vec<u32> = decoded.events.iter().map(|event| event.raw_index).collect();
        settled.extend(decoded.eventless.iter().map(|entry| entry.index));
        settled.extend(&rejected);
        settled.sort_unstable();
        (decoded.events, settled, found.records)
    }
}
