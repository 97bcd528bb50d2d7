"""The scripts that run inside Redis. They know types of Redis, not of a filesystem: the semantics are in `meta.ops`.

`COMMIT` compares and then writes. KEYS has one key for each comparison, then one for each write. ARGV is the number of
comparisons, for each its kind and operands, then for each write its command, the number of arguments, and those:

    S value   a string is this        s         a string is absent
    H field value   a field is this   h field   a field is absent
    L value   a list, joined, is this
    M n, n times field value   a hash is this
    E         a hash is empty         e         a hash is not
    D number  no comparison: a string that is this number, or a larger one, tells that everything was done before

Answer: 1 when everything was written; else, with nothing written, a list of (number of the comparison, the value there
now) for those that failed. The value of a hash (M) is not sent.
"""

from __future__ import annotations

from typing import Final

COMMIT: Final = """
local compared, at, wrong = tonumber(ARGV[1]), 2, nil
for n = 1, compared do
  local key, kind, now, same = KEYS[n], ARGV[at], false, true
  at = at + 1
  if kind == 'S' then
    now = redis.call('GET', key)
    same = now == ARGV[at]
    at = at + 1
  elseif kind == 's' then
    now = redis.call('GET', key)
    same = not now
  elseif kind == 'H' then
    now = redis.call('HGET', key, ARGV[at])
    same = now == ARGV[at + 1]
    at = at + 2
  elseif kind == 'h' then
    now = redis.call('HGET', key, ARGV[at])
    same = not now
    at = at + 1
  elseif kind == 'L' then
    now = table.concat(redis.call('LRANGE', key, 0, -1))
    same = now == ARGV[at]
    at = at + 1
  elseif kind == 'D' then
    if tonumber(redis.call('GET', key) or '0') >= tonumber(ARGV[at]) then
      return 1
    end
    same = true
    at = at + 1
  elseif kind == 'E' or kind == 'e' then
    now = redis.call('HLEN', key)
    same = (now == 0) == (kind == 'E')
  else
    local count = tonumber(ARGV[at])
    same = redis.call('HLEN', key) == count
    if same then
      for f = at + 1, at + 2 * count, 2 do
        if redis.call('HGET', key, ARGV[f]) ~= ARGV[f + 1] then
          same = false
          break
        end
      end
    end
    at = at + 1 + 2 * count
  end
  if not same then
    wrong = wrong or {}
    wrong[#wrong + 1] = n
    wrong[#wrong + 1] = now
  end
end
if wrong then
  return wrong
end
for n = compared + 1, #KEYS do
  local count = tonumber(ARGV[at + 1])
  redis.call(ARGV[at], KEYS[n], unpack(ARGV, at + 2, at + 1 + count))
  at = at + 2 + count
end
return 1
"""

MOST_ARGUMENTS: Final = 4000
"""Arguments of one write: Lua's stack bounds what `unpack` may spread (8000)."""

WALK: Final = """
local found, prefix, dir = {}, ARGV[1], KEYS[1]
for n = 2, #ARGV do
  local entry = redis.call('HGET', dir, ARGV[n])
  if not entry then
    break
  end
  found[#found + 1] = entry
  local high, low = struct.unpack('>I4I4', entry, 2)
  if high >= 1048576 then
    break
  end
  local ino = string.format('%.0f', high * 4294967296 + low)
  local attr = redis.call('GET', prefix .. 'i' .. ino)
  if not attr then
    found[#found] = nil
    break
  end
  found[#found + 1] = attr
  if string.byte(entry, 1) ~= 2 then
    break
  end
  dir = prefix .. 'd' .. ino
end
return found
"""
"""Names to (entry, attributes), one after the other. Numbers from 2^52 on are not exact in Lua: the answer then ends
with an entry whose attributes the caller fetches. ARGV = the prefix of keys, the names. Makes the names of keys itself;
in a cluster they all lie in the slot of the prefix."""

LIST: Final = """
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[2]) then
  return false
end
local flat, found = redis.call('HGETALL', KEYS[1]), {}
for n = 2, #flat, 2 do
  local high, low = struct.unpack('>I4I4', flat[n], 2)
  found[n / 2] = high < 1048576
    and redis.call('GET', ARGV[1] .. 'i' .. string.format('%.0f', high * 4294967296 + low)) or ''
end
return {flat, found}
"""
"""A small directory: names and entries, and the attributes of each, empty where Lua cannot count that far. False for
one of more entries than ARGV[2]. ARGV[1] is the prefix of keys."""

ADD_STATS: Final = """
local missing = {}
for at = 1, #ARGV, 4 do
  local ino = ARGV[at]
  if redis.call('HEXISTS', KEYS[2], ino) == 0 then
    missing[#missing + 1] = ino
  else
    local below = false
    for n = 1, 3 do
      if redis.call('HINCRBY', KEYS[n], ino, ARGV[at + n]) < 0 then
        below = true
      end
    end
    if below then
      missing[#missing + 1] = ino
    end
  end
end
return missing
"""
"""Adds (inode, length, space, inodes) to the statistics KEYS = length, space, inodes; answers whom to count anew."""

FORGET_DELAYED: Final = """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then
  for n = 2, #ARGV do
    redis.call('HINCRBY', KEYS[2], ARGV[n], -1)
  end
end
return 1
"""
"""Drops a reference of each slice of a parked list, if the list is there."""

FORGET_DEAD: Final = """
for n = 1, #ARGV do
  local refs = redis.call('HGET', KEYS[1], ARGV[n])
  if refs and tonumber(refs) < 0 then
    redis.call('HDEL', KEYS[1], ARGV[n])
  end
end
return 1
"""
"""Removes the reference records of slices that nobody refers to."""

RESERVE: Final = """
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
if last < tonumber(ARGV[2]) then
  redis.call('SET', KEYS[1], ARGV[2])
end
return redis.call('INCRBY', KEYS[1], ARGV[1])
"""
"""Takes ARGV[1] numbers, beyond ARGV[2]: a master that fell may have taken the last ones with it (0 only raises)."""

CLAIM: Final = """
local last = redis.call('GET', KEYS[1])
if last and tonumber(last) > tonumber(ARGV[1]) - tonumber(ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""
"""Takes a job's turn when the last one is longer ago than the window: ARGV = now, window."""

PUT_SESSION: Final = """
local there = redis.call('ZSCORE', KEYS[2], ARGV[1])
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
return there and 1 or 0
"""
"""Registers a session or puts off its expiry: ARGV = session, expiry, info. Answers whether it was registered."""

LOG_PAGE: Final = """
local length = redis.call('LLEN', KEYS[1])
local first = tonumber(redis.call('GET', KEYS[2]) or '0') - length + 1
local at = math.max(tonumber(ARGV[1]) + 1 - first, 0)
local lines = redis.call('LRANGE', KEYS[1], at, at + tonumber(ARGV[2]) - 1)
table.insert(lines, 1, tostring(first + at))
return lines
"""
"""Up to ARGV[2] lines of the change log after version ARGV[1], behind the version of the first of them."""

TRIM_LOG: Final = """
local first = tonumber(redis.call('GET', KEYS[2]) or '0') - redis.call('LLEN', KEYS[1]) + 1
local gone = tonumber(ARGV[1]) - first + 1
if gone > 0 then
  redis.call('LTRIM', KEYS[1], gone, -1)
end
return 1
"""
"""Drops the lines of the change log up to version ARGV[1]."""
