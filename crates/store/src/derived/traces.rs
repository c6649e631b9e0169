//! Traces: which sessions name them, whose their events are, and what groups share in them.
//!
//! An event with a trace and without a session belongs to the session that the trace's earliest naming event names (by
//! time, then by the session's id). Who names whom is a set that only grows, so the answer depends on the facts alone;
//! it is written before the version is read under which a session is recomputed, and read after: of two recomputations
//! that see different owners the later version belongs to the one that saw more.

use super::facts::{GroupFilter, OWN_TIME, SIGHTING};
use super::listed_traces;
use crate::{Store, StoreError};

/// Traces that one statement names; bounds what it takes.
const TRACES_PER_STATEMENT: usize = 5000;

/// A trace that a session's events name.
#[derive(Clone, Debug, PartialEq, Eq, clickhouse::Row, serde::Serialize, serde::Deserialize)]
pub struct SessionTrace {
    /// Project.
    pub project_id: String,
    /// Trace.
    pub trace_id: String,
    /// Session.
    pub session_id: String,
    /// Time of the first event that names both, nanoseconds.
    pub first_at: i64,
    /// Day on which such an event was last received, seconds since the epoch.
    pub last_received_at: u32,
}

/// A session that a trace's events name.
#[derive(Clone, Debug, PartialEq, Eq, clickhouse::Row, serde::Deserialize)]
pub struct Naming {
    /// Project.
    pub project_id: String,
    /// Trace.
    pub trace_id: String,
    /// The sessions, the owner first: by the time since when they are named, then by id.
    pub sessions: Vec<String>,
}

/// An hour in which a trace has events that name no session.
#[derive(Clone, Debug, PartialEq, Eq, clickhouse::Row, serde::Deserialize)]
pub struct TraceHour {
    /// Project.
    pub project_id: String,
    /// Trace.
    pub trace_id: String,
    /// Hour.
    pub hour: i32,
}

/// What a group's events say about one trace. As in [`super::Summary`], nothing depends on order or repetition.
#[derive(Clone, Debug, Default, clickhouse::Row, serde::Deserialize)]
pub struct TraceShare {
    /// Project.
    pub project_id: String,
    /// Group, of the kind asked for.
    pub group_id: String,
    /// Trace.
    pub trace_id: String,
    /// Name in the trace's own record; empty when there is none.
    pub record_name: String,
    /// Name of the root span; empty when there is none.
    pub root_name: String,
    /// Person or account last named.
    pub last_user: String,
    /// Time of the first event, nanoseconds.
    pub started_at: i64,
    /// Time of the last event or its end, nanoseconds.
    pub ended_at: i64,
    /// When the first event was received, nanoseconds.
    pub first_received_at: i64,
    /// When the last event was received, nanoseconds.
    pub last_received_at: i64,
    /// Distinct events.
    pub event_count: u64,
    /// Distinct observations.
    pub observation_count: u64,
    /// Distinct observations, and events that are none, that failed.
    pub error_count: u64,
    /// Distinct scores.
    pub score_count: u64,
}

impl Store {
    /// The traces that the sessions' own events name.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn session_traces(&self, filter: &GroupFilter) -> Result<Vec<SessionTrace>, StoreError> {
        let lists = filter.lists();
        let sql = format!(
            "SELECT project_id, trace_id, session_id, min(timestamp) AS first_at, \
               toUnixTimestamp(toStartOfDay(max(received_at))) AS last_received_at \
             FROM {}.events WHERE {} AND trace_id != '' GROUP BY project_id, trace_id, session_id",
            self.database(),
            lists.facts(),
        );
        self.read_with(&sql, |query| lists.bind(query)).await
    }

    /// Adds to the set of sessions that traces name.
    ///
    /// # Errors
    /// After an error, add them again before anything is recomputed.
    pub async fn add_trace_sessions(&self, traces: &[SessionTrace]) -> Result<(), StoreError> {
        if traces.is_empty() {
            return Ok(());
        }
        let mut insert = self.insert::<SessionTrace>("trace_sessions", None).await?;
        for trace in traces {
            insert.write(trace).await.map_err(StoreError::from_client)?;
        }
        insert.end().await.map_err(StoreError::from_client)
    }

    /// The sessions that any of these traces (project, trace) name; a trace that names none is left out.
    ///
    /// # Errors
    /// Whatever keeps the queries from being answered.
    pub async fn trace_namings(&self, traces: &[(&str, &str)]) -> Result<Vec<Naming>, StoreError> {
        let mut namings = Vec::new();
        for chunk in traces.chunks(TRACES_PER_STATEMENT) {
            let named = listed_traces(chunk.iter().copied());
            let sql = format!(
                "SELECT project_id, trace_id, \
                   arrayMap(x -> x.2, arraySort(groupArray((since, session_id)))) AS sessions \
                 FROM (SELECT project_id, trace_id, session_id, min(first_at) AS since FROM {}.trace_sessions \
                       WHERE (project_id, trace_id) IN {named} GROUP BY project_id, trace_id, session_id) \
                 GROUP BY project_id, trace_id",
                self.database()
            );
            namings.extend(self.read_with::<Naming>(&sql, |query| named.bind(query)).await?);
        }
        Ok(namings)
    }

    /// The hours in which any of these traces (project, trace) has events that name no session.
    ///
    /// # Errors
    /// Whatever keeps the queries from being answered.
    pub async fn trace_hours(&self, traces: &[(&str, &str)]) -> Result<Vec<TraceHour>, StoreError> {
        let mut hours = Vec::new();
        for chunk in traces.chunks(TRACES_PER_STATEMENT) {
            let named = listed_traces(chunk.iter().copied());
            let sql = format!(
                "SELECT DISTINCT project_id, group_id AS trace_id, hour FROM {}.group_hours \
                 WHERE group_kind = 'trace' AND (project_id, group_id) IN {named}",
                self.database()
            );
            hours.extend(self.read_with::<TraceHour>(&sql, |query| named.bind(query)).await?);
        }
        Ok(hours)
    }

    /// What the groups share in each of their traces.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn trace_shares(&self, filter: &GroupFilter) -> Result<Vec<TraceShare>, StoreError> {
        let lists = filter.lists();
        let sql = format!(
            "WITH greatest(timestamp, ifNull(end_timestamp, timestamp)) AS ends_at \
             SELECT project_id, {group} AS group_id, trace_id, \
               argMaxIf(toString(name), (revision, timestamp, dedup_key), \
                 type = 'span' AND span_id = '' AND name != '') AS record_name, \
               argMinIf(toString(name), (timestamp, span_id, dedup_key), \
                 parent_id = '' AND name != '' AND {OBSERVATION}) AS root_name, \
               argMaxIf(toString(user_id), (timestamp, dedup_key), user_id != '') AS last_user, \
               if(countIf({OWN_TIME}) > 0, minIf(timestamp, {OWN_TIME}), min(timestamp)) AS started_at, \
               if(countIf({OWN_TIME}) > 0, maxIf(ends_at, {OWN_TIME}), max(ends_at)) AS ended_at, \
               min(received_at) AS first_received_at, max(received_at) AS last_received_at, \
               uniqExact(toUInt64(dedup_key)) AS event_count, \
               uniqExactIf(span_id, {OBSERVATION}) AS observation_count, \
               uniqExactIf(({OBSERVATION}, if({OBSERVATION}, span_id, ''), if({OBSERVATION}, 0, toUInt64(dedup_key))), \
                 type = 'error' OR (status = 'error' AND ({OBSERVATION} OR NOT ({SIGHTING})))) AS error_count, \
               uniqExactIf(toUInt64(dedup_key), type = 'score') AS score_count \
             FROM {db}.events WHERE {facts} AND trace_id != '' GROUP BY project_id, group_id, trace_id",
            group = lists.group(),
            db = self.database(),
            facts = lists.facts(),
        );
        self.read_with(&sql, |query| lists.bind(query)).await
    }
}

/// Events that report an observation: a thing with an id of its own within a trace.
const OBSERVATION: &str = "(span_id != '' AND type != 'score' AND channel IN ('span', 'api'))";
