//! Properties of any delivery.

use clerk_client::webhook::{Event, SigningSecret, Tag, Tolerance, tags_of_route, verify};
use http::HeaderValue;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::delivery::Delivery;
use crate::support::{NOW, SECRET, now, signed_headers};

/// Pieces of headers and events, which reach further than random bytes.
fn delivery_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\x00msg_1\n".to_vec()),
        Just(b"\x011795608000\n".to_vec()),
        Just(b"\x02v1,6aSzHdBcXhTdmyI7YJvNWu6DBqAv90lN4Bt2eCAwwYk= v1,\n".to_vec()),
        Just(b"\n{\"type\":\"user.updated\",\"data\":{\"id\":\"user_1\"}}".to_vec()),
        Just(b"\n{\"type\":\"organizationMembership.created\",\"data\":[{}]}".to_vec()),
        vec(any::<u8>(), 0..40),
    ];
    vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// Arbitrary JSON with the keys that are read.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        "[a-z:_. ]{0,12}".prop_map(|text| format!("\"{text}\"")),
        Just("\"org_1\"".to_owned()),
    ];
    let key = prop_oneof![
        Just("id"),
        Just("user_id"),
        Just("client_id"),
        Just("organization_id"),
        Just("organization"),
        Just("payer"),
        Just("public_user_data"),
        Just("banned"),
        Just("data"),
        Just("timestamp"),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            vec((key.clone(), inner), 0..5).prop_map(|members| {
                let members: Vec<_> = members.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_neither_panic_nor_verify(bytes in delivery_like()) {
        Delivery::from_bytes(&bytes).check();
    }

    #[test]
    fn arbitrary_data_is_read_and_missing_ids_invalidate_more(
        family in prop_oneof![
            Just("user"), Just("session"), Just("organization"), Just("organizationMembership"),
            Just("organizationInvitation"), Just("organizationDomain"), Just("subscription"), Just("paymentAttempt"),
        ],
        action in prop_oneof![Just("created"), Just("updated"), Just("deleted"), Just("x.y"), Just("")],
        data in json(),
    ) {
        let event = Event::read(format!("{{\"type\":\"{family}.{action}\",\"data\":{data}}}").as_bytes()).unwrap();
        prop_assert!(!event.tags.is_empty());
        let mut sorted = event.tags.clone();
        sorted.sort();
        sorted.dedup();
        prop_assert_eq!(sorted.len(), event.tags.len());
    }

    #[test]
    fn a_flipped_bit_of_a_signed_delivery_never_verifies(
        body in vec(any::<u8>(), 1..200),
        part in 0..4_usize,
        place in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let secret = [SigningSecret::parse(SECRET).unwrap()];
        let mut headers = signed_headers(SECRET, "msg_1", NOW, &body);
        prop_assert!(verify(&secret, Tolerance::default(), &headers, &body, now()).is_ok());
        let mut body = body;
        if let Some(name) = ["svix-id", "svix-timestamp", "svix-signature"].get(part) {
            let mut value = headers[*name].as_bytes().to_vec();
            let place = place.index(value.len());
            value[place] ^= 1 << bit;
            // HTTP itself rejects such a header.
            let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
            headers.insert(*name, value);
        } else {
            let place = place.index(body.len());
            body[place] ^= 1 << bit;
        }
        prop_assert!(verify(&secret, Tolerance::default(), &headers, &body, now()).is_err());
    }

    #[test]
    fn tags_of_any_route_round_trip_as_text(template in "(/v1/)?[a-z_/{}]{0,40}", id in ".{0,20}") {
        let parameters = vec![id.as_str(); template.matches('{').count()];
        for tag in tags_of_route(&template, &parameters) {
            prop_assert_eq!(tag.to_string().parse::<Tag>(), Ok(tag));
        }
    }
}
