//! What the records of a group share: their resource and scope.

use std::cell::Cell;

use super::model::{AnyValue, Attributes, Object, Scope};
use super::{Decoder, Encoding, frames::Group, json, proto};
use crate::confine::brief;
use crate::json::ObjectWriter;
use fleetlog_schemas::event::AgentEvent;

/// A group's resource and scope, and what follows from them for each of its events.
#[derive(Clone, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) resource: Attributes<'a>,
    pub(crate) scope: Scope<'a>,
    context: String,
    /// What stands for a context that is too large to be repeated; the group's first event has all of it.
    brief: Option<String>,
    whole_given: Cell<bool>,
}

/// Longest context that each event of a group repeats, bytes.
const LONGEST_CONTEXT: usize = 16 * 1024;
/// Longest attribute of a resource in a shortened context, bytes.
const LONGEST_ATTRIBUTE: usize = 128;
/// Most attributes of a resource in a shortened context.
const MOST_ATTRIBUTES: usize = 32;

impl<'a> Origin<'a> {
    pub(crate) fn of(encoding: Encoding, group: &Group<'a>) -> Self {
        let (resource, scope) = match encoding {
            Encoding::Json => {
                let resource = filled(group.resource).map(json::resource).transpose().map_err(drop);
                (resource, filled(group.scope).map(json::scope).transpose().map_err(drop))
            }
            Encoding::Protobuf => {
                let resource = filled(group.resource).map(proto::resource).transpose().map_err(drop);
                (resource, filled(group.scope).map(proto::scope).transpose().map_err(drop))
            }
        };
        let mut context = ObjectWriter::new();
        match &resource {
            Ok(Some(resource)) => context.field("resource", &Object(&resource.attributes)),
            Ok(None) => {}
            Err(()) => unreadable(&mut context, "resource", encoding, group.resource),
        }
        match &scope {
            Ok(Some(scope)) => context.raw("scope", scope_text(scope).as_bytes()),
            Ok(None) => {}
            Err(()) => unreadable(&mut context, "scope", encoding, group.scope),
        }
        let mut resource = resource.ok().flatten().unwrap_or_default().attributes;
        let mut scope = scope.ok().flatten().unwrap_or_default();
        let context = context.finish();
        for (_, value) in &mut resource {
            if let Some(short) = value.as_str().and_then(brief) {
                *value = AnyValue::Text(short.into());
            }
        }
        scope.name = brief(&scope.name).unwrap_or(scope.name);
        let brief = (context.len() > LONGEST_CONTEXT).then(|| brief_context(&resource, &scope));
        Self { resource, scope, context, brief, whole_given: Cell::new(false) }
    }

    /// The context of the group's next event.
    fn context(&self) -> String {
        let given = self.whole_given.replace(true);
        self.brief.as_ref().filter(|_| given).unwrap_or(&self.context).clone()
    }

    /// The text of a resource attribute.
    pub(crate) fn resource_text(&self, name: &str) -> Option<&str> {
        self.resource.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_str())
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

/// The short attributes of a resource and the name of a scope, and a word that there was more.
fn brief_context(resource: &Attributes<'_>, scope: &Scope<'_>) -> String {
    let short = resource.iter().filter(|(name, value)| {
        name.len() <= LONGEST_ATTRIBUTE && value.as_str().is_some_and(|text| text.len() <= LONGEST_ATTRIBUTE)
    });
    let mut attributes = ObjectWriter::new();
    for (name, value) in short.take(MOST_ATTRIBUTES) {
        attributes.field(name, value);
    }
    let mut context = ObjectWriter::new();
    context.raw("resource", attributes.finish().as_bytes());
    context.raw("scope", format!("{{\"name\":{}}}", serde_json::Value::from(scope.name.as_str())).as_bytes());
    context.field("shortened", &true);
    context.finish()
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

/// Keeps what cannot be read as it came.
fn unreadable(context: &mut ObjectWriter, name: &str, encoding: Encoding, bytes: &[u8]) {
    match encoding {
        Encoding::Json => context.raw(name, &crate::json::mend(bytes)),
        Encoding::Protobuf => context.field(name, &AnyValue::Bytes(bytes.to_vec())),
    }
}
