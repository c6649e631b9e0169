//! The universal JSON event, as `POST /v1/events` takes it.
//!
//! Only `type` is needed. Every typed column may be given directly in camelCase ([`columns`]) or in snake_case, the common
//! measures also within `metrics`, where `duration` is in milliseconds and `tokenCount` is a total whose split is not
//! known. `context` and `data` are objects of the sender's own. What has no column, does not fit it, or is a second
//! value for it, is kept in `data` under its own name. A `type` that is not in the vocabulary makes the event `raw.unknown`, named by that word.
//!
//! Usage may be given as the disjoint buckets (`inUncached`, `cacheRead`, …), or as `inputTokens`, `outputTokens`,
//! `cachedInputTokens` and `reasoningTokens` in the convention of OpenAI, where the latter two are part of the former.

use std::borrow::Cow;

use fleetlog_schemas::event::{
    AgentEvent, Channel, EventType, Status, TimestampSource, TokenBasis, UsageRole,
};

use crate::framing::{self, RecordReader};
use crate::identity::Identities;
use crate::input::{Decoded, Input, Undecodable};
use crate::json::{Cursor, Fault, ObjectWriter, Scalar, mend};
use crate::media::{Media, media};
use crate::moment::Moment;
use crate::tokens::Stated;

mod columns;

/// The format's name in `source_format`.
pub(crate) const FORMAT: &str = "universal.json";

/// Decodes a body of universal events.
pub(crate) fn decode(input: &Input<'_>) -> Result<Decoded, Undecodable> {
    let lines = matches!(media(input.content_type), Ok(Media::Lines));
    let body = framing::without_bom(input.body);
    let layout = framing::layout(body, lines)?;
    let mut reader = Reader {
        input,
        identities: Identities::new(input),
        rejected: input.rejected,
        index: 0,
        draft: Draft::default(),
        out: Decoded::default(),
    };
    framing::each_record(body, layout, &mut reader)?;
    Ok(reader.out)
}

struct Reader<'i> {
    input: &'i Input<'i>,
    identities: Identities<'i>,
    /// Rejected indexes that are still to come.
    rejected: &'i [u32],
    index: u32,
    draft: Draft<'i>,
    out: Decoded,
}

impl<'i> RecordReader<'i> for Reader<'i> {
    fn read(&mut self, cursor: &mut Cursor<'i>) -> Result<(), Fault> {
        self.draft = Draft { event: self.input.blank_event(self.index), ..Draft::default() };
        self.draft.read(cursor)
    }

    fn record(&mut self, record: &'i [u8], outcome: Result<(), Fault>) {
        let index = self.index;
        self.index += 1;
        if let Some((&next, later)) = self.rejected.split_first()
            && next == index
        {
            self.rejected = later;
            return;
        }
        if let Err(fault) = outcome {
            return self.out.dead(index, fault.message(), record);
        }
        let draft = std::mem::take(&mut self.draft);
        if !draft.needs_mending {
            return self.finish(index, record, draft);
        }
        let mended = mend(record);
        let mut draft = Draft { event: self.input.blank_event(index), ..Draft::default() };
        match draft.read(&mut Cursor::new(&mended)) {
            Ok(()) => self.finish(index, record, draft),
            Err(fault) => self.out.dead(index, fault.message(), record),
        }
    }
}

impl Reader<'_> {
    fn finish(&mut self, index: u32, record: &[u8], mut draft: Draft<'_>) {
        let Some(word) = draft.word.take() else {
            return self.out.dead(index, "an event is an object with a \"type\"", record);
        };
        if draft.project.as_deref().is_some_and(|project| project != self.input.project_id) {
            return self.out.dead(index, "\"projectId\" is not the key's project", record);
        }
        let id = std::mem::take(&mut draft.event.event_id);
        draft.event.dedup_key = if !id.is_empty() {
            self.identities.stated(FORMAT, &[id.as_bytes()])
        } else if draft.event.timestamp_source != TimestampSource::Ingest {
            self.identities.content(FORMAT, &[record])
        } else {
            self.identities.arrival(index)
        };
        draft.event.event_id = if id.is_empty() { draft.event.dedup_key.to_string() } else { id };
        draft.event.source_format = FORMAT.to_owned();
        draft.event.channel = Channel::Api;
        self.out.events.push(draft.into_event(&word));
    }
}

/// An event while its members are being read.
#[derive(Debug, Default)]
struct Draft<'a> {
    event: AgentEvent,
    word: Option<Cow<'a, str>>,
    project: Option<Cow<'a, str>>,
    stated: Stated,
    /// A total whose split between input and output is not said.
    token_count: Option<u64>,
    context: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
    /// The name as JSON text: an event of unknown type is called by its type.
    name: Option<&'a [u8]>,
    /// Members that have no column or do not fit theirs: name and JSON text.
    others: Vec<(Cow<'a, str>, &'a [u8])>,
    needs_mending: bool,
}

impl<'a> Draft<'a> {
    fn read(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault> {
        if cursor.peek() != Some(b'{') {
            return cursor.skip_value().map(|_| ());
        }
        cursor.object(|cursor, key| {
            let key = key.text();
            cursor.peek();
            let start = cursor.position();
            let value = cursor.scalar()?;
            self.member(key, value, cursor.since(start))
        })?;
        self.needs_mending = cursor.needs_mending();
        Ok(())
    }

    fn member(&mut self, key: Cow<'a, str>, value: Scalar<'a>, text: &'a [u8]) -> Result<(), Fault> {
        if matches!(value, Scalar::Null) {
            return Ok(());
        }
        let fits = match (&*camel_case(&key), value) {
            ("type", Scalar::Text(word)) => {
                self.word = Some(word.text()).filter(|word| !word.is_empty());
                true
            }
            ("projectId", value) => {
                self.project = Some(columns::text(&value).unwrap_or_default().into());
                true
            }
            ("timestamp", value) => {
                self.timestamp(&value, text);
                true
            }
            ("context", _) => columns::put(&mut self.context, Some(Some(text))),
            ("data", _) => columns::put(&mut self.data, Some(Some(text))),
            ("name", value) if columns::set(&mut self.event, "name", &value) => {
                self.name = Some(text);
                true
            }
            ("metrics", Scalar::Object(metrics)) => self.measures(metrics)?,
            ("error", Scalar::Object(error)) => self.error(error)?,
            (name, value) => self.measure(name, &value) || columns::set(&mut self.event, name, &value),
        };
        if !fits {
            self.others.push((key, text));
        }
        Ok(())
    }

    fn timestamp(&mut self, value: &Scalar<'a>, text: &'a [u8]) {
        let moment = Moment::of_scalar(value);
        if let Some(moment) = moment {
            self.event.timestamp = moment.nanos;
            self.event.timestamp_source = moment.source();
        }
        if moment.is_none_or(|moment| moment.clamped) {
            self.others.push((Cow::Borrowed("timestamp_original"), text));
        }
    }

    /// Reads `metrics`; false when some of it has no column.
    fn measures(&mut self, metrics: &'a [u8]) -> Result<bool, Fault> {
        let mut all_fit = true;
        Cursor::new(metrics).object(|cursor, key| {
            let value = cursor.scalar()?;
            let key = key.text();
            let key = camel_case(&key);
            let known = self.measure(&key, &value) || columns::set(&mut self.event, &key, &value);
            // A total is no column: it stays visible beside the bucket it is put into.
            all_fit &= known && key != "tokenCount" || matches!(value, Scalar::Null);
            Ok::<(), Fault>(())
        })?;
        Ok(all_fit)
    }

    /// Takes a measure that is not itself a column.
    fn measure(&mut self, name: &str, value: &Scalar<'_>) -> bool {
        let into = match name {
            "inputTokens" => &mut self.stated.input,
            "outputTokens" => &mut self.stated.output,
            "cachedInputTokens" => &mut self.stated.cache_read,
            "reasoningTokens" => &mut self.stated.reasoning,
            "tokenCount" => &mut self.token_count,
            "duration" => return columns::put(&mut self.event.duration_ms, columns::float(value).map(Some)),
            _ => return false,
        };
        columns::put(into, columns::count(value).map(Some))
    }

    /// Reads an `error` object; false when some of it has no column.
    fn error(&mut self, error: &'a [u8]) -> Result<bool, Fault> {
        let mut all_fit = true;
        Cursor::new(error).object(|cursor, key| {
            let value = cursor.scalar()?;
            let column = match &*key.text() {
                "type" | "name" | "code" => "errorType",
                "message" => "errorMessage",
                _ => "",
            };
            all_fit &= columns::set(&mut self.event, column, &value);
            Ok::<(), Fault>(())
        })?;
        Ok(all_fit)
    }

    fn into_event(mut self, word: &str) -> AgentEvent {
        self.name_and_type(word);
        self.usage();
        let mut event = self.event;
        if event.source.is_empty() {
            event.source = "universal".to_owned();
        }
        if event.event_type.is_llm() && event.llm_call_key.is_empty() {
            let call_id = self.data.and_then(call_id);
            event.llm_call_key = match (call_id, event.request_id.as_str()) {
                (Some(call_id), _) => call_id,
                (None, "") => event.event_id.clone(),
                (None, request_id) => request_id.to_owned(),
            };
        }
        let failed = !event.error_type.is_empty() || !event.error_message.is_empty();
        if event.status == Status::Unset && (failed || event.event_type == EventType::Error) {
            event.status = Status::Error;
        }
        event.context = object_text(self.context, &[]);
        event.data = object_text(self.data, &self.others);
        event
    }

    fn name_and_type(&mut self, word: &str) {
        let event = &mut self.event;
        event.event_type = EventType::parse(word).unwrap_or_default();
        if event.event_type == EventType::RawUnknown {
            event.unknown_reason = crate::unknown::UNKNOWN_TYPE.to_owned();
            event.name.clear();
            self.others.extend(self.name.take().map(|name| (Cow::Borrowed("name"), name)));
        }
        if event.name.is_empty() {
            event.name = word.to_owned();
        }
    }

    fn usage(&mut self) {
        let event = &mut self.event;
        let bucketed = event.in_total() + event.out_total() > 0;
        if bucketed {
            event.token_basis = TokenBasis::Disjoint;
        } else if self.stated.any() {
            self.stated.apply(TokenBasis::Inclusive, event);
        } else if let Some(total) = self.token_count {
            event.in_uncached = total;
            event.token_basis = TokenBasis::Guessed;
        }
        let has_usage = event.token_basis != TokenBasis::None || event.cost_reported.is_some();
        if event.usage_role == UsageRole::None && has_usage {
            // Only calls to a model use tokens of their own; whatever else states usage sums up calls.
            event.usage_role = if event.event_type.is_llm() { UsageRole::Call } else { UsageRole::Rollup };
        }
    }
}

/// The name of a column however its words are joined: `session_id` is `sessionId`. What is not made of lower-case words
/// with one underscore between them is no other way to write a column: `type_` and `Session_Id` are names of their own.
///
/// `project_id` is left alone: it is often an id of the sender's own world, and as `projectId` it would be refused.
fn camel_case(name: &str) -> Cow<'_, str> {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    if !name.contains('_') || name == "project_id" || !name.split('_').all(is_word) {
        return Cow::Borrowed(name);
    }
    let mut joined = String::with_capacity(name.len());
    for (number, word) in name.split('_').enumerate() {
        match word.chars().next() {
            Some(first) if number > 0 => {
                joined.push(first.to_ascii_uppercase());
                joined.push_str(word.get(first.len_utf8()..).unwrap_or_default());
            }
            _ => joined.push_str(word),
        }
    }
    Cow::Owned(joined)
}

/// The `callId` within `data`.
fn call_id(data: &[u8]) -> Option<String> {
    let mut found = None;
    let read = Cursor::new(data).object(|cursor, key| {
        let value = cursor.scalar()?;
        if key.text() == "callId" {
            found = columns::text(&value).filter(|id| !id.is_empty());
        }
        Ok::<(), Fault>(())
    });
    read.ok().and(found)
}

/// The sender's object with `others` added; what is not an object becomes the member `value`.
fn object_text(given: Option<&[u8]>, others: &[(Cow<'_, str>, &[u8])]) -> String {
    let object = given.filter(|text| text.first() == Some(&b'{'));
    if others.is_empty()
        && let Some(object) = object
    {
        return String::from_utf8_lossy(object).into_owned();
    }
    let mut names = Vec::new();
    let listed = Cursor::new(object.unwrap_or(b"{}")).object(|cursor, key| {
        names.push(key.text());
        cursor.skip_value().map(|_| ())
    });
    let mut writer = match (listed, object) {
        (Ok(()), Some(object)) => ObjectWriter::continuing(object, names.iter().map(|name| &**name)),
        _ => ObjectWriter::new(),
    };
    if let (None, Some(value)) = (object, given) {
        writer.raw("value", value);
    }
    for (name, value) in others {
        writer.raw(name, value);
    }
    writer.finish()
}

#[cfg(test)]
mod tests;
