//! What the records of a group share: their resource and scope.

use std::cell::Cell;
use std::rc::Rc;

use super::model::{AnyValue, Attributes, Object, Scope};
use super::{Decoder, Encoding, frames::Group, json, proto};
use crate::confine::brief;
use crate::json::ObjectWriter;
use fleetlog_schemas::event::AgentEvent;
use fleetlog_schemas::id::Key128;

/// A resource, read once for all groups that share it.
#[derive(Debug)]
struct Resource<'a> {
    bytes: &'a [u8],
    attributes: Attributes<'a>,
    /// As JSON; nothing when there is no resource.
    text: Option<String>,
    /// What stands for a text that is too large to be repeated; the first event has all of it.
    brief: Option<String>,
    whole_given: Cell<bool>,
    digest: Option<Key128>,
}

/// A group's resource and scope, and what follows from them for each of its events.
#[derive(Debug)]
pub(crate) struct Origin<'a> {
    resource: Rc<Resource<'a>>,
    pub(crate) scope: Scope<'a>,
    scope_text: Option<String>,
    scope_brief: Option<String>,
    scope_given: Cell<bool>,
}

/// Longest resource or scope that each event of a group repeats, and that an identity covers as it stands, bytes.
const LONGEST_SHARED: usize = 8 * 1024;
/// Longest attribute of a resource in a shortened context, bytes.
const LONGEST_ATTRIBUTE: usize = 128;
/// Most attributes of a resource in a shortened context.
const MOST_ATTRIBUTES: usize = 32;

/// Reads the origins of one body's groups.
pub(crate) struct Origins<'a> {
    encoding: Encoding,
    last: Option<Rc<Resource<'a>>>,
}

impl<'a> Origins<'a> {
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self { encoding, last: None }
    }

    /// The origin of a group. Groups of one resource follow each other, and share its bytes.
    pub(crate) fn of(&mut self, group: &mut Group<'a>) -> Origin<'a> {
        let same = self.last.take().filter(|last| std::ptr::eq(last.bytes, group.resource));
        let resource = same.unwrap_or_else(|| Rc::new(Resource::of(self.encoding, group.resource)));
        self.last = Some(Rc::clone(&resource));
        group.resource_digest = resource.digest;
        group.scope_digest = digest(group.scope);
        let read = match self.encoding {
            Encoding::Json => filled(group.scope).map(json::scope).transpose().map_err(drop),
            Encoding::Protobuf => filled(group.scope).map(proto::scope).transpose().map_err(drop),
        };
        let scope_text = match &read {
            Ok(scope) => scope.as_ref().map(scope_text),
            Err(()) => Some(unreadable(self.encoding, group.scope)),
        };
        let mut scope = read.ok().flatten().unwrap_or_default();
        scope.name = brief(&scope.name).unwrap_or(scope.name);
        let scope_brief = scope_text.as_ref().filter(|text| text.len() > LONGEST_SHARED).map(|_| {
            let mut short = ObjectWriter::new();
            short.field("name", &scope.name);
            short.field("shortened", &true);
            short.finish()
        });
        Origin { resource, scope, scope_text, scope_brief, scope_given: Cell::new(false) }
    }
}

impl<'a> Resource<'a> {
    fn of(encoding: Encoding, bytes: &'a [u8]) -> Self {
        let read = match encoding {
            Encoding::Json => filled(bytes).map(json::resource).transpose().map_err(drop),
            Encoding::Protobuf => filled(bytes).map(proto::resource).transpose().map_err(drop),
        };
        let text = match &read {
            Ok(Some(resource)) => serde_json::to_string(&Object(&resource.attributes)).ok(),
            Ok(None) => None,
            Err(()) => Some(unreadable(encoding, bytes)),
        };
        let mut attributes = read.ok().flatten().unwrap_or_default().attributes;
        for (_, value) in &mut attributes {
            if let Some(short) = value.as_str().and_then(brief) {
                *value = AnyValue::Text(short.into());
            }
        }
        let too_long = text.as_ref().filter(|text| text.len() > LONGEST_SHARED);
        let brief = too_long.map(|_| brief_resource(&attributes));
        Self { bytes, attributes, text, brief, whole_given: Cell::new(false), digest: digest(bytes) }
    }
}

/// What stands for bytes in an identity when they are too long to be covered again for each record.
fn digest(bytes: &[u8]) -> Option<Key128> {
    (bytes.len() > LONGEST_SHARED).then(|| Key128::of([bytes]))
}

/// All of a text the first time, and what stands for it from then on.
fn once<'t>(given: &Cell<bool>, whole: &'t Option<String>, brief: &'t Option<String>) -> Option<&'t String> {
    if given.replace(true) { brief.as_ref().or(whole.as_ref()) } else { whole.as_ref() }
}

impl Origin<'_> {
    /// The context of the group's next event.
    fn context(&self) -> String {
        let resource = &self.resource;
        let mut context = ObjectWriter::new();
        if let Some(text) = once(&resource.whole_given, &resource.text, &resource.brief) {
            context.raw("resource", text.as_bytes());
        }
        if let Some(text) = once(&self.scope_given, &self.scope_text, &self.scope_brief) {
            context.raw("scope", text.as_bytes());
        }
        context.finish()
    }

    /// The text of a resource attribute.
    pub(crate) fn resource_text(&self, name: &str) -> Option<&str> {
        self.resource.attributes.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_str())
    }

    /// A blank event with everything that the resource and scope say.
    pub(crate) fn event(&self, decoder: &Decoder<'_>, index: u32, format: &str) -> AgentEvent {
        let text = |name| self.resource_text(name).unwrap_or_default().to_owned();
        AgentEvent {
            source: text("service.name"),
            source_version: text("service.version"),
            host: text("host.name"),
            source_format: format.to_owned(),
            context: self.context(),
            ..decoder.input.blank_event(index)
        }
    }
}

fn filled(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}

/// The short attributes of a resource, and a word that there was more.
fn brief_resource(attributes: &Attributes<'_>) -> String {
    let short = attributes.iter().filter(|(name, value)| {
        name.len() <= LONGEST_ATTRIBUTE && value.as_str().is_some_and(|text| text.len() <= LONGEST_ATTRIBUTE)
    });
    let mut brief = ObjectWriter::new();
    for (name, value) in short.take(MOST_ATTRIBUTES) {
        brief.field(name, value);
    }
    brief.field("shortened", &true);
    brief.finish()
}

fn scope_text(scope: &Scope<'_>) -> String {
    let mut text = ObjectWriter::new();
    text.field("name", &scope.name);
    text.field("version", &scope.version);
    if !scope.attributes.is_empty() {
        text.field("attributes", &Object(&scope.attributes));
    }
    text.finish()
}

/// What cannot be read, kept as it came.
fn unreadable(encoding: Encoding, bytes: &[u8]) -> String {
    match encoding {
        Encoding::Json => String::from_utf8_lossy(&crate::json::mend(bytes)).into_owned(),
        Encoding::Protobuf => serde_json::to_string(&AnyValue::Bytes(bytes.to_vec())).unwrap_or_default(),
    }
}
