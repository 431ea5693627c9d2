//! The formats served to every kind of scraper, over a real socket.

use reqwest::Method;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};

use clerk_test_support::KEY;
use clerk_test_support::process::Process;

use crate::clerk_exporter;
use crate::{PROMETHEUS_ACCEPT, client};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[tokio::test]
async fn every_scraper_gets_its_content_type() {
    // No listener on port 1: the exposition does not wait for Clerk.
    let environment = [("CLERK_SECRET_KEY", KEY), ("CLERK_API_URL", "http://127.0.0.1:1")];
    let mut exporter = Process::start(clerk_exporter().envs(environment).arg("--web.listen-address=127.0.0.1:0"));
    let url = format!("http://{}/metrics", exporter.address().await);

    let accepts = [
        (None, TEXT),
        (Some("*/*"), TEXT),
        (Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), TEXT),
        (Some("text/plain;version=0.0.4"), TEXT),
        (Some("application/openmetrics-text; version=1.0.0"), OPENMETRICS),
        (Some(PROMETHEUS_ACCEPT), OPENMETRICS),
    ];
    let plain = reqwest::Client::builder().no_proxy().no_gzip().build().unwrap();
    for (accept, content_type) in accepts {
        for (method, gzip) in [(Method::GET, false), (Method::GET, true), (Method::HEAD, false), (Method::HEAD, true)] {
            let mut request = plain.request(method.clone(), &url);
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if gzip {
                request = request.header(ACCEPT_ENCODING, "gzip");
            }
            let response = request.send().await.unwrap().error_for_status().unwrap();
            assert_eq!(response.headers()[CONTENT_TYPE], content_type, "{method} with Accept {accept:?}, gzip {gzip}");
            let encoding = response.headers().get(CONTENT_ENCODING);
            assert_eq!(encoding.is_some_and(|encoding| encoding == "gzip"), gzip, "{method} with Accept {accept:?}");
            let body = response.bytes().await.unwrap();
            assert_eq!(body.is_empty(), method == Method::HEAD);
            if !gzip && method == Method::GET {
                assert_eq!(body.ends_with(b"\n# EOF\n"), content_type == OPENMETRICS);
            }
        }
        let mut request = client().get(&url);
        if let Some(accept) = accept {
            request = request.header(ACCEPT, accept);
        }
        let unpacked = request.send().await.unwrap().text().await.unwrap();
        assert!(unpacked.contains("\nclerk_probes_total{clerk_instance=\"default\"} "), "{unpacked}");
        assert_eq!(unpacked.ends_with("\n# EOF\n"), content_type == OPENMETRICS);
    }
    assert!(exporter.terminate().await.success(), "{}", exporter.output());
}
