//! Bodies that are wrong or hostile: clear answers, bounded memory, no panic.

use std::io::Write;
use std::time::Duration;

use clerk_exporter::telemetry::decode::{BodyEncoding, BodyFormat, DecodeError, DecodeLimits, decode};
use clerk_exporter::telemetry::span::{HostId, SpanId, TraceId};
use clerk_exporter::telemetry::span_memory::{Arrival, REMEMBERED, SpanMemory, SpanRef};
use clerk_quota::Moment;
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::prelude::*;
use prost::Message;

use super::captured::BODIES;
use super::support::{CAPTURED_HOST, NOW, World, call, request, text};

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn as_json(body: &str) -> Result<usize, DecodeError> {
    let limits = DecodeLimits::default();
    decode(body.as_bytes(), BodyFormat::Json, BodyEncoding::Identity, &limits).map(|it| it.resource_spans.len())
}

fn as_protobuf(body: &[u8]) -> Result<usize, DecodeError> {
    decode(body, BodyFormat::Protobuf, BodyEncoding::Identity, &DecodeLimits::default())
        .map(|it| it.resource_spans.len())
}

#[test]
fn truncated_bodies_are_refused_at_every_length() {
    for (body, format, encoding) in BODIES {
        let step = if body.len() > 20_000 { 7 } else { 1 };
        for length in (1..body.len()).step_by(step) {
            let world = World::new(CAPTURED_HOST);
            let taken = world.telemetry.take(&body[..length], format, encoding);
            assert_eq!(taken.map_err(DecodeError::status), Err(400), "{length} bytes");
            assert_eq!(world.results(), [], "{length} bytes");
        }
    }
}

#[test]
fn content_types_and_encodings_are_a_closed_set() {
    for (value, expected) in [
        ("application/x-protobuf", Some(BodyFormat::Protobuf)),
        ("application/json", Some(BodyFormat::Json)),
        ("Application/JSON; charset=utf-8", Some(BodyFormat::Json)),
        ("application/json ;x=y", Some(BodyFormat::Json)),
        ("application/jsonl", None),
        ("application/grpc", None),
        ("text/plain", None),
        ("", None),
    ] {
        assert_eq!(BodyFormat::of(Some(value.as_bytes())).ok(), expected, "{value}");
    }
    assert_eq!(BodyFormat::of(None), Err(DecodeError::ContentType));
    for (value, expected) in [
        ("gzip", Some(BodyEncoding::Gzip)),
        ("GZIP", Some(BodyEncoding::Gzip)),
        ("identity", Some(BodyEncoding::Identity)),
        ("", Some(BodyEncoding::Identity)),
        ("br", None),
        ("gzip, gzip", None),
        ("zstd", None),
    ] {
        assert_eq!(BodyEncoding::of(Some(value.as_bytes())).ok(), expected, "{value}");
    }
    assert_eq!(BodyEncoding::of(None), Ok(BodyEncoding::Identity));
}

#[test]
fn empty_bodies_are_valid_in_protobuf_only() {
    assert_eq!(as_protobuf(b""), Ok(0));
    assert_eq!(as_json("{}"), Ok(0));
    assert_eq!(as_json("").map_err(DecodeError::status), Err(400));
    let empty = decode(b"", BodyFormat::Protobuf, BodyEncoding::Gzip, &DecodeLimits::default());
    assert_eq!(empty, Err(DecodeError::Gzip));
}

#[test]
fn json_is_read_as_tolerantly_as_its_specification_asks() {
    let world = World::new("api.clerk.com");
    let end = (NOW - Duration::from_secs(5)).as_nanos();
    let span = |ids: &str, start: &str, rest: &str| {
        format!(
            r#"{{"traceId":"{}","spanId":{ids},"kind":3,"startTimeUnixNano":{start},"endTimeUnixNano":"{end}",{rest}
            "attributes":[{{"key":"http.request.method","value":{{"stringValue":"GET"}}}},
            {{"key":"url.full","value":{{"stringValue":"https:\/\/api.clerk.com\/v1\/users"}}}},
            {{"key":"http.response.status_code","value":{{"intValue":"200"}}}},
            {{"key":"a","value":{{"arrayValue":{{}}}}}}, {{"key":"b","value":{{"doubleValue":"NaN"}}}},
            {{"key":"c","value":null}}, {{"key":"d"}}, {{"key":"e","value":{{"kvlistValue":{{"values":[]}}}}}},
            {{"key":"f","value":{{"bytesValue":"AAAA","newValue":[1,{{}}]}}}}]}}"#,
            "AbCdEf0123456789abcdef0123456789"
        )
    };
    let start = end.to_string();
    let spans = [
        span(r#""0000000000000001""#, &start, ""),
        span(
            r#""0000000000000002""#,
            &format!("\"{start}\""),
            r#""parentSpanId":null,"events":null,"links":[{"x":1}],"#,
        ),
        span(r#""0000000000000003""#, "1.7958835e18", r#""unknownField":{"a":[[]]},"flags":"257","status":null,"#),
        span(r#""0000000000000004""#, &start, r#""traceState":null,"droppedLinksCount":"1","status":{"code":"2"},"#),
        span(r#""000000000000000g""#, &start, ""),
        span(r#""01""#, &start, ""),
        span("null", &start, ""),
        span(r#""0000000000000005""#, r#""later""#, ""),
        span(r#""0000000000000006""#, "-1", ""),
    ];
    let resource =
        r#"{"attributes":[{"key":"service.name","value":{"stringValue":"web"}}],"droppedAttributesCount":0}"#;
    let body = format!(
        r#"{{"resourceSpans":[{{"resource":{resource},"scopeSpans":[{{"scope":null,"spans":[{}]}}],"schemaUrl":""}},
        {{"scopeSpans":null}},{{}}],"x":1}}"#,
        spans.join(",")
    );
    let taken = world.telemetry.take(body.as_bytes(), BodyFormat::Json, BodyEncoding::Identity).unwrap();
    assert_eq!(taken.malformed, 5);
    // The third one started hours ago.
    assert_eq!(world.results(), [("accepted", 3), ("late", 1), ("malformed", 5)]);
}

#[test]
fn kind_of_a_span_may_be_a_word() {
    let kinds = ["3", r#""3""#, r#""SPAN_KIND_CLIENT""#, r#""CLIENT""#, r#""client""#, r#""server""#, "2", "null"];
    let time = (NOW - Duration::from_secs(5)).as_nanos();
    let spans = kinds.iter().enumerate().map(|(number, kind)| {
        format!(
            r#"{{"traceId":"abcdef0123456789abcdef0123456789","spanId":"000000000000000{number}","kind":{kind},
            "startTimeUnixNano":"{time}","endTimeUnixNano":"{time}","status":{{"code":"STATUS_CODE_ERROR"}},
            "attributes":[{{"key":"http.request.method","value":{{"stringValue":"GET"}}}},
            {{"key":"url.full","value":{{"stringValue":"https://api.clerk.com/v1/users"}}}},
            {{"key":"http.response.status_code","value":{{"intValue":"429"}}}}]}}"#
        )
    });
    let spans = spans.collect::<Vec<_>>().join(",");
    let body = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
    let world = World::new("api.clerk.com");
    world.telemetry.take(body.as_bytes(), BodyFormat::Json, BodyEncoding::Identity).unwrap();
    // The id of the first one is not valid.
    assert_eq!(world.results(), [("accepted", 4), ("other_kind", 3), ("malformed", 1)]);
}

#[test]
fn wrong_json_is_refused_with_its_place() {
    for body in [
        "x",
        "[]",
        "null",
        "1",
        "{\"resourceSpans\":{}}",
        "{\"resourceSpans\":[1]}",
        "{\"resourceSpans\":[{}]",
        "{}x",
        "\u{0}",
        "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{\"name\":\"\\ud800\",\"traceId\":[]}]}]}]}",
    ] {
        assert!(matches!(as_json(body), Err(DecodeError::Json { .. })), "{body}: {:?}", as_json(body));
    }
    assert!(matches!(as_json("{\n  x"), Err(DecodeError::Json { line: 2, column: 3 })), "{:?}", as_json("{\n  x"));
    let body = b"{\"resourceSpans\":[{\"resource\":{\"attributes\":[{\"key\":\"\xff\"}]}}]}";
    let invalid = decode(body, BodyFormat::Json, BodyEncoding::Identity, &DecodeLimits::default());
    assert_eq!(invalid.map_err(DecodeError::status), Err(400));
}

#[test]
fn json_lists_are_no_objects() {
    // Three bytes would be a span, with defaults for everything.
    for body in [
        "[]",
        r#"{"resourceSpans":[[]]}"#,
        r#"{"resourceSpans":[{"resource":[]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[[]]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[[]]}]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[[]]}]}]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"events":[[]]}]}]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"status":[]}]}]}]}"#,
        r#"{"resourceSpans":[{"resource":{"attributes":[{"value":[]}]}}]}"#,
        r#"{"resourceSpans":[{"resource":{"attributes":[{"value":{"arrayValue":[]}}]}}]}"#,
    ] {
        assert!(matches!(as_json(body), Err(DecodeError::Json { .. })), "{body}: {:?}", as_json(body));
    }
    let many = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}[]]}}]}}]}}"#, "[],".repeat(1 << 20));
    assert!(matches!(as_json(&many), Err(DecodeError::Json { .. })));
}

#[test]
fn deep_json_is_refused() {
    for (open, close) in [("[", "]"), ("{\"x\":", "}")] {
        let deep = format!("{{\"x\":{}1{}}}", open.repeat(100_000), close.repeat(100_000));
        assert_eq!(as_json(&deep), Err(DecodeError::TooDeep));
    }
    // Brackets in texts do not count.
    assert_eq!(as_json(&format!("{{\"x\":\"{}\"}}", "[\\\"{".repeat(1000))), Ok(0));
}

#[test]
fn deep_protobuf_is_refused() {
    // A list in a list, and so on: field 5 of a value, field 1 of a list.
    let mut value: Vec<u8> = Vec::new();
    for level in 0..200 {
        let mut outer = vec![if level % 2 == 0 { 0x0a } else { 0x2a }];
        prost::encoding::encode_varint(value.len() as u64, &mut outer);
        outer.extend(value);
        value = outer;
    }
    let mut body = value;
    for key in [0x12, 0x0a, 0x0a, 0x0a] {
        let mut outer = vec![key];
        prost::encoding::encode_varint(body.len() as u64, &mut outer);
        outer.extend(body);
        body = outer;
    }
    assert_eq!(as_protobuf(&body), Err(DecodeError::TooDeep));
}

#[test]
fn gzip_bomb_is_refused() {
    let bomb = gzip(&vec![0_u8; 64 << 20]);
    assert!(bomb.len() < 1 << 20);
    for format in [BodyFormat::Protobuf, BodyFormat::Json] {
        let taken = decode(&bomb, format, BodyEncoding::Gzip, &DecodeLimits::default());
        assert_eq!(taken, Err(DecodeError::InflatedTooLarge));
    }
    let garbage = decode(b"not gzip", BodyFormat::Protobuf, BodyEncoding::Gzip, &DecodeLimits::default());
    assert_eq!(garbage, Err(DecodeError::Gzip));
}

#[test]
fn bytes_that_decode_to_much_memory_are_refused() {
    // Empty spans of two bytes, which are 300 bytes each in memory.
    let spans: Vec<u8> = [0x12, 0].repeat(1 << 20);
    let mut body = spans;
    for key in [0x12, 0x0a] {
        let mut outer = vec![key];
        prost::encoding::encode_varint(body.len() as u64, &mut outer);
        outer.extend(body);
        body = outer;
    }
    assert_eq!(as_protobuf(&body), Err(DecodeError::DecodedTooLarge));
    let json = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}{{}}]}}]}}]}}"#, "{},".repeat(1 << 20));
    assert_eq!(as_json(&json), Err(DecodeError::DecodedTooLarge));
    let large = vec![b' '; (4 << 20) + 1];
    let taken = decode(&large, BodyFormat::Json, BodyEncoding::Identity, &DecodeLimits::default());
    assert_eq!(taken, Err(DecodeError::BodyTooLarge));
}

/// Bytes of a list, and of what its items hold.
fn held<T>(list: &Vec<T>, of_item: impl Fn(&T) -> usize) -> usize {
    list.capacity() * size_of::<T>() + list.iter().map(of_item).sum::<usize>()
}

fn held_by_value(value: &AnyValue) -> usize {
    match &value.value {
        Some(Value::ArrayValue(list)) => held(&list.values, held_by_value),
        _ => 0,
    }
}

fn held_by_attributes(attributes: &Vec<KeyValue>) -> usize {
    held(attributes, |it| it.value.as_ref().map_or(0, held_by_value))
}

#[test]
fn memory_of_short_lists_is_within_the_limit() {
    let value = |value| AnyValue { value: Some(value) };
    let list = |item| value(Value::ArrayValue(ArrayValue { values: vec![item] }));
    let attribute = |value| KeyValue { value: Some(value), ..KeyValue::default() };
    let attributes = vec![attribute(list(list(list(value(Value::BoolValue(true))))))];
    let event = Event { attributes: attributes.clone(), ..Event::default() };
    let spans = [
        Span::default(),
        Span { attributes, ..Span::default() },
        Span { events: vec![event], ..Span::default() },
        Span { attributes: vec![attribute(value(Value::BoolValue(true)))], ..Span::default() },
    ];
    let json = [
        r#"{}"#.to_owned(),
        r#"{"attributes":[ {"value":{"arrayValue":{"values":[{"arrayValue":{"values":[{}]}}]}}}]}"#.to_owned(),
        r#"{"events":[{"attributes":[{}]}]}"#.to_owned(),
        r#"{"attributes":[{"value":{"boolValue":true}}]}"#.to_owned(),
    ];
    let limits = DecodeLimits { max_decoded_bytes: 1 << 20, ..DecodeLimits::default() };
    let bodies = spans.into_iter().zip(json).flat_map(|(span, json)| {
        let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
        let protobuf = move |scopes| {
            let scope_spans = vec![scope.clone(); scopes];
            let resource = ResourceSpans { scope_spans, ..ResourceSpans::default() };
            ExportTraceServiceRequest { resource_spans: vec![resource] }.encode_to_vec()
        };
        let json = move |scopes| {
            let list = vec![format!(r#"{{"spans":[{json}]}}"#); scopes].join(",");
            format!(r#"{{"resourceSpans":[{{"scopeSpans":[{list}]}}]}}"#).into_bytes()
        };
        let protobuf: Box<dyn Fn(usize) -> Vec<u8>> = Box::new(protobuf);
        [(protobuf, BodyFormat::Protobuf), (Box::new(json), BodyFormat::Json)]
    });
    for (body, format) in bodies {
        let decoded =
            (0..).map_while(|scopes| decode(&body(scopes * 16), format, BodyEncoding::Identity, &limits).ok());
        let largest = decoded.last().unwrap();
        let bytes = held(&largest.resource_spans, |resource| {
            held(&resource.scope_spans, |scope| {
                held(&scope.spans, |span| {
                    let events = held(&span.events, |event| held_by_attributes(&event.attributes));
                    held_by_attributes(&span.attributes) + events
                })
            })
        });
        let first = largest.resource_spans[0].scope_spans.first();
        assert!(bytes <= limits.max_decoded_bytes, "{format:?} {bytes} {first:?}");
        assert!(bytes > limits.max_decoded_bytes / 4, "{format:?} {bytes} {first:?}");
    }
}

#[test]
fn many_attributes_and_huge_texts_are_taken() {
    let world = World::new("api.clerk.com");
    let mut many = call(1);
    many.attributes.splice(0..0, (0..10_000).map(|place| text(&format!("key-{place}"), "value")));
    let mut huge = call(2);
    huge.attributes.push(text("http.response.header.retry-after", &"9".repeat(1 << 18)));
    huge.attributes.push(text(&"k".repeat(1 << 18), "v"));
    huge.name = "n".repeat(1 << 18);
    huge.trace_state = format!("ot=th:{}", "8".repeat(1 << 16));
    let mut long = call(3);
    long.attributes[1] = text("url.full", &format!("https://api.clerk.com/v1/users/{}", "x/".repeat(1 << 18)));
    world.send_from(vec![text("service.name", &"s".repeat(1 << 18))], vec![many, huge]);
    world.send(vec![long]);
    assert_eq!(world.results(), [("accepted", 3)]);
}

#[test]
fn span_memory_is_bounded_and_says_what_it_forgot() {
    let mut memory = SpanMemory::<()>::new(8000);
    let now = Moment::from_unix(NOW);
    let span =
        |id: u64| SpanRef { trace: TraceId([1; 16]), span: SpanId(id.to_be_bytes()), parent: None, host: HostId(1) };
    for id in 0..100_000 {
        assert_eq!(memory.arrive(now, &span(id)), Arrival::Innermost);
        assert!(memory.len() <= 8000);
    }
    assert!(memory.forgotten() >= 92_000, "{}", memory.forgotten());
    assert_eq!(memory.arrive(now, &span(99_999)), Arrival::Duplicate);
    assert_eq!(memory.arrive(now, &span(0)), Arrival::Innermost, "the oldest went");
}

#[test]
fn spans_are_remembered_for_five_minutes() {
    let now = Moment::from_unix(NOW);
    let span = SpanRef { trace: TraceId([1; 16]), span: SpanId([1; 8]), parent: None, host: HostId(1) };
    let mut memory = SpanMemory::<()>::new(8000);
    memory.arrive(now, &span);
    assert_eq!(memory.arrive(now.after(REMEMBERED), &span), Arrival::Duplicate);
    assert_eq!(memory.forgotten(), 0);
    let later = now.after(REMEMBERED).after(REMEMBERED);
    assert_eq!(memory.arrive(later, &span), Arrival::Innermost);
    assert_eq!((memory.forgotten(), memory.len()), (0, 1), "old ones are not forgotten early");
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..400), is_json in any::<bool>(), is_gzip in any::<bool>()) {
        let format = if is_json { BodyFormat::Json } else { BodyFormat::Protobuf };
        let encoding = if is_gzip { BodyEncoding::Gzip } else { BodyEncoding::Identity };
        let _ = World::new(CAPTURED_HOST).telemetry.take(&bytes, format, encoding);
    }

    #[test]
    fn changed_captured_bodies_give_an_answer(place in any::<prop::sample::Index>(), byte in any::<u8>(), which in 0_usize..5) {
        let (body, format, encoding) = BODIES[which];
        let mut body = body.to_vec();
        let place = place.index(body.len());
        body[place] = byte;
        let world = World::new(CAPTURED_HOST);
        if let Ok(rejected) = world.telemetry.take(&body, format, encoding) {
            let total: u64 = world.results().iter().map(|(_, count)| count).sum();
            prop_assert!(rejected.spans() <= total);
        }
    }

    #[test]
    fn any_times_give_one_result(start in any::<u64>(), end in any::<u64>(), shift in -100_i64..100) {
        let world = World::new("api.clerk.com");
        let near = call(1).end_time_unix_nano.saturating_add_signed(shift * 1_000_000_000);
        world.send(vec![
            Span { start_time_unix_nano: start, end_time_unix_nano: end, ..call(1) },
            Span { start_time_unix_nano: start, end_time_unix_nano: near, ..call(2) },
            Span { start_time_unix_nano: near, end_time_unix_nano: end, ..call(3) },
        ]);
        prop_assert_eq!(world.results().iter().map(|(_, count)| count).sum::<u64>(), 3);
    }

    #[test]
    fn protobuf_with_any_ids_gives_one_result(trace in proptest::collection::vec(any::<u8>(), 0..20), span in proptest::collection::vec(any::<u8>(), 0..12)) {
        let world = World::new("api.clerk.com");
        let body = request(Vec::new(), vec![Span { trace_id: trace.clone(), span_id: span.clone(), ..call(1) }]);
        world.take(&body.encode_to_vec()).unwrap();
        let is_valid = trace.len() == 16 && span.len() == 8 && trace != [0; 16] && span != [0; 8];
        prop_assert_eq!(world.results(), [(if is_valid { "accepted" } else { "malformed" }, 1)]);
    }
}
