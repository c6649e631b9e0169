//! Ships files from where they were left to their ends.

use std::path::Path;
use std::time::Duration;

use fleetlog_runtime::Shutdown;

use crate::checkpoint::CheckpointStore;
use crate::chunk::{LastLine, Limits};
use crate::courier::Courier;
use crate::error::ShipError;
use crate::shipment::Shipment;
use crate::sniff::Target;

/// Most reasons of refusals that are kept.
const MAX_REASONS: usize = 10;

/// Where and how to ship.
#[derive(Clone, Debug)]
pub struct Options {
    /// Base URL of the gateway.
    pub url: String,
    /// API key.
    pub key: String,
    /// Endpoint, when the file's bytes should not decide.
    pub target: Option<Target>,
    /// Name of the format of files that go to [`Target::Raw`], when their lines should not decide.
    pub format: Option<String>,
    /// Bounds of a chunk.
    pub limits: Limits,
    /// Where progress is remembered; `None` to forget it.
    pub checkpoints: Option<CheckpointStore>,
    /// Ignore an earlier checkpoint and start from the beginning.
    pub restart: bool,
}

/// Progress of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The file's size and where this run begins.
    Started {
        /// Size in bytes.
        size: u64,
        /// Bytes acknowledged by an earlier run.
        offset: u64,
    },
    /// Everything up to here is acknowledged.
    Acknowledged {
        /// Bytes acknowledged.
        offset: u64,
    },
    /// So many records are refused by now.
    Refused {
        /// Records of this run.
        records: u64,
    },
    /// The gateway asked for patience or does not answer.
    Waiting {
        /// How long until the next try.
        pause: Duration,
    },
}

/// What became of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Records accepted.
    pub accepted: u64,
    /// Records the gateway refused, with a message for the first few.
    pub rejected: u64,
    /// Where the refused ones are and why, at most ten.
    pub reasons: Vec<String>,
    /// Bytes that an earlier run had shipped already.
    pub resumed_at: u64,
    /// Records of that run that the gateway refused.
    pub refused_before: u64,
    /// Whether the bytes were recognised; what is not is kept as it is.
    pub recognised: bool,
}

impl Outcome {
    /// Adds what became of the file that took this one's place.
    pub(crate) fn add(&mut self, later: Self) {
        self.accepted += later.accepted;
        self.rejected += later.rejected;
        let room = MAX_REASONS.saturating_sub(self.reasons.len());
        self.reasons.extend(later.reasons.into_iter().take(room));
        self.resumed_at = self.resumed_at.max(later.resumed_at);
        self.refused_before = self.refused_before.max(later.refused_before);
        self.recognised |= later.recognised;
    }

    pub(crate) fn reject(&mut self, count: u64, reason: String) {
        self.rejected += count;
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push(reason);
        }
    }
}

/// Ships one file and returns when all of it is acknowledged or refused.
///
/// # Errors
/// [`ShipError`]; the acknowledged part is remembered and not sent again by the next run.
///
/// # Cancellation
/// Triggering `shutdown` stops before the next try or chunk with [`ShipError::Interrupted`].
pub async fn ship_file(
    path: &Path,
    options: &Options,
    shutdown: &Shutdown,
    mut report: impl FnMut(Progress),
) -> Result<Outcome, ShipError> {
    let mut shipment = Shipment::open(path, options)?;
    let size = shipment.size().map_err(|source| ShipError::Read { path: path.to_owned(), source })?;
    report(Progress::Started { size, offset: shipment.offset() });
    let courier = Courier::new(options, shutdown)?;
    shipment.advance(&courier, options, LastLine::Take, &mut report).await?;
    Ok(shipment.outcome)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use crate::gateway::Gateway;

    use super::*;

    fn options(gateway: &Gateway, state: &Path) -> Options {
        Options {
            limits: Limits { lines: 1, ..Limits::default() },
            checkpoints: Some(CheckpointStore::new(state.to_owned())),
            ..gateway.options()
        }
    }

    async fn ship(file: &Path, options: &Options) -> Outcome {
        ship_file(file, options, &Shutdown::new(), |_| {}).await.unwrap()
    }

    #[tokio::test]
    async fn a_second_run_sends_only_what_was_added() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.jsonl");
        let text = "{\"type\":\"log\"}\n{\"type\":\"log\",\"id\":\"2\"}\n";
        std::fs::write(&file, text).unwrap();
        let gateway = Gateway::start().await;
        let options = options(&gateway, &folder.path().join("state"));
        let first = ship(&file, &options).await;
        assert_eq!((first.accepted, first.rejected), (2, 0));
        std::fs::write(&file, format!("{text}{{\"type\":\"log\",\"id\":\"3\"}}\n")).unwrap();
        assert_eq!(ship(&file, &options).await.accepted, 1);
        let requests = gateway.requests();
        assert_eq!(requests.len(), 3);
        assert!(requests[2].body.contains("\"3\""));
        // Another project's gateway has got none of it.
        let other = Options { key: "fl_other_b".into(), ..options };
        assert_eq!(ship(&file, &other).await.accepted, 3);
    }

    #[tokio::test]
    async fn a_line_that_is_refused_takes_none_of_its_neighbours_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.jsonl");
        let line = |n: usize| format!("{{\"type\":\"log\",\"id\":\"{n}\"}}\n");
        let text: String =
            (0..7).map(|n| if n == 4 { line(n).replace("log", "TOO LARGE") } else { line(n) }).collect();
        std::fs::write(&file, text).unwrap();
        let gateway = Gateway::start().await;
        let options = Options { limits: Limits::default(), ..options(&gateway, folder.path()) };
        let sent = ship(&file, &options).await;
        assert_eq!((sent.accepted, sent.rejected), (6, 1));
        let stored: String = gateway.requests().into_iter().map(|request| request.body).collect();
        assert_eq!(stored.lines().count(), 6);
        assert!(sent.reasons[0].starts_with("lines 5–5: 413"), "{:?}", sent.reasons);
        let again = ship(&file, &options).await;
        assert_eq!((again.accepted, again.refused_before), (0, 1), "a refusal is not forgotten");
    }

    #[tokio::test]
    async fn an_overloaded_gateway_gets_the_same_chunk_again_under_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.jsonl");
        std::fs::write(&file, "{\"type\":\"log\"}\n{\"type\":\"log\",\"id\":\"2\"}\n").unwrap();
        let gateway = Gateway::start_failing_at(1).await;
        let (options, shutdown) = (options(&gateway, folder.path()), Shutdown::new());
        let mut waits = 0;
        let sent = ship_file(&file, &options, &shutdown, |progress| {
            waits += usize::from(matches!(progress, Progress::Waiting { .. }));
        });
        assert_eq!(sent.await.unwrap().accepted, 2);
        let requests = gateway.requests();
        assert_eq!((waits, requests.len()), (1, 3));
        assert_eq!(requests[1].key, requests[2].key, "the retry carries the key of the first try");
    }

    /// A transcript of which every line but the first needs what a line before it said.
    fn transcript() -> String {
        let mut text = String::new();
        for n in 0..9 {
            let turn = if n % 3 == 0 { format!("\"promptId\":\"t{n}\",") } else { String::new() };
            writeln!(text, "{{\"type\":\"system\",{turn}\"sessionId\":\"s\",\"uuid\":\"{n}\"}}").unwrap();
        }
        text
    }

    #[tokio::test]
    async fn every_chunk_says_what_the_lines_before_it_said_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.jsonl");
        let text = transcript();
        let gateway = Gateway::start().await;
        let options = options(&gateway, &folder.path().join("state"));
        let half: String = text.split_inclusive('\n').take(5).collect();
        std::fs::write(&file, half).unwrap();
        assert!(ship(&file, &options).await.recognised);
        std::fs::write(&file, &text).unwrap();
        ship(&file, &options).await;
        let requests = gateway.requests();
        let said: Vec<_> =
            requests.iter().map(|request| (request.get("line"), request.get("turn"))).collect();
        let expected = ["", "t0", "t0", "t0", "t3", "t3", "t3", "t6", "t6"];
        let lines = (0..9).map(|n: usize| n.to_string());
        assert_eq!(said, lines.zip(expected.map(str::to_owned)).collect::<Vec<_>>());
        assert!(requests.iter().skip(1).all(|request| request.get("session") == "s"));
        assert!(requests.iter().all(|request| request.get("stream") == requests[0].get("stream")));

        // A checkpoint written before contexts were remembered: the file is read again.
        let state = std::fs::read_dir(folder.path().join("state")).unwrap().next().unwrap().unwrap().path();
        let mut checkpoint: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
        checkpoint.as_object_mut().unwrap().remove("stream");
        std::fs::write(&state, checkpoint.to_string()).unwrap();
        std::fs::write(&file, text + "{\"type\":\"system\",\"sessionId\":\"s\",\"uuid\":\"x\"}\n").unwrap();
        ship(&file, &options).await;
        let last = gateway.requests().pop().unwrap();
        assert_eq!((last.get("turn").as_str(), last.get("stream")), ("t6", requests[0].get("stream")));
    }

    #[tokio::test]
    async fn an_otlp_file_counts_its_records() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("logs.json");
        let records = "{\"timeUnixNano\":\"1\"},{\"timeUnixNano\":\"2\"},{\"timeUnixNano\":\"3\"}";
        std::fs::write(
            &file,
            format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{records}]}}]}}]}}"),
        )
        .unwrap();
        let gateway = Gateway::start().await;
        assert_eq!(ship(&file, &options(&gateway, folder.path())).await.accepted, 3);
    }

    #[tokio::test]
    async fn a_document_is_sent_again_when_it_was_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ui_messages.json");
        let gateway = Gateway::start().await;
        let options = options(&gateway, &folder.path().join("state"));
        for (text, requests) in [
            ("[{\"ts\":1,\"say\":\"a\"}]", 1),
            ("[{\"ts\":1,\"say\":\"a\"}]", 1),
            ("[{\"ts\":1,\"say\":\"a\"},{\"ts\":2,\"say\":\"b\"}]", 2),
        ] {
            std::fs::write(&file, text).unwrap();
            ship(&file, &options).await;
            assert_eq!(gateway.requests().len(), requests);
        }
        let requests = gateway.requests();
        assert_eq!(requests[1].body.matches("ts").count(), 2);
        assert_eq!(requests[0].get("stream"), requests[1].get("stream"));
        assert_ne!(requests[0].key, requests[1].key);
    }

    #[tokio::test]
    async fn a_line_too_long_to_be_sent_is_refused_and_the_rest_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.jsonl");
        let long = format!("{{\"type\":\"log\",\"data\":\"{}\"}}", "x".repeat(500));
        std::fs::write(&file, format!("{{\"type\":\"log\"}}\n{long}\n{{\"type\":\"log\",\"id\":\"3\"}}\n"))
            .unwrap();
        let gateway = Gateway::start().await;
        let limits = Limits { line_bytes: 100, ..Limits::default() };
        let sent = ship(&file, &Options { limits, ..options(&gateway, folder.path()) }).await;
        assert_eq!((sent.accepted, sent.rejected), (2, 1));
        assert_eq!(sent.reasons, ["line 2: longer than 100 bytes"]);
    }
}
