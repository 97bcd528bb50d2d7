"""Reads that lead to others, in one round trip: an entry to its node, a directory to those above it.

`GATHER` answers reads as the commands of `txn.command_of` would. With an entry comes its node; with that, of a
directory how many entries it has, of a file with several names its parents. So an operation that begins with nothing
known reads once. It makes the names of keys itself; in a cluster they all lie in the slot of the prefix.

KEYS has the key of each read. ARGV is the prefix, then for each read its kind and the field, where it has one:
S, H, L, M, E as in `recall.Read`, F a field that is an entry, N a node with its parents, A one with its ancestors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fscore.domain.attr import Kind
from fscore.domain.ids import ROOT
from fscore.meta.engines.redis.codec import ATTR, decode_attr, decode_entry
from fscore.meta.engines.redis.keys import Keys
from fscore.meta.engines.redis.link import Answer, Link
from fscore.meta.engines.redis.recall import Read

GATHER: Final = f"""
local prefix, at, out = ARGV[1], 2, {{}}
local function number(raw, offset)
  local high, low = struct.unpack('>I4I4', raw, offset)
  if high < 1048576 then
    return string.format('%.0f', high * 4294967296 + low)
  end
end
local function parents(ino, attr)
  if attr and #attr >= {ATTR.size} and number(attr, {ATTR.size - 7}) == '0' then
    return redis.call('HGETALL', prefix .. 'p' .. ino)
  end
  return false
end
local function follow(entry)
  local ino = entry and #entry == 9 and number(entry, 2)
  if not ino then
    return {{entry}}
  end
  local attr = redis.call('GET', prefix .. 'i' .. ino)
  if string.byte(entry, 1) == {Kind.DIRECTORY:d} then
    return {{entry, attr, redis.call('HLEN', prefix .. 'd' .. ino)}}
  end
  return {{entry, attr, parents(ino, attr)}}
end
local function ancestors(key)
  local found = {{}}
  for n = 1, 64 do
    local attr = redis.call('GET', key)
    if not attr or #attr < {ATTR.size} then
      break
    end
    found[n] = attr
    local above = number(attr, {ATTR.size - 7})
    if not above or key == prefix .. 'i' .. above then
      break
    end
    key = prefix .. 'i' .. above
  end
  return found
end
for n = 1, #KEYS do
  local kind, key = ARGV[at], KEYS[n]
  at = at + 1
  if kind == 'S' then
    out[n] = redis.call('GET', key)
  elseif kind == 'H' or kind == 'F' then
    out[n] = redis.call('HGET', key, ARGV[at])
    if kind == 'F' then
      out[n] = follow(out[n])
    end
    at = at + 1
  elseif kind == 'N' then
    local attr = redis.call('GET', key)
    out[n] = {{attr, parents(string.sub(key, #prefix + 2), attr)}}
  elseif kind == 'L' then
    out[n] = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'M' then
    out[n] = redis.call('HGETALL', key)
  elseif kind == 'E' then
    out[n] = redis.call('HLEN', key)
  else
    out[n] = ancestors(key)
  end
end
return out
"""


def gather(
    link: Link, keys: Keys, reads: Mapping[Read, str], lineages: Sequence[int]
) -> Iterator[tuple[Read, Answer | None]]:
    """Answers to the reads, and to those that they lead to: each goes with F or N, or empty. Lineages are inodes."""
    args: list[bytes | str] = [keys.prefix]
    for read, follow in reads.items():
        args.append(follow or read.op)
        if read.op == "H":
            args.append(read.field)
    args += "A" * len(lineages)
    asked = [*(read.key for read in reads), *map(keys.node, lineages)]
    answers = link.script(GATHER, asked, args)
    for (read, follow), answer in zip(reads.items(), answers, strict=False):
        yield read, answer[0] if follow else answer
        if follow == "F" and len(answer) == 3:
            yield from _entry(keys, *answer)
        elif follow == "N" and answer[1] is not None:
            yield Read("M", keys.parents_of_node(read.key)), answer[1]
    for ino, chain in zip(lineages, answers[len(reads) :], strict=True):
        yield from _lineage(keys, ino, chain)


def _entry(keys: Keys, entry: bytes, attr: bytes | None, more: Any) -> Iterator[tuple[Read, Answer | None]]:  # noqa: ANN401
    kind, ino = decode_entry(entry)
    yield Read("S", keys.node(ino)), attr
    if kind == Kind.DIRECTORY:
        yield Read("E", keys.dir(ino)), more
    elif more is not None:
        yield Read("M", keys.parents(ino)), more


def _lineage(keys: Keys, ino: int, chain: Sequence[bytes]) -> Iterator[tuple[Read, Answer | None]]:
    for raw in chain:
        yield Read("S", keys.node(ino)), raw
        if ino == ROOT:
            return
        ino = decode_attr(raw).parent
