//! The captured bodies of `data/`, with the exact counts.

use clerk_exporter::telemetry::decode::{BodyEncoding, BodyFormat};

use super::support::{CAPTURED_HOST, World};

const UNDICI: &[u8] = include_bytes!("data/undici-stable.pb");
const UNDICI_JSON: &[u8] = include_bytes!("data/undici-stable.json");
const VERCEL: &[u8] = include_bytes!("data/vercel-otel-legacy.pb");
const HTTPX: &[u8] = include_bytes!("data/httpx-legacy.pb");
const HTTPX_STABLE: &[u8] = include_bytes!("data/httpx-stable.pb.gz");

/// All bodies with their formats.
pub(crate) const BODIES: [(&[u8], BodyFormat, BodyEncoding); 5] = [
    (UNDICI, BodyFormat::Protobuf, BodyEncoding::Identity),
    (UNDICI_JSON, BodyFormat::Json, BodyEncoding::Identity),
    (VERCEL, BodyFormat::Protobuf, BodyEncoding::Identity),
    (HTTPX, BodyFormat::Protobuf, BodyEncoding::Identity),
    (HTTPX_STABLE, BodyFormat::Protobuf, BodyEncoding::Gzip),
];

fn replayed((body, format, encoding): (&[u8], BodyFormat, BodyEncoding)) -> World {
    let world = World::new(CAPTURED_HOST);
    assert_eq!(world.telemetry.take(body, format, encoding).unwrap().spans(), 0);
    world
}

fn spent(world: &World) -> Vec<(String, u64)> {
    world.spent().into_iter().collect()
}

fn expected(caller: &str, counts: &[(&str, u64)]) -> Vec<(String, u64)> {
    counts.iter().map(|(rest, count)| (format!("{caller} {rest}"), *count)).collect()
}

#[test]
fn undici_protobuf_and_json_give_the_same_counts() {
    for body in [BODIES[0], BODIES[1]] {
        let world = replayed(body);
        assert_eq!(world.results(), [("accepted", 27)]);
        let counts = [
            ("GET /v1/users served", 1),
            ("GET /v1/users/count served", 1),
            ("GET /v1/users/{user_id} refused", 7),
            ("GET /v1/users/{user_id} served", 18),
        ];
        assert_eq!(spent(&world), expected("web", &counts));
    }
}

#[test]
fn vercel_fetch_spans_are_counted_without_their_parent() {
    let world = replayed(BODIES[2]);
    assert_eq!(world.results(), [("accepted", 24), ("other_kind", 1)]);
    let counts = [
        ("GET /v1/users served", 1),
        ("GET /v1/users/count served", 1),
        ("GET /v1/users/{user_id} refused", 4),
        ("GET /v1/users/{user_id} served", 18),
    ];
    assert_eq!(spent(&world), expected("web-vercel", &counts));
}

#[test]
fn httpx_is_counted_in_both_conventions() {
    for (body, caller) in [(BODIES[3], "py"), (BODIES[4], "py-new")] {
        let world = replayed(body);
        assert_eq!(world.results(), [("accepted", 4)]);
        let spent = spent(&world);
        assert_eq!(spent.iter().map(|(_, count)| count).sum::<u64>(), 4, "{spent:?}");
        assert!(spent.iter().all(|(key, _)| key.starts_with(&format!("{caller} GET /v1/users"))), "{spent:?}");
    }
}

#[test]
fn repeated_bodies_are_duplicates() {
    let world = World::new(CAPTURED_HOST);
    for _ in 0..3 {
        for (body, format, encoding) in BODIES {
            world.telemetry.take(body, format, encoding).unwrap();
        }
    }
    // The JSON body was captured in a run of its own, so its spans have other ids.
    let calls = 27 * 2 + 24 + 4 * 2;
    assert_eq!(world.results(), [("accepted", calls), ("other_kind", 3), ("duplicate", calls * 2)]);
    assert_eq!(world.counted(), calls);
}

#[test]
fn captured_bodies_to_another_host_are_not_counted() {
    let world = World::new("127.0.0.1:18433");
    for (body, format, encoding) in BODIES {
        world.telemetry.take(body, format, encoding).unwrap();
    }
    assert_eq!(world.results(), [("other_host", 27 * 2 + 24 + 8), ("other_kind", 1)]);
    assert_eq!(world.counted(), 0);
}
