//! The scripts of the cache: generations of tags, and entries that contain them.

/// KEYS: entry, tags. ARGV: new generation, its TTL.
/// Returns whether the entry is valid, the generations, the entry and its remaining TTL.
pub(crate) const LOOK: &str = r"
local value = redis.call('GET', KEYS[1])
local seen, missing = {}, {}
for i = 2, #KEYS do
  local generation = redis.call('GET', KEYS[i])
  if not generation or #generation ~= 16 then
    missing[#missing + 1] = KEYS[i]
    generation = ARGV[1]
  end
  seen[#seen + 1] = generation
end
seen = string.char(#seen) .. table.concat(seen)
if value and #missing == 0 and string.sub(value, 1, #seen) == seen then
  return {1, seen, string.sub(value, #seen + 1), redis.call('PTTL', KEYS[1])}
end
if value then
  redis.call('UNLINK', KEYS[1])
end
for _, key in ipairs(missing) do
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
return {0, seen}
";

/// KEYS: entry, tags. ARGV: generations from before the fetch, entry, its TTL, that of generations.
/// Returns whether the entry was stored.
pub(crate) const KEEP: &str = r"
local seen = {}
for i = 2, #KEYS do
  seen[#seen + 1] = redis.call('GET', KEYS[i]) or ''
end
seen = string.char(#seen) .. table.concat(seen)
if seen ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
for i = 2, #KEYS do
  if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[4]) then
    redis.call('PEXPIRE', KEYS[i], ARGV[4])
  end
end
return 1
";

/// KEYS: tags. ARGV: channel, message.
/// Returns the number of receivers, or why publishing was refused. The generations are removed in either case.
pub(crate) const INVALIDATE: &str = r"
redis.call('UNLINK', unpack(KEYS))
local receivers = redis.pcall('PUBLISH', ARGV[1], ARGV[2])
if type(receivers) == 'table' then return receivers.err end
return receivers
";
