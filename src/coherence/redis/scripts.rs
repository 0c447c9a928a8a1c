//! What runs within Redis. Each script is atomic and touches keys of one hash tag only. They are
//! sent as they are: a server that has forgotten its scripts needs no special care.

/// Common beginning: the last position, the server's clock, and appending with the position of the
/// event before. Numbers are whole and below 2^53, which Lua holds exactly.
macro_rules! prelude {
    () => {
        r"
local log = KEYS[1]
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local function last_position()
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
  if last[1] then return tonumber(string.match(last[1][1], '^(%d+)')) end
  return 0
end
local function append(prev, floor, max, content)
  local seq = now
  if seq <= prev then seq = prev + 1 end
  if seq <= floor then seq = floor + 1 end
  redis.call('XADD', log, 'MAXLEN', '=', max, string.format('%.0f-0', seq),
    'p', string.format('%.0f', prev), 'e', content)
  return seq
end
"
    };
}

/// KEYS: log. ARGV: content, events kept, position that the pod has applied, content of a reset.
/// Returns the new position. A log that is empty begins with a reset: what it said before is lost.
pub(super) const APPEND: &str = concat!(
    prelude!(),
    r"
local last = last_position()
local floor = tonumber(ARGV[3])
if last == 0 or last < floor then last = append(last, floor, ARGV[2], ARGV[4]) end
return append(last, floor, ARGV[2], ARGV[1])
"
);

/// KEYS: log, pods. ARGV: pod, position applied, lease in milliseconds, events kept, content of a
/// reset, whether another server than before is trusted. Returns the last position and the clock in
/// microseconds. Another server may have lost the last events of the one before, and nobody may be
/// left who knows: then the log begins anew.
pub(super) const HEARTBEAT: &str = concat!(
    prelude!(),
    r"
local last = last_position()
local applied = tonumber(ARGV[2])
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or '?'
local known = redis.call('HGET', KEYS[2], '*server')
local moved = known and known ~= server and ARGV[6] == '0'
if known ~= server then redis.call('HSET', KEYS[2], '*server', server) end
if last == 0 or last < applied or moved then
  last = append(last, applied, ARGV[4], ARGV[5])
end
local ms = math.floor(now / 1000)
redis.call('HSETNX', KEYS[2], '*began', string.format('%.0f', ms))
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f %.0f', applied, ms + tonumber(ARGV[3])))
return {last, now}
"
);

/// KEYS: log, pods. ARGV: position, milliseconds that a lease is thought to last longer than it
/// says. Returns milliseconds for which the list has been kept, live pods, pods that have applied
/// the position, the names of those that have not, and whether the log still has the position.
/// Pods silent for long are forgotten.
pub(super) const ACKS: &str = r"
local t = redis.call('TIME')
local now = math.floor(tonumber(t[1]) * 1000 + tonumber(t[2]) / 1000)
local want, margin = tonumber(ARGV[1]), tonumber(ARGV[2])
local id = ARGV[1] .. '-0'
local there = #redis.call('XREVRANGE', KEYS[1], id, id, 'COUNT', 1)
local all = redis.call('HGETALL', KEYS[2])
local began, live, applied, missing = now, 0, 0, {}
for i = 1, #all, 2 do
  if all[i] == '*began' then
    began = tonumber(all[i + 1])
  elseif string.sub(all[i], 1, 1) ~= '*' then
    local at, till = string.match(all[i + 1], '^(%d+) (%d+)$')
    at, till = tonumber(at or 0), tonumber(till or 0)
    if till + margin > now then
      live = live + 1
      if at >= want then applied = applied + 1 else missing[#missing + 1] = all[i] end
    elseif till + 60000 < now then
      redis.call('HDEL', KEYS[2], all[i])
    end
  end
end
return {now - began, live, applied, missing, there}
";
