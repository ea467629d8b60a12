-- Who was there and is not: the third file of the library that order.lua begins.
--
-- A ticket that was streamed and whose connection is gone keeps its place in line. When its turn comes, or
-- its time as READY is over, it is passed over: it leaves the line for the sorted set of the away, by the ms at which
-- its place is kept no longer, and the next ones are admitted. Its hash says where its place was (`order`),
-- and when it was passed over (`passedAt`). Back in time, it goes back into the line at that very place, which is
-- before all of its tier who wait: so it is admitted with the next admission that its tier gets.

-- By server id, the first number of connections that can be open: who has a lower one is gone, with the node.
local function living(nodes)
  local first, all = {}, redis.call('HGETALL', nodes)
  for i = 1, #all, 2 do first[all[i]] = tonumber(all[i + 1]) end
  return first
end

-- Whether a ticket that was looked at has lost its connection: its node has said so, or is gone itself.
local function is_away(each, first)
  if each.owner == '' then return each.left end
  local server, number = string.match(each.owner, '^(.*)/(%d+)$')
  return first[server] ~= nil and tonumber(number) < first[server]
end

-- Takes tickets that are away out of the line, or out of those who are READY, for as long as their places are kept.
local function pass_over(tickets, away, stats, now, ttl)
  if #tickets == 0 then return end
  local kept = {}
  for _, each in ipairs(tickets) do
    redis.call('HSET', each.ticket, 'status', 'PENDING', 'passedAt', now, 'order', each.order)
    redis.call('HDEL', each.ticket, 'readyAt')
    kept[#kept + 1], kept[#kept + 2] = whole(each.seen + ttl), each.tid
  end
  redis.call('ZADD', away, unpack(kept))
  redis.call('HINCRBY', stats, 'passedOver', #tickets)
end

-- Puts a ticket back into the line if it was passed over.
local function come_back(away, waiting, tid, ticket)
  local order = redis.call('ZSCORE', away, tid) and redis.call('HGET', ticket, 'order')
  if not order then return end
  redis.call('ZREM', away, tid)
  redis.call('ZADD', waiting, order, tid)
end

