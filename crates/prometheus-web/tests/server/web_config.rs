use prometheus_web::WebConfigSource;

use crate::support::*;

#[test]
fn example_file_is_valid() {
    assert!(WebConfigSource::open(data("web-config/example.yml")).unwrap().uses_tls());
}

#[test]
fn missing_file_error_names_the_file() {
    let error = WebConfigSource::open("/nonexistent/web.yml").err().unwrap();
    assert!(error.to_string().starts_with("/nonexistent/web.yml: "), "{error}");
    assert_eq!(error.file(), std::path::Path::new("/nonexistent/web.yml"));
}

#[test]
fn errors_name_the_file_and_the_key() {
    let tls = |rest: &str| format!("tls_server_config: {{cert_file: server.pem, key_file: server.key{rest}}}\n");
    let cases = [
        ("tls_server_config: {cert_file: server.pem}\n".to_owned(), "tls_server_config.key_file", "missing"),
        ("tls_server_config: {key_file: server.key}\n".to_owned(), "tls_server_config.cert_file", "missing"),
        ("tls_server_config: {min_version: TLS12}\n".to_owned(), "tls_server_config.cert_file", "missing"),
        (tls(", cert: x"), "tls_server_config.cert_file", "not both"),
        (tls(", key: x"), "tls_server_config.key_file", "not both"),
        (
            "tls_server_config: {cert_file: gone.pem, key_file: server.key}\n".to_owned(),
            "tls_server_config.cert_file",
            "gone.pem cannot be read",
        ),
        (
            "tls_server_config: {cert_file: server.key, key_file: server.key}\n".to_owned(),
            "tls_server_config.cert_file",
            "no certificate",
        ),
        (
            "tls_server_config: {cert_file: server.pem, key_file: server.pem}\n".to_owned(),
            "tls_server_config.key_file",
            "no private key",
        ),
        (
            "tls_server_config: {cert_file: server.pem, key: CANARY}\n".to_owned(),
            "tls_server_config.key",
            "no private key",
        ),
        (
            "tls_server_config: {cert_file: ca.pem, key_file: server.key}\n".to_owned(),
            "tls_server_config.key_file",
            "does not belong to the certificate",
        ),
        (tls(", min_version: TLS10"), "tls_server_config.min_version", "write TLS12 or TLS13"),
        (tls(", max_version: TLS11"), "tls_server_config.max_version", "write TLS12 or TLS13"),
        (tls(", cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]"), "tls_server_config.cipher_suites", "choose from"),
        (tls(", curve_preferences: [CurveP521]"), "tls_server_config.curve_preferences", "choose from"),
        (tls(", client_auth_type: Always"), "tls_server_config.client_auth_type", "write NoClientCert"),
        (tls(", client_ca_file: ca.pem"), "tls_server_config.client_auth_type", "RequireAndVerifyClientCert"),
        (tls(", client_auth_type: RequireAndVerifyClientCert"), "tls_server_config.client_ca_file", "missing"),
        (
            tls(", client_auth_type: RequireAndVerifyClientCert, client_ca_file: server.key"),
            "tls_server_config.client_ca_file",
            "no certificate",
        ),
        (tls(", client_allowed_sans: [x]"), "tls_server_config.client_allowed_sans", "RequireAndVerifyClientCert"),
        (
            tls(", client_auth_type: RequestClientCert, client_allowed_sans: [x]"),
            "tls_server_config.client_allowed_sans",
            "RequireAndVerifyClientCert",
        ),
        ("http_server_config: {headers: {Server: x}}\n".to_owned(), "http_server_config.headers.Server", "only these"),
        ("basic_auth_users: {alice: CANARY}\n".to_owned(), "basic_auth_users.alice", "htpasswd"),
        ("rate_limit: {interval: soon, burst: 1}\n".to_owned(), "rate_limit.interval", "not a duration"),
        ("rate_limit: {interval: 1s}\n".to_owned(), "rate_limit.burst", "at least 1"),
    ];
    for (text, key, expected) in cases {
        let folder = ConfigFolder::new(&text);
        let error = WebConfigSource::open(folder.path()).err().unwrap_or_else(|| panic!("accepted: {text}"));
        let message = error.to_string();
        assert_eq!(error.key(), Some(key), "{text}: {message}");
        assert!(message.starts_with(&format!("{}: {key}: ", folder.path().display())), "{message}");
        assert!(message.contains(expected), "{text}: {message}");
        assert!(!message.contains("CANARY"), "{message}");
    }
}

#[test]
fn unknown_key_error_has_the_line() {
    let folder = ConfigFolder::new("tls_server_config:\n  cert_fil: server.pem\n");
    let message = WebConfigSource::open(folder.path()).err().unwrap().to_string();
    assert!(message.starts_with(&folder.path().display().to_string()), "{message}");
    assert!(message.contains("cert_fil") && message.contains("line 2"), "{message}");
}
