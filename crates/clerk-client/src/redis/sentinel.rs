//! Asking sentinels for the primary.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{FromRedisValue, Value};
use tokio::time::{Instant, timeout_at};

use super::address::NodeAddress;
use super::connect::{ByteStream, request};
use super::permissions::Command;
use super::{ErrorReply, RedisClientError};

/// Asks one sentinel. `None` if it does not know the service.
pub(super) async fn ask(
    stream: &mut (impl ByteStream + ?Sized),
    service: &str,
) -> Result<Option<NodeAddress>, RedisClientError> {
    let mut stream = stream;
    let mut command = Command::SentinelPrimary.build();
    command.arg(service);
    let reply = request(&mut stream, &command).await?;
    let unexpected = |_| RedisClientError::unavailable("unexpected response of a sentinel");
    let address: Option<(String, u16)> = Option::from_redis_value(reply).map_err(unexpected)?;
    Ok(address.map(|(host, port)| NodeAddress::Tcp { host, port }))
}

/// Returns the primary that most sentinels name. Waits for all of them, but not for those that are late or cannot change
/// the result: a sentinel that is cut off from the others may name a former primary.
pub(super) async fn primary<F>(asked: impl Iterator<Item = F>, limit: Duration) -> Result<NodeAddress, RedisClientError>
where
    F: Future<Output = Result<Option<NodeAddress>, RedisClientError>>,
{
    let mut asked: FuturesUnordered<F> = asked.collect();
    let deadline = Instant::now() + limit;
    let mut answers = Vec::new();
    loop {
        if let Some(primary) = agreed(&answers, asked.len()) {
            return Ok(primary.clone());
        }
        match timeout_at(deadline, asked.next()).await {
            Ok(Some(answer)) => answers.push(answer),
            Ok(None) => break,
            Err(_) => {
                let primary = agreed(&answers, 0).cloned();
                return primary.ok_or_else(|| failure(&answers, true));
            }
        }
    }
    Err(failure(&answers, false))
}

type Answer = Result<Option<NodeAddress>, RedisClientError>;

/// The address named most often, if that cannot change by this number of further answers. Of equals, the first.
fn agreed(answers: &[Answer], missing: usize) -> Option<&NodeAddress> {
    let named = || answers.iter().filter_map(|answer| answer.as_ref().ok()?.as_ref());
    let count = |address: &NodeAddress| named().filter(|other| *other == address).count();
    // The last of the maxima is the first in reverse.
    let best = named().collect::<Vec<_>>().into_iter().rev().max_by_key(|address| count(address))?;
    let second = named().filter(|address| *address != best).map(count).max().unwrap_or(0);
    (missing == 0 || count(best) > second + missing).then_some(best)
}

/// Why no sentinel named a primary.
fn failure(answers: &[Answer], is_late: bool) -> RedisClientError {
    let is_unknown = answers.iter().any(|answer| matches!(answer, Ok(None)));
    let refusal = answers.iter().find_map(|answer| match answer {
        Err(RedisClientError::Refused(refusal)) => Some(refusal),
        _ => None,
    });
    let advice = match refusal {
        Some(ErrorReply::Credentials) => {
            ": wrong credentials; check sentinel_username and sentinel_password in the URL"
        }
        Some(ErrorReply::Permission(_)) => ": its user lacks the right +sentinel|get-master-addr-by-name",
        Some(_) => "; see its log",
        None => "",
    };
    if refusal.is_some() {
        RedisClientError::Unavailable { reason: format!("a sentinel refuses the question{advice}").into() }
    } else if is_unknown {
        RedisClientError::unavailable("the sentinels do not know the name in the URL; check it")
    } else if is_late {
        RedisClientError::unavailable("no sentinel answered in time")
    } else {
        RedisClientError::unavailable("no sentinel can be reached")
    }
}

/// Checks that the server is the primary: a sentinel may not know yet that it no longer is.
pub(super) async fn check_role(stream: &mut (impl ByteStream + ?Sized)) -> Result<(), RedisClientError> {
    let mut stream = stream;
    let reply = match request(&mut stream, &Command::Hello.build()).await {
        Ok(reply) => reply,
        // Not all servers know the command. A replica refuses writes.
        Err(RedisClientError::Refused(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    if role(reply).is_none_or(|role| role == b"master") {
        return Ok(());
    }
    Err(RedisClientError::unavailable("the sentinels name a replica; the fail-over is not complete"))
}

fn role(hello: Value) -> Option<Vec<u8>> {
    let Value::Array(words) = hello else { return None };
    let (pairs, _) = words.as_chunks();
    pairs.iter().find_map(|[name, value]| match (name, value) {
        (Value::BulkString(name), Value::BulkString(value)) if name == b"role" => Some(value.clone()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::future::{BoxFuture, FutureExt};

    use super::*;

    fn server(host: &str) -> NodeAddress {
        NodeAddress::Tcp { host: host.to_owned(), port: 6379 }
    }

    fn says(host: &str) -> BoxFuture<'static, Answer> {
        ready(Ok(Some(server(host)))).boxed()
    }

    fn fails(refusal: Option<ErrorReply>) -> BoxFuture<'static, Answer> {
        let gone = RedisClientError::unavailable("connection refused");
        ready(Err(refusal.map_or(gone, RedisClientError::Refused))).boxed()
    }

    fn silent() -> BoxFuture<'static, Answer> {
        pending().boxed()
    }

    async fn named(asked: Vec<BoxFuture<'static, Answer>>) -> Result<NodeAddress, String> {
        primary(asked.into_iter(), Duration::from_millis(500)).await.map_err(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn most_sentinels_name_the_primary() {
        let began = Instant::now();
        assert_eq!(named(vec![says("a")]).await, Ok(server("a")));
        assert_eq!(named(vec![says("a"), says("b"), says("b")]).await, Ok(server("b")));
        assert_eq!(named(vec![fails(None), says("b"), fails(None)]).await, Ok(server("b")));
        assert_eq!(named(vec![silent(), says("b"), says("b")]).await, Ok(server("b")), "the third cannot change it");
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(named(vec![silent(), says("b"), silent()]).await, Ok(server("b")));
        assert_eq!(began.elapsed(), Duration::from_millis(500));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_say_what_to_do() {
        let unknown = || ready(Ok(None)).boxed();
        let permission = ErrorReply::Permission(super::super::MissingRight::Command(vec!["sentinel".into()]));
        for (asked, expected) in [
            (vec![silent(), fails(None)], "no sentinel answered in time"),
            (vec![fails(None), fails(None)], "no sentinel can be reached"),
            (vec![fails(None), unknown()], "do not know the name"),
            (vec![fails(Some(ErrorReply::Credentials)), fails(None)], "sentinel_password"),
            (vec![fails(Some(permission)), unknown()], "+sentinel|get-master-addr-by-name"),
            (vec![fails(Some(ErrorReply::ProtectedMode))], "see its log"),
            (vec![], "no sentinel can be reached"),
        ] {
            let error = named(asked).await.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn replicas_are_not_taken_for_the_primary() {
        let check = async |reply: &'static [u8]| {
            let (mut client, mut server) = tokio::io::duplex(1024);
            tokio::io::AsyncWriteExt::write_all(&mut server, reply).await.unwrap();
            check_role(&mut client).await
        };
        assert_eq!(check(b"*4\r\n$5\r\nproto\r\n:2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n").await, Ok(()));
        assert_eq!(check(b"-ERR unknown command 'hello'\r\n").await, Ok(()));
        assert_eq!(check(b"+OK\r\n").await, Ok(()));
        let error = check(b"*2\r\n$4\r\nrole\r\n$7\r\nreplica\r\n").await.unwrap_err();
        assert!(error.is_outage(), "{error}");
    }
}
