//! The chain every request walks, whichever door it came in by.
//!
//! ```text
//! authenticate ─▶ admit ─▶ receive ─▶ turn ─▶ check (decompress, inspect, split) ─▶ charge ─▶ publish ─▶ acknowledged
//!      401,403    429,503   408,413   429,503      400,413,415                       429       503
//! ```
//!
//! Nothing is published before the whole body is checked, and nothing is answered before all of it is acknowledged, or,
//! with the spool on, synced to this machine's disk.

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use bytes::Bytes;
use fleetlog_formats::{Rejected, arrival};
use fleetlog_log::{ControlView, Principal, Producer, Target, Topics};
use fleetlog_runtime::Clock;
use fleetlog_schemas::id::Position;
use fleetlog_schemas::record::{RawBatch, Route, StreamContext};
use fleetlog_schemas::topic::partition_of;
use tokio::sync::SetOnce;

use crate::admission::{Admission, Admitted};
use crate::allowance::{Allowance, Allowances, Now};
use crate::auth::authenticate;
use crate::check::{Checked, Limits, Unchecked, check};
use crate::disk_watch::DiskWatch;
use crate::encoding;
use crate::error::Refusal;
use crate::grpc;
use crate::metrics::Meters;
use crate::overload::{Overload, Pass};
use crate::publish::{Stored, messages, publish};
use crate::receive::{BodyBounds, announced, receive, skip};
use crate::shape::{Echo, Shape};
use crate::spool::Spool;
use crate::throttle::RefusalLog;

/// Bodies of at least so many bytes as sent are checked on a thread that may be busy for milliseconds.
const OFFLOAD_BYTES: usize = 64 * 1024;
/// Longest body that only asks something.
const QUESTION_MAX_BYTES: usize = 16 * 1024;
/// Longest header value that is passed on; longer ones are cut.
const HEADER_MAX_CHARS: usize = 512;

/// What all requests share.
pub(crate) struct Gateway {
    pub(crate) id: String,
    pub(crate) clock: Clock,
    pub(crate) producer: Producer,
    /// Where requests go while Kafka does not acknowledge, if anywhere.
    pub(crate) spool: Option<Arc<Spool>>,
    /// The disk below which nothing is taken on, if one is watched.
    pub(crate) disk: Option<Arc<DiskWatch>>,
    /// Set once the topics exist and the keys are loaded.
    pub(crate) log: SetOnce<Log>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) overload: Overload,
    pub(crate) allowances: Allowances,
    pub(crate) body: BodyBounds,
    pub(crate) limits: Limits,
    pub(crate) meters: Meters,
    pub(crate) refusals: RefusalLog,
}

/// What is known of the cluster once it has been reached.
pub(crate) struct Log {
    pub(crate) topics: Topics,
    pub(crate) keys: ControlView,
}

/// By which door a request came in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Door {
    pub(crate) route: Route,
    pub(crate) format_hint: String,
    pub(crate) stream: Option<StreamContext>,
    pub(crate) shape: Shape,
    /// Whether the body is a gRPC message in its frame.
    pub(crate) framed: bool,
    /// Longest body as sent, where its protocol has a limit below the gateway's.
    pub(crate) body_max_bytes: Option<usize>,
}

/// A request that is durably stored.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) records: u32,
    pub(crate) rejected: Vec<Rejected>,
    /// Where they are in the raw topic; none when they are spooled.
    pub(crate) positions: Vec<Position>,
    /// Whether they are on this machine's disk instead of in Kafka (INV-1).
    pub(crate) is_spooled: bool,
    pub(crate) echo: Echo,
}

impl Gateway {
    /// Whom a request that brings nothing speaks for.
    ///
    /// # Errors
    /// As [`authenticate`], and before the keys are loaded.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Result<Principal, Refusal> {
        authenticate(&self.log.get().ok_or(Refusal::Starting)?.keys, headers)
    }

    /// Reads the body of a request that only asks something. It counts against what its key may send, as any body does.
    ///
    /// # Errors
    /// As [`authenticate`], before the keys are loaded, and where the body or its sender exceeds a bound.
    pub(crate) async fn hear(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
        let log = self.log.get().ok_or(Refusal::Starting)?;
        let principal = authenticate(&log.keys, headers)?;
        let bounds = BodyBounds { bytes: QUESTION_MAX_BYTES.min(self.body.bytes), ..self.body };
        let length = announced(headers, bounds)?;
        let allowance = self.allowances.of(&principal, log.keys.send_limits(&principal));
        allowance.judge(self.now())?;
        let mut admitted = self.admission.enter(&principal.project_id, length.unwrap_or(0))?;
        let body = receive(body, length, bounds, &mut admitted).await?;
        allowance.charge(0, body.len() as u64, self.now())?;
        Ok(body)
    }

    /// Walks a request through the chain.
    ///
    /// # Errors
    /// Why nothing of it is acknowledged.
    ///
    /// # Cancellation
    /// Dropped once publishing began, the records are stored all the same; the sender then knows nothing and
    /// repeats itself (INV-5).
    pub(crate) async fn accept(
        &self,
        request_id: &str,
        door: Door,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Accepted, Refusal> {
        let received_at = self.clock.now_ns();
        let log = self.log.get().ok_or(Refusal::Starting)?;
        let principal = authenticate(&log.keys, headers)?;
        self.disk.as_ref().map_or(Ok(()), |disk| disk.admit())?;
        let named = if door.framed { grpc::ENCODING } else { CONTENT_ENCODING };
        let encoding = encoding::named(headers, named)?;
        let bounds = self.bounds(&door);
        let length = announced(headers, bounds)?;
        let allowance = self.allowances.of(&principal, log.keys.send_limits(&principal));
        let (pass, mut admitted) = match self.admit(&allowance, &principal, length) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                skip(body, length).await;
                return Err(refusal);
            }
        };
        let body = receive(body, length, bounds, &mut admitted).await?;
        let (payload, encoding) = if door.framed {
            let (message, encoding) = grpc::unframe(&body, encoding)?;
            (message, Some(encoding))
        } else {
            (body, encoding)
        };
        let (bytes, route) = (payload.len(), door.route);
        let content_type = header(headers, CONTENT_TYPE.as_str());
        let unchecked = Unchecked {
            route,
            content_type: content_type.clone(),
            format_hint: door.format_hint.clone(),
            shape: door.shape,
            encoding,
            project_id: principal.project_id.as_ref().to_owned(),
            stream: door.stream.clone(),
            payload,
        };
        let turn = self.overload.turn(&principal.project_id, bytes).await?;
        let held = admitted.bytes();
        let (checked, admitted) = match self.check(unchecked, admitted).await {
            Ok(done) => done,
            Err(refusal) => {
                // What is wrong with it was found by reading all of it.
                let _owed_already = allowance.charge(0, bytes as u64, self.now()).is_err();
                return Err(refusal);
            }
        };
        turn.cost_more((admitted.bytes() - held) as u64);
        let target = target(&principal, headers, log.topics.raw);
        let envelope = self.envelope(request_id, received_at, &principal, door, headers, content_type);
        let (records, count) = (checked.records, checked.pieces.len());
        let charged = u64::from(records).saturating_sub(checked.rejected.len() as u64);
        allowance.charge(charged, bytes as u64, self.now())?;
        let echo = checked.echo.named(|| {
            let RawBatch { project_id, request_id, idempotency_key, .. } = &envelope;
            arrival(project_id, request_id, idempotency_key, 0).to_string()
        });
        if count > 0 {
            pass.used();
        }
        let messages = messages(&envelope, checked.pieces);
        let stored = match &self.spool {
            Some(spool) => spool.publish(&self.producer, messages.collect(), target).await,
            None => publish(&self.producer, messages, target).await,
        };
        let stored = stored.inspect_err(|refusal| {
            self.overload.not_published(&self.producer, refusal);
            allowance.refund(charged, self.now());
        })?;
        self.meters.accepted(records, checked.rejected.len(), bytes, count);
        if stored.times_kafka() {
            turn.served();
        }
        let (positions, is_spooled) = match stored {
            Stored::Replicated { positions, .. } => (positions, false),
            Stored::Spooled => (Vec::new(), true),
        };
        Ok(Accepted { records, rejected: checked.rejected, positions, is_spooled, echo })
    }

    pub(crate) fn now(&self) -> Now {
        Now { steady_ns: self.overload.steady_ns(), wall_ns: self.clock.now_ns() }
    }

    /// Whether a request may be read, before it is.
    fn admit(
        &self,
        allowance: &Allowance<'_>,
        principal: &Principal,
        length: Option<usize>,
    ) -> Result<(Pass<'_>, Admitted), Refusal> {
        allowance.judge(self.now())?;
        let pass = self.overload.enter(&self.producer, &principal.project_id)?;
        let admitted = self.admission.enter(&principal.project_id, length.unwrap_or(0))?;
        Ok((pass, admitted))
    }

    /// The bounds of a body at this door.
    fn bounds(&self, door: &Door) -> BodyBounds {
        let most = door.body_max_bytes.map_or(self.body.bytes, |own| own.min(self.body.bytes));
        let frame = if door.framed { grpc::PREFIX_BYTES } else { 0 };
        BodyBounds { bytes: most.saturating_add(frame), ..self.body }
    }

    async fn check(&self, body: Unchecked, mut admitted: Admitted) -> Result<(Checked, Admitted), Refusal> {
        let limits = self.limits;
        let is_small = body.payload.len() < OFFLOAD_BYTES;
        let work = move || {
            let checked = check(&body, limits, |more| admitted.reserve_more(more))?;
            Ok((checked, admitted))
        };
        if is_small {
            return work();
        }
        tokio::task::spawn_blocking(work).await.map_err(|e| Refusal::Internal(e.to_string()))?
    }

    fn envelope(
        &self,
        request_id: &str,
        received_at: i64,
        principal: &Principal,
        door: Door,
        headers: &HeaderMap,
        content_type: String,
    ) -> RawBatch {
        RawBatch {
            project_id: principal.project_id.as_ref().to_owned(),
            key_id: principal.key_id.as_ref().to_owned(),
            request_id: request_id.to_owned(),
            idempotency_key: header(headers, "idempotency-key"),
            received_at,
            gateway_id: self.id.clone(),
            route: door.route,
            format_hint: door.format_hint,
            content_type,
            user_agent: header(headers, USER_AGENT.as_str()),
            ..RawBatch::default()
        }
    }
}

/// A sender that names a session keeps its records in order in one partition; all others are spread.
fn target(principal: &Principal, headers: &HeaderMap, partitions: u32) -> Target {
    match headers.get("x-fleetlog-session") {
        Some(session) if !session.is_empty() => {
            Target::Partition(partition_of(&principal.project_id, session.as_bytes(), partitions))
        }
        _ => Target::Spread,
    }
}

fn header(headers: &HeaderMap, name: &str) -> String {
    let text = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.chars().take(HEADER_MAX_CHARS).collect()
}
