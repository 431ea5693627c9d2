//! The scripts of the limiter. Times are microseconds of the server's clock; where it is refused, of the clock of the
//! process, but never before the newest entry of the processes: so the clock that is ahead is that of all.
//!
//! Keys of a bucket: the log (a sorted set: each request of every process, scored with its end, or with the latest
//! possible one while in flight), the block after a 429, and the starts (a hash: the length of a slot, and the requests
//! started in each slot).
//!
//! Keys of the instance: how the server counts (1: each request, 2: a sliding counter), a mark while exploring is
//! paused, and the request that explores.
//!
//! Further keys: the bucket's 429s that our own use does not explain; for TAKE the processes; for END a mark that
//! requests may have been counted long before their end, and the offsets of the server's clock at which a sliding
//! counter is ruled out.
//!
//! Keys of a caller with a share: its log, which holds its part of the bucket's, and its claims (a sorted set: each request
//! of every process that waits, scored with the end of its wait). As long as a caller has not used its guarantee, its claims
//! hold back as much of the limit from others: what was lent returns to it first, whichever process it is in.

use super::Script;

/// Start of TAKE and END.
const PRELUDE: &str = r"
local function text(number) return string.format('%.0f', number) end
";

/// Counts starts. Slots that are too old are removed when a new one begins; there are never many.
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

/// Estimates as a sliding counter does, for every possible offset of its clock; the same as `sliding_counter` in Rust.
/// `since` counts the entries since a moment.
const ESTIMATE: &str = r"
local function since(from) return redis.call('ZCOUNT', KEYS[1], from, '+inf') end
local function estimate(window, phase)
  local elapsed = (now - phase) % window
  local border = now - elapsed
  local current = since(text(border))
  return since(text(border - window)) - current, current, 1 - elapsed / window
end
local function largest_offset(window) return math.min(1000000, window / 10) end
";

/// What a caller with a share may use, and what others must leave to such callers. KEYS from 9 on: log and claims of each
/// caller with a share. ARGV from 10 on: which of them sends the request (from 1; 0 for none), its cap (below 0 for none), the room
/// within a guarantee, the waiting request, how long it waits, and the guarantee of each caller.
const SHARES: &str = r"
local own, cap = tonumber(ARGV[10] or '0'), tonumber(ARGV[11] or '-1')
local function log_of(caller) return KEYS[7 + 2 * caller] end
local function claims_of(caller) return KEYS[8 + 2 * caller] end
local function guarantee_of(caller) return tonumber(ARGV[14 + caller]) end
local function use_of(caller, window)
  redis.call('ZREMRANGEBYSCORE', log_of(caller), '-inf', text(now - window))
  return redis.call('ZCARD', log_of(caller))
end
local function wait_for(caller, most, window)
  local place = redis.call('ZCARD', log_of(caller)) - most
  local first = redis.call('ZRANGE', log_of(caller), place, place, 'WITHSCORES')
  return math.min(window, first[2] + window - now)
end
local function reserved_for_others(window)
  local reserved = 0
  for caller = 1, #ARGV - 14 do
    if caller ~= own then
      redis.call('ZREMRANGEBYSCORE', claims_of(caller), '-inf', text(now))
      local claimed = redis.call('ZCARD', claims_of(caller))
      if claimed > 0 then
        reserved = reserved + math.min(claimed, math.max(0, guarantee_of(caller) - use_of(caller, window)))
      end
    end
  end
  return reserved
end
local function claim()
  if own > 0 and guarantee_of(own) > 0 then
    redis.call('ZADD', claims_of(own), text(now + ARGV[14]), ARGV[13])
    redis.call('PEXPIRE', claims_of(own), '600000')
  end
end
";

/// Adds a request if there is room; otherwise returns the wait.
const TAKE: &str = r"
local room, window, grace, presence = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('ZADD', KEYS[8], text(now), ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[8], '-inf', text(now - presence))
redis.call('PEXPIRE', KEYS[8], text(presence / 1000))
local processes = redis.call('ZCARD', KEYS[8])
local kind = tonumber(redis.call('GET', KEYS[4]) or '0')
local throttled = tonumber(redis.call('GET', KEYS[7]) or '0')
local used = since('(' .. text(now - window))
local explores, is_guaranteed, guarantee_wait, reserved, used_by_caller = ARGV[9], 0, 0, 0, 0
if own > 0 then
  used_by_caller = use_of(own, window)
  if used_by_caller < guarantee_of(own) then
    is_guaranteed, room = 1, tonumber(ARGV[12])
  elseif guarantee_of(own) > 0 then
    guarantee_wait = wait_for(own, guarantee_of(own), window)
  end
end
if is_guaranteed == 0 then
  reserved = reserved_for_others(window)
  room = room - reserved
  if reserved > 0 then explores = '0' end
end
local function reply(outcome, wait)
  return {outcome, wait, processes, kind, throttled, used, is_guaranteed, math.ceil(guarantee_wait)}
end
local function refuse(wait)
  claim()
  -- What is held back for others may become free sooner.
  if reserved > 0 then wait = math.min(wait, tonumber(ARGV[7])) end
  return reply(0, math.max(1000, wait))
end
if cap >= 0 and used_by_caller >= cap then
  claim()
  return reply(-1, cap == 0 and window or math.max(1000, wait_for(own, cap, window)))
end
if room < 1 then return refuse(window) end
local blocked = redis.call('PTTL', KEYS[2])
if blocked > 0 then return refuse(blocked * 1000) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now - 2 * window))
local outcome = 1
if kind ~= 2 then
  if used >= room then
    local place = redis.call('ZCARD', KEYS[1]) - room
    local first = redis.call('ZRANGE', KEYS[1], place, place, 'WITHSCORES')
    return refuse(math.min(window, first[2] + window - now))
  end
end
if kind ~= 1 then
  local windows = 0
  for step = -8, 8 do
    local previous, current, weight = estimate(window, largest_offset(window) * step / 8)
    local free = room - previous * weight - current
    if free < 1 - 1e-9 then
      local wait = weight
      if free + previous * weight >= 1 then
        wait = (1 - free) / previous
      elseif room - current < 1 then
        wait = weight + (1 - room + current) / current
      end
      windows = math.max(windows, wait)
    end
  end
  if windows > 0 then
    local wait = math.ceil(windows * window) + 1
    if kind == 2 or explores == '0' or redis.call('EXISTS', KEYS[5]) == 1 then return refuse(wait) end
    if redis.call('EXISTS', KEYS[6]) == 1 or since('(' .. text(now)) > 0 then return refuse(math.min(wait, 20000)) end
    redis.call('SET', KEYS[6], ARGV[5] .. ' ' .. ARGV[1], 'PX', text(grace / 1000))
    outcome = 2
  end
end
redis.call('ZADD', KEYS[1], text(now + grace), ARGV[5])
redis.call('PEXPIRE', KEYS[1], text((2 * window + grace) / 1000))
if own > 0 then
  redis.call('ZADD', log_of(own), text(now + grace), ARGV[5])
  redis.call('PEXPIRE', log_of(own), text((2 * window + grace) / 1000))
  redis.call('ZREM', claims_of(own), ARGV[13])
end
started(KEYS[3], tonumber(ARGV[7]), tonumber(ARGV[8]))
return reply(outcome, 0)
";

/// Adds, ends or removes a request, blocks the bucket after a 429, and evaluates a request that explored. The last key, if
/// there are ten: the log of its caller.
const END: &str = r"
local what, window, grace = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local latest = redis.call('ZSCORE', KEYS[1], ARGV[4])
if what == 'enter' then
  redis.call('ZADD', KEYS[1], text(now + grace), ARGV[4])
  started(KEYS[3], tonumber(ARGV[6]), tonumber(ARGV[7]))
elseif what == 'counted' or what == 'lost' then
  if latest then
    redis.call('ZADD', KEYS[1], 'XX', text(now), ARGV[4])
    -- It may have been counted long before now: for two windows, the least estimate is unreliable.
    if now - latest + grace > largest_offset(window) / 2 then
      redis.call('SET', KEYS[8], '1', 'PX', text(2 * window / 1000 + 1))
    end
  end
else
  local length = tonumber(redis.call('HGET', KEYS[3], 'length') or '0')
  if latest and length > 0 then
    local slot = text(math.floor((latest - grace) / length))
    if redis.call('HEXISTS', KEYS[3], slot) == 1 then redis.call('HINCRBY', KEYS[3], slot, -1) end
  end
  redis.call('ZREM', KEYS[1], ARGV[4])
end
if window > 0 then redis.call('PEXPIRE', KEYS[1], text((2 * window + grace) / 1000)) end
if KEYS[10] then
  if what == 'enter' then
    redis.call('ZADD', KEYS[10], text(now + grace), ARGV[4])
  elseif what == 'counted' or what == 'lost' then
    redis.call('ZADD', KEYS[10], 'XX', text(now), ARGV[4])
  else
    redis.call('ZREM', KEYS[10], ARGV[4])
  end
  if window > 0 then redis.call('PEXPIRE', KEYS[10], text((2 * window + grace) / 1000)) end
end
local block = tonumber(ARGV[5])
if block > 0 and redis.call('PTTL', KEYS[2]) < block then
  redis.call('SET', KEYS[2], '1', 'PX', text(block))
end
local member, limit = string.match(redis.call('GET', KEYS[6]) or '', '^(.*) (%d+)$')
local explored = member == ARGV[4]
if explored then redis.call('DEL', KEYS[6]) end
local unknown = redis.call('EXISTS', KEYS[4], KEYS[5]) == 0
local month = '2592000000'
if what == 'throttled' then
  if explored and unknown then
    redis.call('SET', KEYS[4], '2', 'PX', month)
  else
    redis.call('DEL', KEYS[4], KEYS[9])
    redis.call('INCR', KEYS[7])
    redis.call('PEXPIRE', KEYS[7], '3600000')
    local calm = math.min(32 * window, 3600000000) / 1000
    if redis.call('PTTL', KEYS[5]) < calm / 2 then redis.call('SET', KEYS[5], '1', 'PX', text(calm)) end
  end
elseif what == 'counted' and explored and unknown and redis.call('EXISTS', KEYS[8]) == 0 then
  local in_flight = since('(' .. text(now))
  local largest = largest_offset(window)
  for step = -8, 8 do
    local from = largest * step / 8 - largest / 16
    local least = math.huge
    for part = 0, 4 do
      local previous, current, weight = estimate(window, from + (largest / 2 + largest / 8) * part / 4)
      least = math.min(least, previous * weight + current - in_flight)
    end
    if least > limit * 1.01 + 1e-9 then redis.call('SADD', KEYS[9], step) end
  end
  redis.call('PEXPIRE', KEYS[9], text(32 * window / 1000))
  if redis.call('SCARD', KEYS[9]) == 17 then redis.call('SET', KEYS[4], '1', 'PX', month) end
end
return 1
";

/// Adds a waiting request to the claims of its caller, or removes it. KEYS: claims. ARGV: the request, how long it waits; 0
/// removes it.
const CLAIM: &str = r"
local patience = tonumber(ARGV[2])
if patience == 0 then return redis.call('ZREM', KEYS[1], ARGV[1]) end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + patience), ARGV[1])
return redis.call('PEXPIRE', KEYS[1], '600000')
";

/// Returns the requests that use the bucket, the length of a slot, and for each slot its age and the requests started
/// in it.
const USAGE: &str = r"
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

/// The script that adds a request.
pub(crate) fn take() -> Script {
    Script::timed_by_log(&[PRELUDE, STARTS, ESTIMATE, SHARES, TAKE].concat())
}

/// The script that ends a request.
pub(crate) fn end() -> Script {
    Script::timed_by_log(&[PRELUDE, STARTS, ESTIMATE, END].concat())
}

/// The script that adds or removes a claim.
pub(crate) fn claim() -> Script {
    Script::timed_by_log(CLAIM)
}

/// The script that returns the usage of a bucket.
pub(crate) fn usage() -> Script {
    Script::timed_by_log(USAGE)
}
