//! OTLP records in one shape for both encodings.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AnyValue<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, str>),
    Bytes(Vec<u8>),
    List(Vec<AnyValue<'a>>),
    Map(Attributes<'a>),
}

/// Names and values, in the sender's order.
pub(crate) type Attributes<'a> = Vec<(Cow<'a, str>, AnyValue<'a>)>;

impl AnyValue<'_> {
    /// The value as text, when it is one that reads as text.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone().into_owned()),
            Self::Bool(flag) => Some(flag.to_string()),
            Self::Int(number) => Some(number.to_string()),
            Self::Double(number) => Some(number.to_string()),
            Self::Null | Self::Bytes(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// The value as text; of a list with one element, that element.
    pub(crate) fn first_text(&self) -> Option<String> {
        match self {
            Self::List(values) => match values.as_slice() {
                [only] => only.text(),
                _ => None,
            },
            value => value.text(),
        }
    }

    /// Puts the value into a column that is still empty; false when it would be lost unless kept elsewhere.
    pub(crate) fn fill(&self, column: &mut String) -> bool {
        let Some(text) = self.text() else { return false };
        if column.is_empty() {
            column.clone_from(&text);
        }
        *column == text
    }

    /// The text, when the value is text.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value as a finite number; many senders put numbers into strings.
    pub(crate) fn number(&self) -> Option<f64> {
        let number = match self {
            Self::Int(number) => *number as f64,
            Self::Double(number) => *number,
            Self::Text(text) => text.trim().parse().ok()?,
            _ => return None,
        };
        number.is_finite().then_some(number)
    }

    /// The value as a count.
    pub(crate) fn count(&self) -> Option<u64> {
        /// Beyond it a sum of a few columns could leave 64 bits, and no count is that large.
        const LARGEST: u64 = 1 << 53;
        let count = match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Double(number) if number.fract() == 0.0 && *number >= 0.0 => Some(*number as u64),
            _ => None,
        };
        count.filter(|count| *count <= LARGEST)
    }

    /// The value as a truth, which some senders spell as text.
    pub(crate) fn truth(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            Self::Text(text) if text == "true" => Some(true),
            Self::Text(text) if text == "false" => Some(false),
            _ => None,
        }
    }
}

impl Serialize for AnyValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Int(number) => serializer.serialize_i64(*number),
            // JSON has no word for them.
            Self::Double(number) if !number.is_finite() => serializer.collect_str(number),
            Self::Double(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => {
                use base64::Engine as _;
                serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(bytes))
            }
            Self::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    list.serialize_element(value)?;
                }
                list.end()
            }
            Self::Map(entries) => Object(entries).serialize(serializer),
        }
    }
}

/// Attributes as a JSON object.
pub(crate) struct Object<'v, 'a>(pub(crate) &'v Attributes<'a>);

impl Serialize for Object<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A resource: what emitted the records.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Resource<'a> {
    pub(crate) attributes: Attributes<'a>,
}

/// An instrumentation scope: which library emitted the records.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scope<'a> {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) attributes: Attributes<'a>,
}

/// A log record. Times are nanoseconds since the epoch; 0 says that none was given. Ids are lower-case hexadecimal.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Log<'a> {
    pub(crate) time: u64,
    pub(crate) observed: u64,
    pub(crate) severity: i32,
    pub(crate) severity_text: String,
    pub(crate) body: Option<AnyValue<'a>>,
    pub(crate) attributes: Attributes<'a>,
    pub(crate) dropped_attributes: u64,
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    pub(crate) event_name: String,
}

/// A span.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Span<'a> {
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    pub(crate) parent_id: String,
    pub(crate) name: String,
    pub(crate) kind: i32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) attributes: Attributes<'a>,
    pub(crate) dropped: u64,
    pub(crate) events: Vec<SpanEvent<'a>>,
    pub(crate) links: Vec<Link<'a>>,
    pub(crate) status: i32,
    pub(crate) status_message: String,
}

/// Something that happened during a span.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct SpanEvent<'a> {
    pub(crate) name: String,
    /// Nanoseconds as text: a number this large does not survive JavaScript.
    #[serde(serialize_with = "as_text")]
    pub(crate) time: u64,
    #[serde(serialize_with = "as_object")]
    pub(crate) attributes: Attributes<'a>,
}

/// Another span that this one refers to.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Link<'a> {
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    #[serde(serialize_with = "as_object")]
    pub(crate) attributes: Attributes<'a>,
}

/// What the points of a metric share.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) unit: String,
    /// `gauge`, `sum`, `histogram`, `exponential_histogram` or `summary`.
    pub(crate) kind: &'static str,
    /// 1 is delta, 2 cumulative.
    pub(crate) temporality: i32,
    pub(crate) monotonic: bool,
}

/// A metric point: its measures by name, whatever the kind of metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Point<'a> {
    pub(crate) start: u64,
    pub(crate) time: u64,
    pub(crate) attributes: Attributes<'a>,
    pub(crate) measures: Attributes<'a>,
}

fn as_text<S: Serializer>(time: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

fn as_object<S: Serializer>(attributes: &Attributes<'_>, serializer: S) -> Result<S::Ok, S::Error> {
    Object(attributes).serialize(serializer)
}
