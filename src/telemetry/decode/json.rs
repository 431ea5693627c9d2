//! Decodes the JSON form of a trace request, as tolerantly as the JSON mapping of protobuf asks.
//!
//! Ids are hex, 64-bit numbers are strings or numbers, `null` is a default, unknown fields are ignored. An id or time
//! that cannot be read becomes empty or 0, so that only its span is malformed. What the receiver does not need (links,
//! scopes, objects and bytes as attributes) is skipped.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::DecodeError;
use super::json_number::{Id, Signed, Unsigned};

/// Decodes a body.
pub(super) fn decode(body: &[u8]) -> Result<ExportTraceServiceRequest, DecodeError> {
    let Object(request) = serde_json::from_slice::<Object<JsonRequest>>(body)
        .map_err(|error| DecodeError::Json { line: error.line(), column: error.column() })?;
    Ok(ExportTraceServiceRequest { resource_spans: request.resource_spans })
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct JsonRequest {
    #[serde(deserialize_with = "list::<JsonResourceSpans, _, _>")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct JsonResourceSpans {
    resource: Option<Object<JsonResource>>,
    #[serde(deserialize_with = "list::<JsonScopeSpans, _, _>")]
    scope_spans: Vec<ScopeSpans>,
}

impl From<JsonResourceSpans> for ResourceSpans {
    fn from(json: JsonResourceSpans) -> Self {
        let resource = json.resource.map(|Object(it)| Resource { attributes: it.attributes, ..Resource::default() });
        Self { resource, scope_spans: json.scope_spans, ..Self::default() }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct JsonResource {
    #[serde(deserialize_with = "list::<JsonKeyValue, _, _>")]
    attributes: Vec<KeyValue>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct JsonScopeSpans {
    #[serde(deserialize_with = "list::<JsonSpan<'_>, _, _>")]
    spans: Vec<Span>,
}

impl From<JsonScopeSpans> for ScopeSpans {
    fn from(json: JsonScopeSpans) -> Self {
        Self { spans: json.spans, ..Self::default() }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct JsonSpan<'a> {
    trace_id: Id,
    span_id: Id,
    parent_span_id: Id,
    #[serde(borrow)]
    trace_state: Option<Cow<'a, str>>,
    flags: Unsigned,
    kind: Signed,
    start_time_unix_nano: Unsigned,
    end_time_unix_nano: Unsigned,
    #[serde(deserialize_with = "list::<JsonKeyValue, _, _>")]
    attributes: Vec<KeyValue>,
    #[serde(deserialize_with = "list::<JsonEvent, _, _>")]
    events: Vec<Event>,
    status: Option<Object<JsonStatus<'a>>>,
}

impl From<JsonSpan<'_>> for Span {
    fn from(json: JsonSpan<'_>) -> Self {
        let status = json.status.map(|Object(it)| Status {
            message: it.message.map(Cow::into_owned).unwrap_or_default(),
            code: it.code.or_zero(),
        });
        Self {
            trace_id: json.trace_id.0,
            span_id: json.span_id.0,
            parent_span_id: json.parent_span_id.0,
            trace_state: json.trace_state.map(Cow::into_owned).unwrap_or_default(),
            flags: u32::try_from(json.flags.0).unwrap_or_default(),
            kind: json.kind.or_zero(),
            start_time_unix_nano: json.start_time_unix_nano.0,
            end_time_unix_nano: json.end_time_unix_nano.0,
            attributes: json.attributes,
            events: json.events,
            status,
            ..Self::default()
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct JsonStatus<'a> {
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
    code: Signed,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct JsonEvent {
    name: Option<String>,
    #[serde(deserialize_with = "list::<JsonKeyValue, _, _>")]
    attributes: Vec<KeyValue>,
}

impl From<JsonEvent> for Event {
    fn from(json: JsonEvent) -> Self {
        Self { name: json.name.unwrap_or_default(), attributes: json.attributes, ..Self::default() }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct JsonKeyValue {
    key: Option<String>,
    value: Option<JsonValue>,
}

impl From<JsonKeyValue> for KeyValue {
    fn from(json: JsonKeyValue) -> Self {
        let value = json.value.map(AnyValue::from);
        Self { key: json.key.unwrap_or_default(), value, ..Self::default() }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct JsonList {
    #[serde(deserialize_with = "list::<JsonValue, _, _>")]
    values: Vec<AnyValue>,
}

/// An attribute's value; `None` for kinds that are not needed and for unreadable numbers.
struct JsonValue(Option<Value>);

impl From<JsonValue> for AnyValue {
    fn from(json: JsonValue) -> Self {
        Self { value: json.0 }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum ValueField {
    StringValue,
    BoolValue,
    IntValue,
    ArrayValue,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for JsonValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = JsonValue;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an attribute value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonValue, A::Error> {
                let mut value = None;
                while let Some(field) = map.next_key()? {
                    value = match field {
                        ValueField::StringValue => map.next_value::<Option<_>>()?.map(Value::StringValue),
                        ValueField::BoolValue => map.next_value::<Option<_>>()?.map(Value::BoolValue),
                        ValueField::IntValue => map.next_value::<Signed>()?.0.map(Value::IntValue),
                        ValueField::ArrayValue => map
                            .next_value::<Option<Object<JsonList>>>()?
                            .map(|Object(list)| Value::ArrayValue(ArrayValue { values: list.values })),
                        ValueField::Other => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    }
                    .or(value);
                }
                Ok(JsonValue(value))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A JSON object. What is derived would take a list for the fields of an object, and an empty one for all defaults:
/// three bytes for a span of 300 bytes.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// Reads a list, or `null` as an empty one, and converts each item.
fn list<'de, J, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    J: Deserialize<'de> + Into<T>,
    D: Deserializer<'de>,
{
    struct Items<J, T>(PhantomData<(J, T)>);

    impl<'de, J: Deserialize<'de> + Into<T>, T> Visitor<'de> for Items<J, T> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list")
        }

        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(Object(item)) = items.next_element::<Object<J>>()? {
                list.push(item.into());
            }
            Ok(list)
        }
    }

    deserializer.deserialize_any(Items(PhantomData::<(J, T)>))
}
