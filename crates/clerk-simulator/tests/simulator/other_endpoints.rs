//! The key set and the list of routes.

use super::*;

#[tokio::test(start_paused = true)]
async fn jwks_has_a_2048_bit_key_and_is_not_counted() {
    let simulator = Simulator::new(options());
    for _ in 0..300 {
        let answer = get(&simulator, "/v1/jwks").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("x-ratelimit-limit"), None);
    }
    let keys = get(&simulator, "/v1/jwks").await.json();
    assert_eq!(keys["keys"][0]["n"].as_str().unwrap().len(), 342);
    assert_eq!(get(&simulator, "/v1/users/count").await.header("x-ratelimit-remaining"), Some("99"));
}

#[tokio::test(start_paused = true)]
async fn every_listed_route_is_known() {
    let simulator = generous();
    let user = simulator.user_id(0).unwrap();
    for route in Simulator::routes() {
        let path = route.template().replace("{user_id}", &user);
        let key = if route.template().starts_with("/v1/m2m_tokens") { "ak_machine" } else { KEY };
        for path in [Some(path.clone()), route.is_also_without_version().then(|| path.replacen("/v1", "", 1))] {
            let Some(path) = path else { continue };
            let answer = send(&simulator, route.method().parse().unwrap(), &path, key, Some(json!({}))).await;
            assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
            let is_unknown = answer.status == StatusCode::NOT_FOUND
                && answer.json()["errors"][0]["long_message"].as_str().unwrap().contains("No resource");
            assert!(!is_unknown, "{} {path}", route.method());
        }
    }
}
