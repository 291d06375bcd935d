"""The counting of places, as the Lua that Redis runs: every decision is one atomic step.

Places of a scope are kept a run as `held own`: what is set aside for the run, and how many of these are in use as far
as the run has told. The sum of all `held` (field `sum`) never exceeds the limit, so what a run holds it may give out
without asking, also while Redis is away. What is held beyond own use (at most SPARE_MOST, only while much is free) is
asked back by a message as soon as somebody finds no place.

Keys below the prefix (KEYS[1]): `limits:runs` runs by the moment when they count as dead (ms, Redis' clock),
`limits:sequence` the last request of each, so that one that was late in coming changes nothing, `limits:scopes` the
scopes that have a hash, `limits:meta` beat (last request), sweep (before it nobody is swept: after a pause of Redis all
look dead), born (when these counts began), blind (before it nothing new is given out: somebody remembers other counts,
so they were lost, and not everybody has told his again).
"""

from __future__ import annotations

SPARE_MOST = 4
"""Places set aside a run and scope; a cell has few calls."""

_COMMON = """
local prefix = KEYS[1]
local runs, sequence, scopes, meta =
  prefix .. ':limits:runs', prefix .. ':limits:sequence', prefix .. ':limits:scopes', prefix .. ':limits:meta'
local function hash(scope) return prefix .. ':limit:' .. scope end
local function read(scope, run)
  local text = redis.call('HGET', hash(scope), run)
  if not text then return 0, 0 end
  local held, own = string.match(text, '(%d+) (%d+)')
  return tonumber(held), tonumber(own)
end
local function write(scope, run, held, own)
  local before = read(scope, run)
  local sum = (tonumber(redis.call('HGET', hash(scope), 'sum')) or 0) - before + held
  if held > 0 then
    redis.call('HSET', hash(scope), run, held .. ' ' .. own, 'sum', sum)
    redis.call('SADD', scopes, scope)
  elseif sum > 0 then
    redis.call('HDEL', hash(scope), run)
    redis.call('HSET', hash(scope), 'sum', sum)
  else
    redis.call('DEL', hash(scope))
    redis.call('SREM', scopes, scope)
  end
end
local function forget(run)
  for _, scope in ipairs(redis.call('SMEMBERS', scopes)) do write(scope, run, 0, 0) end
  redis.call('ZREM', runs, run)
  redis.call('HDEL', sequence, run)
end
"""

FORGET = _COMMON + "forget(ARGV[1])"
"""KEYS: prefix. ARGV: run."""

USED = (
    _COMMON
    + """
local answer = {}
for index, scope in ipairs(ARGV) do
  local used = 0
  local all = redis.call('HGETALL', hash(scope))
  for place = 1, #all, 2 do
    if all[place] ~= 'sum' then used = used + tonumber(string.match(all[place + 1], '%d+ (%d+)')) end
  end
  answer[index] = used
end
return answer
"""
)
"""KEYS: prefix. ARGV: scopes. Answers how many places of each are in use."""

TELL = (
    _COMMON
    + """
local run, number, lease, remembered, take =
  ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local known = redis.call('HMGET', meta, 'beat', 'sweep', 'blind', 'born')
local beat, sweep, blind, born =
  tonumber(known[1]), tonumber(known[2]) or 0, tonumber(known[3]) or 0, tonumber(known[4]) or now
if beat and now - beat > lease / 2 then sweep = now + lease end
if remembered > 0 and remembered ~= born and now < born + lease then blind = born + lease end
local here = redis.call('ZSCORE', runs, run)
if number <= (tonumber(redis.call('HGET', sequence, run)) or 0) then return {'late', born, 0} end
redis.call('HSET', meta, 'beat', now, 'sweep', sweep, 'blind', blind, 'born', born)
redis.call('HSET', sequence, run, number)
redis.call('ZADD', runs, now + lease, run)
if now >= sweep then
  for _, dead in ipairs(redis.call('ZRANGEBYSCORE', runs, '-inf', now)) do forget(dead) end
end

-- What the run says about itself is true; what it may use it keeps until it has heard otherwise.
local asked = {}
for at = 6, #ARGV, 5 do
  local scope, limit, own, quota, spare =
    ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  if not here then quota = own end
  asked[#asked + 1] = {scope = scope, limit = limit, own = own, quota = math.max(own, quota), spare = spare}
  write(scope, run, math.max(own, quota), own)
end

if take then
  for index, each in ipairs(asked) do
    if each.own + 1 > each.quota then
      local free = each.limit - (tonumber(redis.call('HGET', hash(each.scope), 'sum')) or 0)
      if now < blind then return {'blind', born, index} end
      if free < 1 then
        local unused = 0
        local all = redis.call('HGETALL', hash(each.scope))
        for place = 1, #all, 2 do
          if all[place] ~= 'sum' and all[place] ~= run then
            local held, own = string.match(all[place + 1], '(%d+) (%d+)')
            unused = unused + held - own
          end
        end
        if unused == 0 then return {'full', born, index} end
        redis.call('PUBLISH', prefix .. ':limits', each.scope)
        return {'wait', born, index}
      end
    end
  end
  for _, each in ipairs(asked) do
    each.own = each.own + 1
    each.quota = math.max(each.own, each.quota)
    write(each.scope, run, each.quota, each.own)
  end
end

local living = math.max(1, redis.call('ZCOUNT', runs, now, '+inf'))
local answer = {'ok', born}
for _, each in ipairs(asked) do
  local free = each.limit - (tonumber(redis.call('HGET', hash(each.scope), 'sum')) or 0) + each.quota - each.own
  local spare = 0
  if free * 4 >= each.limit and now >= blind then
    spare = math.min(each.spare, math.max(1, math.floor(free / (2 * living))), math.floor(free / 2))
  end
  local quota = each.own + math.max(0, spare)
  write(each.scope, run, math.max(each.quota, quota), each.own)
  answer[#answer + 1] = quota
end
return answer
"""
)
"""KEYS: prefix. ARGV: run, number of the request, lease (ms), when the counts began as the run remembers it (0: it is
new), 1 to take a place in every scope, then for every scope: its name, limit, places in use, places the run may use
(quota), how many more it wants at most. Answers a word, when the counts began, and: `ok` the new quota of every scope;
`full`, `wait` (others give back what they do not use) or `blind` the index of the scope; `late` nothing of use."""
