//! The scripts that run in Redis. Times are microseconds of the server's clock.
//!
//! Keys: the log (a sorted set: each request of every process, scored with its end, or with the latest thinkable one
//! while it is in flight), the block after a 429, the starts (a hash: the length of a slot, and the requests that started
//! in each) and, for TAKE, the processes.

/// What all scripts begin with.
const PRELUDE: &str = r"
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local function text(number) return string.format('%.0f', number) end
";

/// Counts starts. Slots that are too old go when a new one begins; there are never many.
const STARTS: &str = r"
local function started(key, length, kept)
  if redis.call('HGET', key, 'length') ~= text(length) then
    redis.call('DEL', key)
    redis.call('HSET', key, 'length', text(length))
  end
  local slot = math.floor(now / length)
  if redis.call('HINCRBY', key, text(slot), 1) == 1 then
    for _, field in ipairs(redis.call('HKEYS', key)) do
      if field ~= 'length' and tonumber(field) <= slot - kept then redis.call('HDEL', key, field) end
    end
  end
  redis.call('PEXPIRE', key, text(math.ceil(length * (kept + 1) / 1000)))
end
";

/// Enters a request if there is room; else says how long there is none.
const TAKE: &str = r"
local room, window, grace, presence = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('ZADD', KEYS[4], text(now), ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', text(now - presence))
redis.call('PEXPIRE', KEYS[4], text(presence / 1000))
local processes = redis.call('ZCARD', KEYS[4])
local blocked = redis.call('PTTL', KEYS[2])
if blocked > 0 then return {0, blocked * 1000, processes} end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now - window))
local used = redis.call('ZCARD', KEYS[1])
if used < room then
  redis.call('ZADD', KEYS[1], text(now + grace), ARGV[5])
  redis.call('PEXPIRE', KEYS[1], text((window + grace) / 1000))
  started(KEYS[3], tonumber(ARGV[7]), tonumber(ARGV[8]))
  return {1, 0, processes}
end
local first = redis.call('ZRANGE', KEYS[1], used - room, used - room, 'WITHSCORES')
return {0, math.max(1000, math.min(window, first[2] + window - now)), processes}
";

/// Enters, ends or takes away a request, and blocks the budget for a while.
const END: &str = r"
local what, window, grace = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if what == 'enter' then
  redis.call('ZADD', KEYS[1], text(now + grace), ARGV[4])
  started(KEYS[3], tonumber(ARGV[6]), tonumber(ARGV[7]))
elseif what == 'counted' then
  redis.call('ZADD', KEYS[1], 'XX', text(now), ARGV[4])
else
  local latest = redis.call('ZSCORE', KEYS[1], ARGV[4])
  local length = tonumber(redis.call('HGET', KEYS[3], 'length') or '0')
  if latest and length > 0 then
    local slot = text(math.floor((latest - grace) / length))
    if redis.call('HEXISTS', KEYS[3], slot) == 1 then redis.call('HINCRBY', KEYS[3], slot, -1) end
  end
  redis.call('ZREM', KEYS[1], ARGV[4])
end
if window > 0 then redis.call('PEXPIRE', KEYS[1], text((window + grace) / 1000)) end
local block = tonumber(ARGV[5])
if block > 0 and redis.call('PTTL', KEYS[2]) < block then
  redis.call('SET', KEYS[2], '1', 'PX', text(block))
end
return 1
";

/// Says how many requests use the budget, how long a slot is, and for each slot its age and the requests that started
/// in it.
pub(super) const USAGE: &str = r"
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local window, kept = tonumber(ARGV[1]), tonumber(ARGV[2])
local reply = {redis.call('ZCOUNT', KEYS[1], '(' .. string.format('%.0f', now - window), '+inf')}
local length = tonumber(redis.call('HGET', KEYS[2], 'length') or '0')
reply[2] = length
local fields = redis.call('HGETALL', KEYS[2])
for place = 1, #fields, 2 do
  local slot, count = tonumber(fields[place]), tonumber(fields[place + 1])
  if slot and count > 0 and now - slot * length < kept * length then
    reply[#reply + 1] = now - slot * length
    reply[#reply + 1] = count
  end
end
return reply
";

/// The script that enters a request.
pub(super) fn take() -> String {
    [PRELUDE, STARTS, TAKE].concat()
}

/// The script that ends one.
pub(super) fn end() -> String {
    [PRELUDE, STARTS, END].concat()
}
