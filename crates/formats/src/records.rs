//! Line and document formats: one JSON value a record, decided record by record within its stream.
//!
//! A body is split as its layout says ([`layout`]); each record is then given to the format that its sender named, that
//! its stream has, or whose marks it bears (MAPPING §8). What earlier lines said that later lines need is a
//! [`StreamContext`]: the sender carries it with every chunk, and here it is kept up line by line with the same
//! function ([`follow`]), so a file cut at any line gives the same events. Whatever no format takes, or a format cannot
//! use, is kept whole as `raw.unknown`; a record costs only itself.

use std::path::Path;

use fleetlog_schemas::event::{AgentEvent, Channel};
use fleetlog_schemas::id::Key128;
use fleetlog_schemas::record::StreamContext;
use serde_json::{Map, Value};

use crate::confine::{Budget, confine_stream};
use crate::framing::{self, Layout, Place, RecordReader};
use crate::identity::Identities;
use crate::input::{Decoded, Eventless, Fate, Input};
use crate::inspect::Body;
use crate::json::{Cursor, Fault, ObjectWriter, Scalar, mend};
use crate::media::{Media, media};
use crate::moment::Moment;
use crate::{agents, api, claude, codex, gemini, unknown};

/// A JSON object.
pub(crate) type Object = Map<String, Value>;

/// A format whose records are JSON objects.
pub(crate) struct RecordFormat {
    /// Its name in `source_format`, and as a hint.
    pub(crate) name: &'static str,
    /// Other words for it as a hint.
    pub(crate) aliases: &'static [&'static str],
    /// Members of one document that hold the records; none where records are lines, elements or the document itself.
    pub(crate) members: &'static [&'static str],
    /// Whether a record bears its marks.
    pub(crate) recognises: fn(&Object) -> bool,
    /// Takes from a record what later records of the stream need.
    pub(crate) follow: fn(&mut StreamContext, &Object),
    /// Makes events of a record, or says what else became of it.
    pub(crate) decode: fn(&mut Records<'_>, &Record<'_>),
}

/// Every record format, in the order of detection: the more specific marks first.
pub(crate) const FORMATS: &[&RecordFormat] = &[
    &crate::langfuse::INGESTION,
    &crate::langfuse::SCORES,
    &crate::langsmith::RUNS,
    &crate::langsmith::FEEDBACK,
    &crate::openai_agents::TRACES,
    &crate::opik::SPANS,
    &crate::opik::TRACES,
    &crate::opik::FEEDBACK,
    &gemini::hooks::FORMAT,
    &claude::hooks::FORMAT,
    &agents::cursor::FORMAT,
    &agents::swe_agent::FORMAT,
    &codex::rollout::FORMAT,
    &claude::transcript::FORMAT,
    &claude::stream_json::FORMAT,
    &gemini::qwen::chat::FORMAT,
    &gemini::qwen::stream::FORMAT,
    &codex::exec::FORMAT,
    &agents::copilot::FORMAT,
    &agents::opencode::FORMAT,
    &agents::aider::FORMAT,
    &agents::cline::FORMAT,
    &agents::openhands::FORMAT,
    &agents::managed_agents::FORMAT,
    &agents::goose::FORMAT,
    &agents::goose::HOOKS,
    &agents::cline::HISTORY,
    &gemini::stream::FORMAT,
    &gemini::chat::FORMAT,
];

/// The format that a hint names.
pub(crate) fn named(hint: &str) -> Option<&'static RecordFormat> {
    FORMATS.iter().copied().find(|format| format.name == hint || format.aliases.contains(&hint))
}

/// The names of all formats that a raw body's records can be said to have; their aliases are left out.
pub fn record_formats() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().map(|format| format.name)
}

fn recognised(object: &Object) -> Option<&'static RecordFormat> {
    FORMATS.iter().copied().find(|format| (format.recognises)(object))
}

/// Copies the text of a member where there is one.
pub(crate) fn copy(column: &mut String, object: &Object, name: &str) {
    let said = text(object, name);
    if !said.is_empty() {
        said.clone_into(column);
    }
}

/// The members of an object that are texts with something in them, as an object of their own.
pub(crate) fn said(object: &Object, names: &[&str]) -> String {
    let mut said = ObjectWriter::new();
    for name in names {
        let word = text(object, name);
        if !word.is_empty() {
            said.field(name, word);
        }
    }
    said.finish()
}

/// What the place of a file says of the stream in it, before its first line is read.
pub fn place(path: &Path) -> StreamContext {
    let session_id = gemini::chat::session_of_place(path).unwrap_or_default().to_owned();
    StreamContext { session_id, ..StreamContext::default() }
}

/// Takes from one line of a stream what its later lines need.
///
/// The format is found by the first line that bears marks, unless `context.format` names it already.
pub fn follow(context: &mut StreamContext, line: &[u8]) {
    // One record has no structure that could be unclear.
    framing::each_record(line, Layout::Single, &mut Follower(context)).unwrap_or_default();
}

/// Takes from all records of a body what the records after it need, as decoding the body would.
pub fn follow_body(context: &mut StreamContext, body: &Body<'_>) {
    let Some(layout) = layout(body) else { return };
    let mut followed = context.clone();
    if framing::each_record(body.bytes, layout, &mut Follower(&mut followed)).is_ok() {
        *context = followed;
    }
}

struct Follower<'c>(&'c mut StreamContext);

impl<'a> RecordReader<'a> for Follower<'_> {
    fn read(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault> {
        cursor.skip_value().map(|_| ())
    }

    fn record(&mut self, record: &'a [u8], outcome: Result<(), Fault>) {
        if outcome.is_ok()
            && is_affordable(record)
            && let Ok(Value::Object(object)) = serde_json::from_slice(&mend(beside_method(record).0))
        {
            follow_object(self.0, &object);
        }
    }
}

/// A record's own text, and the method beside it where the record is `["method", {…}]`.
fn beside_method(text: &[u8]) -> (&[u8], Option<String>) {
    let mut cursor = Cursor::new(text);
    let mut pair = || -> Option<(&[u8], String)> {
        let Scalar::Text(method) = cursor.eat(b'[').then(|| cursor.scalar().ok())?? else { return None };
        let record = cursor.eat(b',').then(|| cursor.skip_value().ok())??;
        let whole = cursor.eat(b']') && cursor.peek().is_none();
        whole.then(|| (record, method.text().into_owned()))
    };
    pair().map_or((text, None), |(record, method)| (record, Some(method)))
}

/// Whether the values of a record take memory in proportion to its text.
///
/// An array or object of one element takes some 300 bytes, so text that is little else but brackets would grow to more
/// than a hundred times its size. Such a record is kept unread.
fn is_affordable(text: &[u8]) -> bool {
    let (mut nested, mut quoted, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => nested += 1,
            _ => {}
        }
    }
    nested <= text.len() / 12 + 512
}

/// A record whose marks are those of another format than the stream's begins a stream of its own.
fn follow_object(context: &mut StreamContext, object: &Object) -> Option<&'static RecordFormat> {
    let current = named(&context.format);
    // The path of an API says what its records are, however bare they may be.
    if let Some(format) = current.filter(|format| api::owns(format.name)) {
        (format.follow)(context, object);
        return Some(format);
    }
    let by_marks = || recognised(object).or(current);
    let format = current.filter(|format| (format.recognises)(object)).or_else(by_marks)?;
    if current.is_some_and(|current| current.name != format.name) {
        let (stream_id, first_line) = (std::mem::take(&mut context.stream_id), context.first_line);
        *context = StreamContext { stream_id, first_line, ..StreamContext::default() };
    }
    format.name.clone_into(&mut context.format);
    (format.follow)(context, object);
    confine_stream(context);
    Some(format)
}

/// How the records lie in a body; `None` when it is one opaque record.
pub(crate) fn layout(body: &Body<'_>) -> Option<Layout> {
    let bytes = framing::without_bom(body.bytes);
    if let Some(members) = members(body.format_hint, bytes) {
        return Some(Layout::Members(members));
    }
    let lines = matches!(media(body.content_type), Ok(Media::Lines));
    framing::layout(bytes, lines).ok()
}

/// The members that hold the records of a document: those of the format named, else of the first that
/// recognises the first element of a member that it has.
/// A document of a format with members that has none of them is a record itself.
fn members(hint: &str, bytes: &[u8]) -> Option<&'static [&'static str]> {
    let only = named(hint);
    let held = |format: &RecordFormat, key: &str, array: &Cursor<'_>| match only {
        Some(only) => only.name == format.name && format.members.contains(&key),
        None => {
            format.members.contains(&key)
                && first_element(array).is_some_and(|first| (format.recognises)(&first))
        }
    };
    let mut found = None;
    let mut cursor = Cursor::new(bytes);
    // A fault in the document is found again, and said, when its records are read.
    let read: Result<(), Fault> = cursor.object(|cursor, key| {
        let key = key.text();
        if found.is_none() && cursor.peek() == Some(b'[') {
            found = FORMATS.iter().find(|format| held(format, &key, cursor)).map(|format| format.members);
        }
        cursor.skip_loosely().map(|_| ()).ok_or_else(|| cursor.fault())
    });
    found.filter(|_| read.is_ok() && cursor.peek().is_none())
}

/// The first element of the array that comes next, if it is an object.
fn first_element(array: &Cursor<'_>) -> Option<Object> {
    let mut cursor = array.clone();
    cursor.eat(b'[');
    serde_json::from_slice(&mend(cursor.skip_value().ok()?)).ok()
}

/// Decodes a body of records.
pub(crate) fn decode(input: &Input<'_>) -> Decoded {
    let mut reader = Reader::new(input);
    let layout = layout(&input.as_body());
    if layout == Some(Layout::Single) && input.stream.is_some() {
        // One line of a stream looks like a document; its number is the stream's.
        reader.line = Some(0);
    }
    let split = layout.map(|layout| framing::each_record(input.body, layout, &mut reader));
    if !matches!(split, Some(Ok(()))) {
        reader = Reader::new(input);
        reader.take(input.body, false);
    }
    reader.records.finish()
}

/// One record.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    /// Index within the piece.
    pub(crate) index: u32,
    /// Its JSON text.
    pub(crate) text: &'a [u8],
    /// What it says.
    pub(crate) object: &'a Object,
    /// Number of its line within the stream; of its place within the request where there is no stream.
    pub(crate) line: i64,
    /// Member of the document that it stands in, or the method beside it, or empty.
    pub(crate) member: &'a str,
}

/// What decoders share while they go through one body.
pub(crate) struct Records<'i> {
    pub(crate) input: &'i Input<'i>,
    pub(crate) identities: Identities<'i>,
    /// What the stream has said so far, this record included.
    pub(crate) stream: StreamContext,
    budget: Budget,
    out: Decoded,
}

impl<'i> Records<'i> {
    pub(crate) fn new(input: &'i Input<'i>) -> Self {
        let mut stream = input.stream.cloned().unwrap_or_default();
        if stream.format.is_empty() || named(&stream.format).is_none() {
            stream.format = input.format_hint.to_owned();
        }
        if named(&stream.format).is_none() {
            stream.format.clear();
        }
        api::introduce(&mut stream, input);
        confine_stream(&mut stream);
        let budget = Budget::of(input.body.len());
        Self { input, identities: Identities::new(input), stream, budget, out: Decoded::default() }
    }

    /// What became of the records.
    pub(crate) fn finish(self) -> Decoded {
        self.out
    }
}

impl Records<'_> {
    /// An event of `record` with the facts of its stream, the whole record as `data`, and its place as identity.
    pub(crate) fn event(&self, record: &Record<'_>, format: &RecordFormat, channel: Channel) -> AgentEvent {
        let stream = &self.stream;
        let mut event = AgentEvent {
            source_format: format.name.to_owned(),
            source: stream.source.clone(),
            source_version: stream.version.clone(),
            channel,
            session_id: stream.session_id.clone(),
            turn_id: stream.turn_id.clone(),
            agent_id: stream.agent_id.clone(),
            data: String::from_utf8_lossy(&mend(record.text)).into_owned(),
            context: "{}".to_owned(),
            ..self.input.blank_event(record.index)
        };
        identify(&mut event, self.place(record, format));
        event
    }

    /// The identity of a record that is known by its place: session (else stream), line and content; without either,
    /// its place in the request.
    pub(crate) fn place(&self, record: &Record<'_>, format: &RecordFormat) -> Key128 {
        let stream = match (self.stream.session_id.as_str(), self.stream.stream_id.as_str()) {
            ("", "") => return self.identities.arrival(record.index),
            ("", stream) => stream,
            (session, _) => session,
        };
        let agent = self.stream.agent_id.as_bytes();
        let line = record.line.to_le_bytes();
        self.identities.stated(format.name, &[stream.as_bytes(), agent, &line, record.text])
    }

    /// Adds an event of a record.
    pub(crate) fn emit(&mut self, event: AgentEvent) {
        self.out.events.push(event);
    }

    /// The record only gave context to others.
    pub(crate) fn context(&mut self, record: &Record<'_>) {
        self.used(record.index);
    }

    /// The record of this index only gave context to others.
    pub(crate) fn used(&mut self, index: u32) {
        self.out.eventless.push(Eventless { index, fate: Fate::Context });
    }

    /// Keeps a record of which nothing is known.
    pub(crate) fn keep_unknown(&mut self, index: u32, text: &[u8], json: bool) {
        let mut event = self.input.blank_event(index);
        // Neither an id nor a time is known of it.
        identify(&mut event, self.identities.arrival(index));
        event.source_format = self.input.format_hint.to_owned();
        event.channel = Channel::Other;
        event.session_id.clone_from(&self.stream.session_id);
        unknown::keep(&mut event, unknown::UNKNOWN_FORMAT, text, json);
        self.emit(event);
    }

    /// Keeps a record whole that its format cannot use.
    pub(crate) fn keep(&mut self, record: &Record<'_>, format: &RecordFormat, reason: &str) {
        let mut event = self.event(record, format, Channel::Other);
        unknown::keep(&mut event, reason, record.text, true);
        self.emit(event);
    }
}

/// Gives an event its identity, and an id made of it.
pub(crate) fn identify(event: &mut AgentEvent, key: Key128) {
    event.dedup_key = key;
    event.event_id = key.to_string();
}

/// Gives an event the moment it happened, if there is one.
pub(crate) fn set_time(event: &mut AgentEvent, moment: Option<Moment>) {
    if let Some(moment) = moment {
        event.timestamp = moment.nanos;
        event.timestamp_source = moment.source();
    }
}

/// The text of a member; empty when it is not one.
pub(crate) fn text<'o>(object: &'o Object, name: &str) -> &'o str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The object of a member.
pub(crate) fn object<'o>(object: &'o Object, name: &str) -> Option<&'o Object> {
    object.get(name).and_then(Value::as_object)
}

/// The count of a member, be it a number or the text of one.
pub(crate) fn count(object: &Object, name: &str) -> Option<u64> {
    /// Beyond it a sum of a few columns could leave 64 bits, and no count is that large.
    const LARGEST: u64 = 1 << 53;
    let count = match object.get(name)? {
        Value::Number(number) => number.as_u64().or_else(|| {
            // Some writers have only floating-point numbers.
            let number = number.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0)?;
            (number < 9e18).then_some(number as u64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    count.filter(|count| *count <= LARGEST)
}

/// The number of a member, be it a number or the text of one.
pub(crate) fn number(object: &Object, name: &str) -> Option<f64> {
    match object.get(name)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number: &f64| number.is_finite())
}

struct Reader<'i> {
    records: Records<'i>,
    index: u32,
    /// Line of the next record within the body.
    line: Option<i64>,
    member: String,
}

impl<'i> Reader<'i> {
    fn new(input: &'i Input<'i>) -> Self {
        let records = Records::new(input);
        Self { records, index: 0, line: None, member: String::new() }
    }

    fn take(&mut self, text: &[u8], json: bool) {
        let index = self.index;
        self.index += 1;
        if self.records.input.rejected.binary_search(&index).is_ok() {
            return;
        }
        let Records { budget, out, .. } = &mut self.records;
        if !budget.allows(out) {
            return out.beyond_budget(index, text);
        }
        if json
            && is_affordable(text)
            && let (own, method) = beside_method(text)
            && let Ok(Value::Object(object)) = serde_json::from_slice(&mend(own))
            && let Some(format) = follow_object(&mut self.records.stream, &object)
        {
            let first = self.records.input.stream.map_or(0, |stream| stream.first_line);
            let place = || i64::from(self.records.input.first_record).saturating_add(i64::from(index));
            let within = self.line.unwrap_or_else(place);
            let line = first.saturating_add(within);
            let member = std::mem::take(&mut self.member);
            let stands_in = method.as_deref().unwrap_or(&member);
            let record = Record { index, text: own, object: &object, line, member: stands_in };
            (format.decode)(&mut self.records, &record);
            self.member = member;
            return;
        }
        self.records.keep_unknown(index, text, json);
    }
}

impl<'i> RecordReader<'i> for Reader<'i> {
    fn at(&mut self, place: Place<'_>) {
        match place {
            Place::Line(line) => self.line = Some(line),
            Place::Member(member) => member.clone_into(&mut self.member),
        }
    }

    fn read(&mut self, cursor: &mut Cursor<'i>) -> Result<(), Fault> {
        cursor.skip_value().map(|_| ())
    }

    fn record(&mut self, record: &'i [u8], outcome: Result<(), Fault>) {
        self.take(record, outcome.is_ok());
    }
}
