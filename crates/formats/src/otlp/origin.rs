//! What the records of a group share: their resource and scope.

use super::model::{AnyValue, Attributes, Object, Scope};
use super::{Decoder, Encoding, frames::Group, json, proto};
use crate::json::ObjectWriter;
use fleetlog_schemas::event::AgentEvent;

/// A group's resource and scope, and what follows from them for each of its events.
#[derive(Clone, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) resource: Attributes<'a>,
    pub(crate) scope: Scope<'a>,
    context: String,
}

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
        Self {
            resource: resource.ok().flatten().unwrap_or_default().attributes,
            scope: scope.ok().flatten().unwrap_or_default(),
            context: context.finish(),
        }
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
            context: self.context.clone(),
            ..decoder.input.blank_event(index)
        }
    }
}

fn filled(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
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
