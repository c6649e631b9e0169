//! `/v1/events` and `/v1/events/{id}`: stored events in their API form.

use axum::Json;
use axum::extract::State;
use fleetlog_schemas::api::{self, ApiEvent, FieldKind};
use fleetlog_schemas::event::{
    AgentEvent, Channel, EventType, Status, TimestampSource, TokenBasis, UsageRole,
};
use fleetlog_schemas::id::{Key128, NanoUsd};
use fleetlog_store::row::Row;
use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::answer::{Currency, One, Page};
use crate::auth::Caller;
use crate::error::{ErrorBody, QueryError};
use crate::params::{self, Id, ListParams, ListQuery, Params, WaitParams};
use crate::pipeline::{Api, Rests};
use crate::plan::Plan;
use crate::sql::{self, EventFilter, EventKey, Order, Payload};
use crate::time_range::{self, RangeError, TimeRange};

/// Half of the time around a hint in which an event is looked for.
const HINT_NS: i64 = 60 * time_range::NS_PER_S;

/// A row of `events`.
#[derive(Clone, Debug, Row, Deserialize)]
#[clickhouse(crate = "fleetlog_store::row")]
pub(crate) struct EventRow {
    event_id: String,
    dedup_key: u128,
    source: String,
    source_format: String,
    source_version: String,
    channel: String,
    timestamp: i64,
    timestamp_source: String,
    end_timestamp: Option<i64>,
    received_at: i64,
    r#type: String,
    name: String,
    status: String,
    level: String,
    error_type: String,
    error_message: String,
    session_id: String,
    trace_id: String,
    span_id: String,
    parent_id: String,
    turn_id: String,
    request_id: String,
    tool_call_id: String,
    agent_id: String,
    parent_agent_id: String,
    agent_name: String,
    user_id: String,
    host: String,
    provider: String,
    model: String,
    model_requested: String,
    finish_reason: String,
    attempt: Option<u32>,
    duration_ms: Option<f64>,
    ttft_ms: Option<f64>,
    in_uncached: u64,
    cache_read: u64,
    cache_write_5m: u64,
    cache_write_1h: u64,
    out_visible: u64,
    out_reasoning: u64,
    token_basis: String,
    usage_role: String,
    llm_call_key: String,
    call_family: String,
    precedence: u32,
    revision: i64,
    cost_reported: Option<i64>,
    cost_computed: Option<i64>,
    price_version: String,
    tool_name: String,
    tool_kind: String,
    mcp_server: String,
    decision: String,
    exit_code: Option<i32>,
    file_path: String,
    lines_added: Option<u64>,
    lines_removed: Option<u64>,
    file_size: Option<u64>,
    bytes_in: Option<u64>,
    bytes_out: Option<u64>,
    unknown_reason: String,
    redactions: u32,
    new_fields: u32,
    payload_context: String,
    payload_data: String,
    raw_partition: i32,
    raw_offset: i64,
    raw_index: u32,
    log_partition: i32,
    log_offset: i64,
    log_index: u32,
}

impl EventRow {
    /// The row's sort key.
    pub(crate) fn key(&self) -> EventKey {
        EventKey(self.timestamp, self.log_partition, self.log_offset, self.log_index)
    }

    /// Its session, its trace and its time in nanoseconds: what says where its call is.
    pub(crate) fn belongs(&self) -> (&str, &str, i64) {
        (&self.session_id, &self.trace_id, self.timestamp)
    }

    /// The event in its API form.
    pub(crate) fn event(self, project_id: &str) -> Event {
        // A word of a newer writer reads as the vocabulary's "not said", as it does everywhere else.
        Event(ApiEvent(AgentEvent {
            event_id: self.event_id,
            dedup_key: Key128::from_u128(self.dedup_key),
            project_id: project_id.to_owned(),
            source: self.source,
            source_format: self.source_format,
            source_version: self.source_version,
            channel: Channel::parse(&self.channel).unwrap_or_default(),
            timestamp: self.timestamp,
            timestamp_source: TimestampSource::parse(&self.timestamp_source).unwrap_or_default(),
            end_timestamp: self.end_timestamp,
            received_at: self.received_at,
            event_type: EventType::parse(&self.r#type).unwrap_or_default(),
            name: self.name,
            status: Status::parse(&self.status).unwrap_or_default(),
            level: self.level,
            error_type: self.error_type,
            error_message: self.error_message,
            session_id: self.session_id,
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_id: self.parent_id,
            turn_id: self.turn_id,
            request_id: self.request_id,
            tool_call_id: self.tool_call_id,
            agent_id: self.agent_id,
            parent_agent_id: self.parent_agent_id,
            agent_name: self.agent_name,
            user_id: self.user_id,
            host: self.host,
            provider: self.provider,
            model: self.model,
            model_requested: self.model_requested,
            finish_reason: self.finish_reason,
            attempt: self.attempt,
            duration_ms: self.duration_ms,
            ttft_ms: self.ttft_ms,
            in_uncached: self.in_uncached,
            cache_read: self.cache_read,
            cache_write_5m: self.cache_write_5m,
            cache_write_1h: self.cache_write_1h,
            out_visible: self.out_visible,
            out_reasoning: self.out_reasoning,
            token_basis: TokenBasis::parse(&self.token_basis).unwrap_or_default(),
            usage_role: UsageRole::parse(&self.usage_role).unwrap_or_default(),
            llm_call_key: self.llm_call_key,
            call_family: self.call_family,
            precedence: self.precedence,
            revision: self.revision,
            cost_reported: self.cost_reported.map(NanoUsd),
            cost_computed: self.cost_computed.map(NanoUsd),
            price_version: self.price_version,
            tool_name: self.tool_name,
            tool_kind: self.tool_kind,
            mcp_server: self.mcp_server,
            decision: self.decision,
            exit_code: self.exit_code,
            file_path: self.file_path,
            lines_added: self.lines_added,
            lines_removed: self.lines_removed,
            file_size: self.file_size,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            unknown_reason: self.unknown_reason,
            redactions: self.redactions,
            new_fields: self.new_fields,
            context: self.payload_context,
            data: self.payload_data,
            raw_partition: self.raw_partition,
            raw_offset: self.raw_offset,
            raw_index: self.raw_index,
            // What they were read from stands in `data`.
            service_tier: String::new(),
            inference_geo: String::new(),
        }))
    }
}

/// An event in its API form, described by the schema's own table of fields.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Event(ApiEvent);

impl PartialSchema for Event {
    fn schema() -> RefOr<Schema> {
        let object = |fields: &[api::Field]| {
            fields
                .iter()
                .fold(ObjectBuilder::new(), |object, field| object.property(field.name, described(field)))
        };
        let metrics = object(api::METRIC_FIELDS).description(Some("Measures; left out when there are none."));
        let mut whole = object(api::FIELDS).property("metrics", metrics);
        for field in api::PAYLOAD_FIELDS {
            whole = whole.property(field.name, described(field));
        }
        whole
            .description(Some("An event. Fields that are empty are left out."))
            .required("timestamp")
            .required("type")
            .required("receivedAt")
            .into()
    }
}

impl ToSchema for Event {}

fn described(field: &api::Field) -> Object {
    let builder = ObjectBuilder::new().description(Some(field.doc));
    match field.kind {
        FieldKind::Text => builder.schema_type(Type::String),
        FieldKind::Word(words) => builder.schema_type(Type::String).enum_values(Some(words())),
        FieldKind::Integer => builder.schema_type(Type::Integer),
        FieldKind::Number | FieldKind::Usd => builder.schema_type(Type::Number),
        FieldKind::Time => {
            builder.schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        }
        FieldKind::Object => builder.schema_type(Type::Object),
    }
    .build()
}

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParams {
    /// Only these types, separated by commas.
    r#type: Option<String>,
    /// Only these statuses (`unset`, `ok`, `error`, `denied`, `cancelled`), separated by commas.
    status: Option<String>,
    /// Only events of this session.
    session: Option<String>,
    /// Only events of this trace.
    trace: Option<String>,
    /// Only events of the agent with this id or name.
    agent: Option<String>,
    /// Only events of this model.
    model: Option<String>,
    /// Only events with this name.
    name: Option<String>,
    /// Only events of this program.
    source: Option<String>,
    /// Only events of this tool.
    tool: Option<String>,
    /// Only events of this person or account.
    user: Option<String>,
    /// Only events whose payload contains all of these words. A word is a run of letters and digits. Case does not matter;
    /// a word with letters beyond ASCII is found in small letters, in capitals, with a capital first and as given, be they
    /// written as they are or as JSON's escapes (four such words, further ones only as given).
    search: Option<String>,
    /// `data` to get `context` and `data` too. Lists are fast without.
    include: Option<String>,
}

impl EventParams {
    fn filter(self) -> Result<EventFilter, QueryError> {
        Ok(EventFilter {
            types: types(self.r#type.as_deref())?,
            statuses: words(
                "status",
                self.status.as_deref(),
                &Status::ALL.iter().map(|s| s.as_str()).collect::<Vec<_>>(),
            )?,
            session: self.session,
            trace: self.trace,
            agent: self.agent,
            model: self.model,
            name: self.name,
            source: self.source,
            tool: self.tool,
            user: self.user,
            search: self.search.map(searchable).transpose()?,
        })
    }
}

/// The event types of a comma-separated choice.
pub(crate) fn types(text: Option<&str>) -> Result<Vec<String>, QueryError> {
    words("type", text, &EventType::ALL.iter().map(|word| word.as_str()).collect::<Vec<_>>())
}

fn words(name: &'static str, text: Option<&str>, known: &[&'static str]) -> Result<Vec<String>, QueryError> {
    Ok(params::words(name, text, known)?.into_iter().map(str::to_owned).collect())
}

/// A text with at least one word: the index splits at everything that is neither a letter nor a digit.
fn searchable(text: String) -> Result<String, QueryError> {
    if text.chars().any(|c| c.is_ascii_alphanumeric() || !c.is_ascii()) {
        return Ok(text);
    }
    Err(QueryError::BadParameter { name: "search".to_owned(), message: "contains no word".to_owned() })
}

/// Whether the payload was asked for.
pub(crate) fn payload(include: Option<&str>) -> Result<Payload, QueryError> {
    let included = !params::words("include", include, &["data"])?.is_empty();
    Ok(if included { Payload::Included } else { Payload::Left })
}

/// Events of a range of time, newest first.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "list_events",
    tag = "events",
    params(EventParams, ListParams, WaitParams),
    responses(
        (status = 200, body = Page<Event>),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: ListQuery<EventParams>,
) -> Result<Json<Page<Event>>, QueryError> {
    let payload = payload(query.filters.include.as_deref())?;
    let plan: Plan<EventKey> =
        api.plan(&caller, &query, api.config().list_ranges(), api.config().event_pages(payload))?;
    let filter = query.filters.filter()?;
    let order = (Order::Newest, payload);
    let statement = sql::events(caller.project_id(), plan.range, &filter, order, plan.after, plan.fetch());
    let currency = api.current(&caller, &query.wait, Rests::Facts).await?;
    page(&api, &caller, &plan, statement, currency).await
}

/// Runs a statement over events and makes its page.
pub(crate) async fn page(
    api: &Api,
    caller: &Caller,
    plan: &Plan<EventKey>,
    statement: sql::Statement,
    currency: Currency,
) -> Result<Json<Page<Event>>, QueryError> {
    let rows = api.rows::<EventRow>(caller, statement).await?;
    let page = plan.page(rows, EventRow::key, currency);
    Ok(Json(page.map(|row| row.event(caller.project_id()))))
}

/// Where to look for one event.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventHint {
    /// The event's `timestamp`, as a list gave it: it is then found at once, however old it is.
    at: Option<String>,
    /// Start of the time in which to look, by default one day ago.
    from: Option<String>,
    /// End of the time in which to look, by default now.
    to: Option<String>,
}

impl EventHint {
    /// From parameters of the same names.
    pub(crate) fn new(at: Option<String>, from: Option<String>, to: Option<String>) -> Self {
        Self { at, from, to }
    }

    /// The time in which to look.
    ///
    /// # Errors
    /// What is wrong with the parameters.
    pub(crate) fn range(&self, api: &Api) -> Result<TimeRange, QueryError> {
        let policy = api.config().list_ranges();
        match &self.at {
            Some(at) => {
                let at = time_range::instant(at, api.now_ns()).ok_or(RangeError::NotATime { name: "at" })?;
                let range =
                    TimeRange { from_ns: at.saturating_sub(HINT_NS), to_ns: at.saturating_add(HINT_NS) };
                Ok(range.checked(policy)?)
            }
            None => Ok(TimeRange::resolve(self.from.as_deref(), self.to.as_deref(), api.now_ns(), policy)?),
        }
    }
}

/// One event with its payload, within a bound of time.
#[utoipa::path(
    get,
    path = "/v1/events/{id}",
    operation_id = "get_event",
    tag = "events",
    params(("id" = String, Path, description = "The event's id."), EventHint, WaitParams),
    responses(
        (status = 200, body = One<Event>),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn one(
    State(api): State<Api>,
    caller: Caller,
    Id(event_id): Id,
    Params(hint, wait): Params<EventHint>,
) -> Result<Json<One<Event>>, QueryError> {
    let statement = sql::event_by_id(caller.project_id(), hint.range(&api)?, &event_id);
    let currency = api.current(&caller, &wait, Rests::Facts).await?;
    let row = api.rows::<EventRow>(&caller, statement).await?.into_iter().next();
    let row =
        row.ok_or(QueryError::NotFound { what: "event in this range of time; give at, or from and to" })?;
    Ok(Json(One { data: row.event(caller.project_id()), currency }))
}
