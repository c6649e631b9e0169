//! What this crate sends fits the tables, on a real engine.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod confined;
mod derived;
mod facts;
mod found;
mod refusal;
mod settlement;
#[path = "../support/mod.rs"]
mod support;

use fleetlog_store::derived::{DerivedGroup, GroupKey};
use fleetlog_store::row::Row;
use fleetlog_store::{Call, Contribution, GroupKind, ReaderLimits, Session, Store, Tool, Trace, UsageRow};
use support::NOON;

#[derive(Row, serde::Deserialize, Debug, PartialEq)]
#[clickhouse(crate = "fleetlog_store::row")]
pub(crate) struct Counted {
    pub(crate) n: u64,
}

/// Rows that a project finds there.
pub(crate) async fn count(store: &Store, project: &str, from: &str) -> u64 {
    let reader = store.reader(ReaderLimits::default()).await.unwrap().project(project).unwrap();
    let sql = format!("SELECT count() AS n FROM {from}");
    reader.query(&sql).fetch_all::<Counted>().await.unwrap()[0].n
}

/// Runs a statement as an operator would.
pub(crate) async fn operator(url: &str, sql: &str) -> String {
    let answer = reqwest::Client::new().post(url).body(sql.to_owned()).send().await.unwrap();
    assert!(answer.status().is_success(), "{sql}");
    answer.text().await.unwrap()
}

pub(crate) fn key(id: &str) -> GroupKey {
    GroupKey { project_id: "p".to_owned(), kind: GroupKind::Session, id: id.to_owned() }
}

/// A group with these calls and their tokens, so many tools, a minute of usage and a trace.
pub(crate) fn group(id: &str, calls: &[(&str, u64)], tools: usize) -> DerivedGroup {
    let minute = (NOON / 1_000_000_000) as u32;
    let sums = UsageRow {
        model: "m".to_owned(),
        calls: calls.len() as u64,
        in_uncached: calls.iter().map(|(_, tokens)| tokens).sum(),
        cost_reported: 1_000_000,
        ..UsageRow::default()
    };
    DerivedGroup {
        key: key(id),
        session: Session {
            started_at: NOON,
            ended_at: NOON,
            first_received_at: NOON,
            last_received_at: NOON,
            event_count: 9,
            agents: vec!["main".to_owned()],
            ..Session::default()
        },
        calls: calls
            .iter()
            .map(|(name, tokens)| Call {
                call_key: (*name).to_owned(),
                timestamp: NOON,
                received_at: NOON,
                status: "ok",
                in_uncached: *tokens,
                cost_reported: Some(2_643_000),
                ..Call::default()
            })
            .collect(),
        tools: (0..tools)
            .map(|n| Tool { call_key: n.to_string(), status: "error", exit_code: Some(1), ..Tool::default() })
            .collect(),
        contributions: vec![Contribution {
            minute,
            usage: if calls.is_empty() { Vec::new() } else { vec![sums] },
        }],
        traces: vec![Trace {
            trace_id: "trace".to_owned(),
            name: "answer".to_owned(),
            started_at: NOON,
            ended_at: NOON + 1_500_000_000,
            last_received_at: NOON,
            event_count: calls.len() as u64,
            llm_call_count: calls.len() as u64,
            in_uncached: calls.iter().map(|(_, tokens)| tokens).sum(),
            ..Trace::default()
        }],
    }
}
