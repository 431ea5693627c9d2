//! The overrides of all gateways that share a Redis: a hash for each instance, with one field per caller.
//!
//! A value is `<end> <action>`: milliseconds of the server's clock, and `pause` or the share of a cap.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::limits::{CallerOverride, TimedOverride};
use super::{MAX_OVERRIDES, OverrideAction};
use clerk_client::redis::{InstanceKeys, RedisClient, RedisClientError, Reply, Script};
use clerk_quota::Moment;

/// Start of all scripts: the time in milliseconds.
const PRELUDE: &str = r"
now = math.floor(now / 1000)
local function text(number) return string.format('%.0f', number) end
local function all() return {text(now), redis.call('HGETALL', KEYS[1])} end
";

/// KEYS: the hash. Returns the server's time and the whole hash.
const READ: &str = "return all()";

/// KEYS: the hash. ARGV: caller, action, milliseconds, maximum number of others. Returns false if there are too many, or as
/// READ.
const SET: &str = r"
local others, longest = 0, tonumber(ARGV[3])
local entries = redis.call('HGETALL', KEYS[1])
for at = 1, #entries, 2 do
  local ending = tonumber(string.match(entries[at + 1], '^(%d+) '))
  if ending and ending <= now then
    redis.call('HDEL', KEYS[1], entries[at])
  elseif entries[at] ~= ARGV[1] then
    others = others + 1
    longest = math.max(longest, (ending or now) - now)
  end
end
if others >= tonumber(ARGV[4]) then return false end
redis.call('HSET', KEYS[1], ARGV[1], text(now + tonumber(ARGV[3])) .. ' ' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], text(longest))
return all()
";

/// KEYS: the hash. ARGV: caller. Returns as READ.
const END: &str = r"
redis.call('HDEL', KEYS[1], ARGV[1])
return all()
";

/// The word for a pause in a value.
const PAUSE: &str = "pause";

/// The store.
#[derive(Debug)]
pub(super) struct SharedOverrides {
    client: RedisClient,
    read: Script,
    set: Script,
    end: Script,
}

/// Why the overrides of all gateways are not known, or not changed.
#[derive(Debug)]
pub(super) enum SharedOverridesError {
    /// The server did not answer.
    Redis(RedisClientError),
    /// There are too many.
    TooMany,
    /// The hash cannot be read.
    Content,
}

impl From<RedisClientError> for SharedOverridesError {
    fn from(error: RedisClientError) -> Self {
        Self::Redis(error)
    }
}

/// All overrides of an instance.
#[derive(Debug, Default, PartialEq)]
pub(super) struct RemainingOverrides {
    /// Each with the time that is left.
    pub(super) all: Vec<(Arc<str>, OverrideAction, Duration)>,
    /// Callers whose override cannot be read: another program, or another version of this one, wrote it.
    pub(super) unreadable: Vec<String>,
}

impl SharedOverrides {
    pub(super) fn new(client: RedisClient) -> Self {
        let script = |text: &str| Script::timed(&[PRELUDE, text].concat());
        Self { client, read: script(READ), set: script(SET), end: script(END) }
    }

    /// Reads the overrides of an instance.
    pub(super) async fn read(&self, instance: &str) -> Result<RemainingOverrides, SharedOverridesError> {
        self.run(&self.read, instance, &[]).await
    }

    /// Sets an override, and reads all.
    pub(super) async fn set(
        &self,
        instance: &str,
        caller: &str,
        action: OverrideAction,
        duration: Duration,
    ) -> Result<RemainingOverrides, SharedOverridesError> {
        let action = action.max_share().map_or_else(|| PAUSE.to_owned(), |share| share.to_string());
        let (millis, most) = (duration.as_millis().to_string(), MAX_OVERRIDES.to_string());
        let arguments: [&[u8]; 4] = [caller.as_bytes(), action.as_bytes(), millis.as_bytes(), most.as_bytes()];
        self.run(&self.set, instance, &arguments).await
    }

    /// Ends the override of a caller, if there is one, and reads the others.
    pub(super) async fn end(&self, instance: &str, caller: &str) -> Result<RemainingOverrides, SharedOverridesError> {
        self.run(&self.end, instance, &[caller.as_bytes()]).await
    }

    async fn run(
        &self,
        script: &Script,
        instance: &str,
        arguments: &[&[u8]],
    ) -> Result<RemainingOverrides, SharedOverridesError> {
        let key = InstanceKeys::new(instance).key(&["overrides"]);
        match self.client.run(script, &[&key], arguments).await? {
            Reply::Nil => Err(SharedOverridesError::TooMany),
            reply => remaining(reply).ok_or(SharedOverridesError::Content),
        }
    }
}

/// On this process's clock.
pub(super) fn on_clock(overrides: &RemainingOverrides, now: Moment) -> Vec<CallerOverride> {
    let timed = |(caller, action, left): &(Arc<str>, _, _)| {
        (Arc::clone(caller), TimedOverride { action: *action, until: now.after(*left) })
    };
    overrides.all.iter().map(timed).collect()
}

fn remaining(reply: Reply) -> Option<RemainingOverrides> {
    let [now, hash] = <[Reply; 2]>::try_from(reply.into_list()?).ok()?;
    let now: u64 = text(now.into_bytes()?)?.parse().ok()?;
    let texts = hash.into_list()?.into_iter().map(|entry| text(entry.into_bytes()?));
    let texts = texts.collect::<Option<Vec<String>>>()?;
    let mut found = RemainingOverrides::default();
    for [caller, value] in texts.as_chunks().0 {
        match timed(value, now) {
            Some((_, Duration::ZERO)) => {}
            Some((action, left)) => found.all.push((Arc::from(caller.as_str()), action, left)),
            None => found.unreadable.push(caller.clone()),
        }
    }
    Some(found)
}

fn timed(value: &str, now: u64) -> Option<(OverrideAction, Duration)> {
    let (end, action) = value.split_once(' ')?;
    let left = end.parse::<u64>().ok()?.saturating_sub(now);
    let action = match action {
        PAUSE => OverrideAction::Pause,
        share => OverrideAction::Cap { max_share: share.parse().ok()? },
    };
    action.is_valid().then_some((action, Duration::from_millis(left)))
}

fn text(bytes: Bytes) -> Option<String> {
    String::from_utf8(bytes.into()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clerk_client::redis::RedisOptions;
    use clerk_test_support::redis::{RedisServer, calls_within_rights};

    const CAP: OverrideAction = OverrideAction::Cap { max_share: 0.1 };

    /// The rights that the documentation lists suffice.
    #[test]
    fn commands_of_the_scripts_are_in_the_documented_rights() {
        assert_eq!(calls_within_rights(&[PRELUDE, READ, SET, END].concat()), 6);
    }

    fn reply(now: &'static str, entries: &[&'static str]) -> Reply {
        let bytes = |text: &&'static str| Reply::Bytes(Bytes::from_static(text.as_bytes()));
        Reply::List(vec![bytes(&now), Reply::List(entries.iter().map(bytes).collect())])
    }

    #[test]
    fn only_valid_content_is_read() {
        let found = remaining(reply("5000", &["web", "5001 pause", "old", "5000 pause", "a b", "6000 0.25"])).unwrap();
        let all = vec![
            ("web".into(), OverrideAction::Pause, Duration::from_millis(1)),
            ("a b".into(), OverrideAction::Cap { max_share: 0.25 }, Duration::from_secs(1)),
        ];
        assert_eq!(found, RemainingOverrides { all, unreadable: Vec::new() });
        for value in ["", "6000", "x pause", "6000 stop", "6000 0", "6000 1", "6000 NaN", "-1 pause"] {
            let found = remaining(reply("5000", &["web", value, "import", "6000 pause"])).unwrap();
            assert_eq!((found.all.len(), found.unreadable), (1, vec!["web".to_owned()]), "{value:?}");
        }
        assert_eq!(remaining(reply("x", &[])), None);
        assert_eq!(remaining(Reply::Int(1)), None);
    }

    #[tokio::test]
    async fn overrides_are_kept_until_their_end() {
        let server = RedisServer::start(&[]).await;
        let client = RedisClient::new(RedisOptions::new(server.url()).timeout(Duration::from_secs(10))).unwrap();
        let shared = SharedOverrides::new(client);
        assert_eq!(shared.read("prod").await.unwrap(), RemainingOverrides::default());
        let minute = Duration::from_secs(60);
        shared.set("prod", "web", OverrideAction::Pause, minute * 10).await.unwrap();
        let all = shared.set("prod", "import", CAP, minute).await.unwrap();
        let mut names: Vec<_> = all.all.iter().map(|(caller, action, _)| (&**caller, *action)).collect();
        names.sort_by_key(|(caller, _)| *caller);
        assert_eq!(names, [("import", CAP), ("web", OverrideAction::Pause)]);
        let left = |all: &RemainingOverrides, name: &str| all.all.iter().find(|it| *it.0 == *name).unwrap().2;
        assert!(left(&all, "import") <= minute && left(&all, "import") > minute / 2);
        assert_eq!(shared.read("dev").await.unwrap(), RemainingOverrides::default());
        // The hash lives as long as its longest entry.
        let keys: Vec<String> = server.command(&["KEYS", "*"]).await;
        let time_to_live: i64 = server.command(&["PTTL", &keys[0]]).await;
        assert!(keys.len() == 1 && (300_001..=600_000).contains(&time_to_live), "{keys:?} {time_to_live}");
        let all = shared.set("prod", "web", OverrideAction::Pause, minute).await.unwrap();
        assert!(all.all.len() == 2 && left(&all, "web") <= minute);
        assert_eq!(shared.end("prod", "web").await.unwrap().all.len(), 1);
        assert_eq!(shared.end("prod", "web").await.unwrap().all.len(), 1, "it has ended before");
        shared.set("prod", "soon", CAP, Duration::from_millis(1)).await.unwrap();
        tokio::time::timeout(minute, async {
            while shared.read("prod").await.unwrap().all.len() > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
        for number in 1..MAX_OVERRIDES {
            shared.set("prod", &number.to_string(), CAP, minute).await.unwrap();
        }
        let one_more = shared.set("prod", "one more", CAP, minute).await;
        assert!(matches!(one_more, Err(SharedOverridesError::TooMany)), "{one_more:?}");
        let () = server.command(&["HSET", &keys[0], "web", "nonsense"]).await;
        let found = shared.read("prod").await.unwrap();
        assert_eq!((found.all.len(), found.unreadable), (MAX_OVERRIDES, vec!["web".to_owned()]));
    }
}
