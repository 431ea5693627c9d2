//! Outcomes of many requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::exporter::{KEY, within};

/// The outcome of one request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// 200 and the whole response to this request.
    Right,
    /// A whole response in the format of Clerk's errors: status, code, and the gateway's decision if present.
    Error(u16, String, String),
    /// The head of the correct response, and a connection that visibly ended before the end of the body.
    Cut,
    /// The connection ended without a byte of a response.
    Nothing,
    /// The connection was refused.
    Refused,
}

/// Counts of outcomes.
#[derive(Debug, Default)]
pub(crate) struct Account(pub(crate) BTreeMap<Outcome, usize>);

impl Account {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        *self.0.entry(outcome).or_default() += 1;
    }

    pub(crate) fn of(&self, outcome: &Outcome) -> usize {
        self.0.get(outcome).copied().unwrap_or_default()
    }

    pub(crate) fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// Asserts that there were this many requests, and that each had an allowed outcome.
    pub(crate) fn holds_only(&self, total: usize, is_allowed: impl Fn(&Outcome) -> bool, what: &str) {
        assert_eq!(self.total(), total, "{what}: {:?}", self.0);
        for (outcome, times) in &self.0 {
            assert!(is_allowed(outcome), "{what}: {times} times {outcome:?} in {:?}", self.0);
        }
    }
}

/// A request, and what its response must contain.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) body: String,
    pub(crate) expected: String,
}

impl Ask {
    pub(crate) fn get(target: String, expected: String) -> Self {
        Self { method: "GET", target, body: String::new(), expected }
    }

    pub(crate) fn bytes(&self, connection: &str) -> Vec<u8> {
        let Self { method, target, body, .. } = self;
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
        };
        format!(
            "{method} {target} HTTP/1.1\r\nHost: gateway\r\nConnection: {connection}\r\n\
             Authorization: Bearer {KEY}\r\n{length}\r\n{body}"
        )
        .into_bytes()
    }

    /// Classifies all bytes received on a connection. Panics if they are not a response to this request.
    pub(crate) fn judge(&self, bytes: &[u8]) -> Outcome {
        if bytes.is_empty() {
            return Outcome::Nothing;
        }
        let answer = Answer::read(bytes).unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(bytes)));
        if answer.status == 200 {
            let body = String::from_utf8_lossy(&answer.body);
            if !answer.is_whole {
                return Outcome::Cut;
            }
            assert!(body.contains(&self.expected), "{self:?} got the answer {body}");
            return Outcome::Right;
        }
        assert!(answer.is_whole, "half an error: {answer:?}");
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let code = json["errors"][0]["code"].as_str().unwrap_or_else(|| panic!("{json}")).to_owned();
        Outcome::Error(answer.status, code, answer.header("x-clerk-exporter-decision").unwrap_or_default())
    }
}

/// A received response, complete or not.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    body: Vec<u8>,
    is_whole: bool,
}

impl Answer {
    /// `None` without a complete head.
    fn read(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut answer = Self { status, head, body: Vec::new(), is_whole: false };
        let rest = &bytes[end + 4..];
        if answer.header("transfer-encoding").is_some() {
            answer.is_whole = unchunk(rest, &mut answer.body);
        } else {
            let length: usize = answer.header("content-length")?.parse().ok()?;
            assert!(rest.len() <= length, "more than one answer");
            answer.is_whole = rest.len() == length;
            answer.body = rest.to_vec();
        }
        Some(answer)
    }

    fn header(&self, name: &str) -> Option<String> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }
}

/// Returns whether the last chunk was received.
fn unchunk(mut rest: &[u8], body: &mut Vec<u8>) -> bool {
    loop {
        let Some(line) = rest.windows(2).position(|two| two == b"\r\n") else { return false };
        let Ok(size) = usize::from_str_radix(&String::from_utf8_lossy(&rest[..line]), 16) else { return false };
        let from = line + 2;
        if size == 0 {
            return rest[from..] == *b"\r\n";
        }
        let Some(chunk) = rest.get(from..from + size) else { return false };
        body.extend_from_slice(chunk);
        rest = rest.get(from + size + 2..).unwrap_or_default();
    }
}

/// Sends a request on a new connection.
pub(crate) async fn ask(address: SocketAddr, ask: &Ask) -> Outcome {
    let exchange = async {
        let Ok(mut stream) = TcpStream::connect(address).await else { return Outcome::Refused };
        // The server may have closed the connection without reading the request.
        let _ = stream.write_all(&ask.bytes("close")).await;
        ask.judge(&read_to_end(&mut stream).await)
    };
    within(&ask.target, exchange).await
}

/// All bytes until the connection ends in any way.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

/// Sends all of them at the same time.
pub(crate) async fn ask_all(address: SocketAddr, asks: impl IntoIterator<Item = Ask>) -> Account {
    let mut tasks = JoinSet::new();
    for one in asks {
        tasks.spawn(async move { ask(address, &one).await });
    }
    let mut account = Account::default();
    while let Some(outcome) = tasks.join_next().await {
        account.add(outcome.unwrap());
    }
    account
}
