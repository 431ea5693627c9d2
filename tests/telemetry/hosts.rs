//! Which hosts count: names compared without case, ports with the default of the scheme.

use clerk_exporter::telemetry::span::Hosts;

use super::support::{World, call, number, span, text};

/// What a span with this URL or these attributes is, if the configured host is `host`.
fn is_called(host: &str, attributes: &[(&str, &str)]) -> bool {
    let world = World::new(host);
    let mut list = vec![text("http.request.method", "GET")];
    list.extend(attributes.iter().map(|(key, value)| text(key, value)));
    world.send(vec![span(1, list)]);
    let results = world.results();
    assert!(results == [("accepted", 1)] || results == [("other_host", 1)], "{results:?}");
    results[0].0 == "accepted"
}

#[test]
fn host_without_port_means_the_default_port() {
    for (url, expected) in [
        ("https://api.clerk.com/v1/users", true),
        ("https://API.Clerk.Com:443/v1/users", true),
        ("https://api.clerk.com./v1/users", true),
        ("http://api.clerk.com/v1/users", true),
        ("http://api.clerk.com:80", true),
        ("https://user:pass@api.clerk.com/v1", true),
        ("https://api.clerk.com?x=1", true),
        ("http://api.clerk.com:443/v1/users", true),
        ("https://api.clerk.com:8443/v1/users", false),
        ("https://api.clerk.com.evil.test/v1/users", false),
        ("https://evil.test/api.clerk.com", false),
        ("https://api.clerk.com@evil.test/v1/users", false),
        ("https://xapi.clerk.com/", false),
        ("/v1/users", false),
        ("", false),
    ] {
        assert_eq!(is_called("api.clerk.com", &[("url.full", url)]), expected, "{url}");
        assert_eq!(is_called("api.clerk.com", &[("http.url", url)]), expected, "{url}");
    }
}

#[test]
fn host_with_port_means_that_port() {
    for (host, url, expected) in [
        ("127.0.0.1:18432", "http://127.0.0.1:18432/v1", true),
        ("127.0.0.1:18432", "http://127.0.0.1/v1", false),
        ("api.clerk.com:443", "https://api.clerk.com/v1", true),
        ("https://api.clerk.com", "https://api.clerk.com/v1", true),
        ("https://api.clerk.com", "http://api.clerk.com/v1", false),
        ("[::1]:8080", "http://[::1]:8080/v1", true),
        ("[::1]:8080", "http://[::1]:8081/v1", false),
    ] {
        assert_eq!(is_called(host, &[("url.full", url)]), expected, "{host} {url}");
    }
}

#[test]
fn host_is_found_in_every_convention() {
    for attributes in [
        &[("server.address", "api.clerk.com")][..],
        &[("server.address", "api.clerk.com"), ("server.port", "443")],
        &[("server.address", "api.clerk.com:443")],
        &[("server.address", "api.clerk.com"), ("url.full", "https://elsewhere.test/")],
        &[("http.host", "api.clerk.com")],
        &[("http.host", "api.clerk.com:443"), ("http.scheme", "https")],
        &[("net.peer.name", "api.clerk.com"), ("net.peer.port", "443")],
        &[("net.peer.name", "api.clerk.com")],
    ] {
        assert!(is_called("api.clerk.com", attributes), "{attributes:?}");
    }
    for attributes in [
        &[("server.address", "api.clerk.com"), ("server.port", "8443")][..],
        &[("server.address", "api.clerk.com"), ("url.full", "https://api.clerk.com:8443/v1")],
        &[("server.address", "gateway.internal"), ("url.full", "https://api.clerk.com/v1")],
        &[("net.peer.name", "api.clerk.com"), ("net.peer.port", "81"), ("http.scheme", "https")],
        &[("http.host", "api.clerk.com:81"), ("url.scheme", "https")],
        &[("url.path", "/v1/users")],
    ] {
        assert!(!is_called("api.clerk.com", attributes), "{attributes:?}");
    }
}

#[test]
fn instances_may_write_the_same_host_in_several_ways() {
    let spellings = [("a", &["api.clerk.com"][..]), ("b", &["https://api.clerk.com"]), ("c", &["API.clerk.com:443"])];
    let world = World::with(&spellings, |mut options| {
        options.instance_values = spellings.iter().map(|(name, _)| ((*name).into(), (*name).into())).collect();
        options
    });
    for (id, (name, _)) in (1..).zip(spellings) {
        world.send_from(vec![text("deployment.environment.name", name)], vec![call(id)]);
    }
    assert_eq!(world.results(), [("accepted", 3)]);
}

#[test]
fn port_may_be_a_number() {
    let world = World::new("127.0.0.1:18432");
    let attributes =
        |port| vec![text("http.method", "GET"), text("net.peer.name", "127.0.0.1"), number("net.peer.port", port)];
    world.send(vec![span(1, attributes(18432)), span(2, attributes(18433)), span(3, attributes(-1))]);
    assert_eq!(world.results(), [("accepted", 1), ("other_host", 2)]);
}

#[test]
fn texts_that_are_no_hosts_are_refused() {
    for host in ["", "a b", "https://", "ftp://api.clerk.com", "api.clerk.com/v1", "user@host", "host:port"] {
        assert!(Hosts::new([host]).is_err(), "{host}");
    }
    let error = Hosts::new(["sk_live_4bMbJyWZ2vnLx0aQCANARYxxxxxxxxxxxxxxxxxxxx/"]).unwrap_err();
    assert!(!error.to_string().contains("CANARY"), "{error}");
}
