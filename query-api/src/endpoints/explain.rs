//! `/v1/usage/explain`: how the numbers of one call came about.

use axum::Json;
use axum::extract::State;
use fleetlog_schemas::event::{Channel, UsageRole};
use fleetlog_store::row::Row;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::answer::{Instant, Money, One};
use crate::auth::Caller;
use crate::endpoints::calls::LlmCall;
use crate::endpoints::events::{EventHint, EventRow};
use crate::error::{ErrorBody, QueryError};
use crate::params::{Params, WaitParams};
use crate::pipeline::{Api, Rests};
use crate::sql::{self, CallPlace};

/// Most events that are shown beside a call.
const SIGHTINGS_MAX: u32 = 200;
const NS_PER_MINUTE: i64 = 60_000_000_000;

/// Which call: an event that tells of it, or its key with its session or trace.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExplainParams {
    /// The call's `call_key`; needs `session` or `trace`.
    call: Option<String>,
    /// Session of the call.
    session: Option<String>,
    /// Trace of the call, where it has no session.
    trace: Option<String>,
    /// Id of any event that tells of the call.
    event: Option<String>,
    /// The event's `timestamp`: it is then found at once, however old it is.
    at: Option<String>,
    /// Start of the time in which to look for the event, by default one day ago.
    from: Option<String>,
    /// End of the time in which to look for the event, by default now.
    to: Option<String>,
}

/// An event that tells of a call, as it is stored.
#[derive(Clone, Debug, Default, Row, Serialize, Deserialize, ToSchema)]
#[clickhouse(crate = "fleetlog_store::row")]
pub(crate) struct Sighting {
    /// The event.
    event_id: String,
    /// Program that emitted it.
    source: String,
    /// Format it arrived in.
    source_format: String,
    /// Version of the program.
    source_version: String,
    /// Channel it arrived by.
    channel: String,
    /// Type of the event.
    r#type: String,
    /// When it happened.
    timestamp: Instant,
    /// When it ended; null when not said.
    end_timestamp: Option<Instant>,
    /// When it was received.
    received_at: Instant,
    /// Trace.
    trace_id: String,
    /// Span.
    span_id: String,
    /// Turn.
    turn_id: String,
    /// The provider's or SDK's id of the request.
    request_id: String,
    /// Model.
    model: String,
    /// How it ended.
    status: String,
    /// What its counts describe: `none`, `call`, `rollup` or `cumulative`.
    usage_role: String,
    /// Convention its counts were converted from.
    token_basis: String,
    /// Input tokens neither read from nor written to a cache, as it states them.
    in_uncached: u64,
    /// Input tokens read from a cache.
    cache_read: u64,
    /// Input tokens written to a 5-minute cache.
    cache_write_5m: u64,
    /// Input tokens written to a 1-hour cache.
    cache_write_1h: u64,
    /// Output tokens that are not reasoning.
    out_visible: u64,
    /// Output tokens spent on reasoning.
    out_reasoning: u64,
    /// Cost it reports; null when it reports none.
    cost_reported: Option<Money>,
    /// Cost of its counts by the price table; null when unknown.
    cost_computed: Option<Money>,
    /// Version of the price table.
    price_version: String,
    /// Key of the call that it names.
    llm_call_key: String,
    /// Family of records whose channels share no id.
    call_family: String,
    /// Rank among the records of its family, channel and turn; the lowest counts.
    precedence: u32,
    /// Order among the pieces of one thing; 0 where the record is whole.
    revision: i64,
}

/// What became of a sighting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Its token counts are the call's.
    Counted,
    /// It is merged into the call; its counts are not used.
    Merged,
    /// It is not part of this call.
    Apart,
}

/// A sighting with what became of it and why.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Judged {
    /// What became of it.
    verdict: Verdict,
    /// Why.
    why: &'static str,
    #[serde(flatten)]
    sighting: Sighting,
}

/// A call and everything that was said of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Explained {
    /// The call as it is counted.
    call: LlmCall,
    /// What was said of it, by time; and of other channels near it what no id joins to it.
    sightings: Vec<Judged>,
}

/// How the numbers of one call came about: every sighting of it, which one counts, and why.
#[utoipa::path(
    get,
    path = "/v1/usage/explain",
    operation_id = "explain_usage",
    tag = "usage",
    params(ExplainParams, WaitParams),
    responses(
        (status = 200, body = One<Explained>),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn explain(
    State(api): State<Api>,
    caller: Caller,
    Params(asked, wait): Params<ExplainParams>,
) -> Result<Json<One<Explained>>, QueryError> {
    let currency = api.current(&caller, &wait, Rests::Derivations).await?;
    let place = place(&api, &caller, &asked).await?;
    let statement =
        sql::explained_call(caller.project_id(), &place, asked.call.as_deref(), asked.event.as_deref());
    let found = api.rows::<LlmCall>(&caller, statement).await?;
    let call = found.into_iter().next().ok_or(QueryError::NotFound { what: "call to a model" })?;
    let groups = (call.session_id.as_str(), call.trace_id.as_str());
    let told = (call.call_key.as_str(), call.event_ids.as_slice());
    let statement = sql::sightings(caller.project_id(), groups, told, call.timestamp.0, SIGHTINGS_MAX);
    let sightings = api.rows::<Sighting>(&caller, statement).await?;
    let sightings = judged(&call, sightings);
    Ok(Json(One { data: Explained { call, sightings }, currency }))
}

/// Where the call may be.
async fn place(api: &Api, caller: &Caller, asked: &ExplainParams) -> Result<CallPlace, QueryError> {
    let bad = |name: &str, message: &str| QueryError::BadParameter {
        name: name.to_owned(),
        message: message.to_owned(),
    };
    match (&asked.event, &asked.call) {
        (Some(_), Some(_)) => Err(bad("event", "give either event or call")),
        (None, None) => Err(bad("event", "give event, or call with session or trace")),
        (None, Some(_)) => {
            let groups: Vec<String> = asked.session.iter().chain(&asked.trace).cloned().collect();
            if groups.is_empty() {
                return Err(bad("call", "give session or trace too"));
            }
            Ok(CallPlace { groups, trace: asked.trace.clone() })
        }
        (Some(event_id), None) => {
            let hint = EventHint::new(asked.at.clone(), asked.from.clone(), asked.to.clone());
            let statement = sql::event_by_id(caller.project_id(), hint.range(api)?, event_id);
            let row = api.rows::<EventRow>(caller, statement).await?.into_iter().next();
            let row = row.ok_or(QueryError::NotFound {
                what: "event in this range of time; give at, or from and to",
            })?;
            let (session_id, trace_id, timestamp_ns) = row.belongs();
            let minute = timestamp_ns / NS_PER_MINUTE * 60;
            Ok(match (session_id, trace_id) {
                ("", "") => CallPlace { groups: vec![minute.to_string()], trace: None },
                ("", trace) => CallPlace { groups: vec![trace.to_owned()], trace: Some(trace.to_owned()) },
                (session, _) => CallPlace { groups: vec![session.to_owned()], trace: None },
            })
        }
    }
}

/// The sightings with their verdicts. Other calls of the winner's own channel are not shown.
fn judged(call: &LlmCall, sightings: Vec<Sighting>) -> Vec<Judged> {
    let counted = sightings.iter().find(|sighting| sighting.event_id == call.event_id).cloned();
    let counted = counted.unwrap_or_default();
    sightings
        .into_iter()
        .filter_map(|sighting| {
            let (verdict, why) = judge(call, &counted, &sighting)?;
            Some(Judged { verdict, why, sighting })
        })
        .collect()
}

/// What became of one sighting, by the order of the rules that count calls:
///
/// | the sighting | verdict | why |
/// |---|---|---|
/// | is the event whose counts are used | counted | the most authoritative that states usage, or nothing does |
/// | is listed by the call, or names its key | merged | the first that holds: no usage, a piece, no tokens, a lesser channel, less complete, later |
/// | is of the winner's family, turn and channel with a higher precedence | apart | a preferred record of the turn counts |
/// | is of the winner's family and another channel | apart | no id joins the channels |
fn judge(call: &LlmCall, counted: &Sighting, sighting: &Sighting) -> Option<(Verdict, &'static str)> {
    let states_usage = |sighting: &Sighting| {
        [UsageRole::Call, UsageRole::Cumulative].iter().any(|role| role.as_str() == sighting.usage_role)
    };
    if sighting.event_id == call.event_id {
        let why = match (call.sightings, states_usage(sighting)) {
            (_, false) => "nothing states the usage of this call; this event names it best",
            (1, true) => "the only event that tells of this call",
            (_, true) => {
                "states usage, by the most authoritative channel that does, and is the most complete there"
            }
        };
        return Some((Verdict::Counted, why));
    }
    let listed = call.event_ids.contains(&sighting.event_id)
        || (sighting.call_family.is_empty() && sighting.llm_call_key == call.call_key);
    if listed {
        let why = if sighting.revision > 0 && sighting.channel == counted.channel && counted.revision > 0 {
            "a piece of the same record; field by field the latest that says something is used"
        } else if !states_usage(sighting) {
            "tells of the call, and states no usage of it"
        } else if tokens(sighting) == 0 {
            "states no tokens"
        } else if authority(sighting) > authority(counted) {
            "a lesser channel than the one that counts"
        } else if tokens(sighting) < tokens(counted) {
            "less complete than the one that counts"
        } else {
            "says no more than the one that counts"
        };
        return Some((Verdict::Merged, why));
    }
    if counted.call_family.is_empty() || sighting.call_family != counted.call_family {
        return None;
    }
    if sighting.channel != counted.channel {
        return Some((
            Verdict::Apart,
            "another channel of the family, which shares no id of a call: it counts only outside the time that better channels cover",
        ));
    }
    let outranked = sighting.turn_id == counted.turn_id && sighting.precedence > counted.precedence;
    outranked.then_some((Verdict::Apart, "a preferred record of the same turn states the usage"))
}

fn tokens(sighting: &Sighting) -> u64 {
    [
        sighting.in_uncached,
        sighting.cache_read,
        sighting.cache_write_5m,
        sighting.cache_write_1h,
        sighting.out_visible,
        sighting.out_reasoning,
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

/// The order of [`Channel`] is the order of authority.
fn authority(sighting: &Sighting) -> Channel {
    Channel::parse(&sighting.channel).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(id: &str, channel: &str, role: &str, tokens: u64) -> Sighting {
        Sighting {
            event_id: id.to_owned(),
            channel: channel.to_owned(),
            usage_role: role.to_owned(),
            in_uncached: tokens,
            ..Sighting::default()
        }
    }

    fn verdicts(call: &LlmCall, sightings: &[Sighting]) -> Vec<(Verdict, &'static str)> {
        judged(call, sightings.to_vec()).into_iter().map(|judged| (judged.verdict, judged.why)).collect()
    }

    #[test]
    fn every_sighting_says_why_its_counts_are_used_or_not() {
        let ids = ["log", "span", "text", "partial"];
        let call = LlmCall::for_test("log", &ids, 4);
        let seen = [
            sighting("log", "agent_log", "call", 21),
            sighting("span", "span", "call", 21),
            sighting("text", "agent_log", "none", 0),
            sighting("partial", "agent_log", "call", 3),
        ];
        let whys: Vec<_> = verdicts(&call, &seen).into_iter().map(|(_, why)| why).collect();
        assert_eq!(
            whys,
            [
                "states usage, by the most authoritative channel that does, and is the most complete there",
                "a lesser channel than the one that counts",
                "tells of the call, and states no usage of it",
                "less complete than the one that counts",
            ]
        );
    }

    #[test]
    fn what_no_id_joins_is_shown_apart_and_other_calls_are_not() {
        let of = |id: &str, channel: &str, precedence: u32| Sighting {
            call_family: "codex".to_owned(),
            precedence,
            ..sighting(id, channel, "call", 200)
        };
        let call = LlmCall::for_test("log", &["log"], 1);
        let seen = [
            of("log", "agent_log", 0),
            of("next", "agent_log", 0),
            of("worse", "agent_log", 1),
            of("rollout", "transcript", 0),
        ];
        let verdicts: Vec<_> = verdicts(&call, &seen).into_iter().map(|(verdict, _)| verdict).collect();
        assert_eq!(verdicts, [Verdict::Counted, Verdict::Apart, Verdict::Apart]);
    }
}
