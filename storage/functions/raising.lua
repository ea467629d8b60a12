-- Players who are raised: who has urgent work under way goes before others. It goes on where announcing.lua, in the same
-- library, ends. A raise lasts for a while: it counts for the ticket that there is, and for those issued meanwhile.

-- Moves a ticket from one band to a better one, its arrival kept: `order` is its score, in line or to come back by.
-- What was told of its wait is not measured, and others whom it passes are told why their place is worse.
local function move(ticket, stats, band, order)
  redis.call('HINCRBY', stats, 'raised', 1)
  redis.call('HSET', ticket, 'tier', TIERS[band + 1], 'higher', higher_arrivals(stats, band))
  redis.call('HDEL', ticket, 'estimatedAt', 'due')
  return whole(band * BAND + order - band_of(order) * BAND)
end

-- Raises a player, once for each record.
-- KEYS: the user's raise, user's ticket, waiting, stats, record. ARGV: band, ms that it lasts, record ttl ms, ticket
-- prefix. Answers {1} where a ticket was moved, else {0}.
local function raise(keys, args)
  local before = recorded(keys[5])
  if before then return before end
  local band, tid, moved = tonumber(args[1]), redis.call('GET', keys[2]), 0
  local ticket = tid and args[4] .. tid
  local was = tid and redis.call('HMGET', ticket, 'status', 'order') or {}
  local score = tid and redis.call('ZSCORE', keys[3], tid)
  redis.call('SET', keys[1], band, 'PX', args[2])
  if usable(was[1], keys[2], tid) then
    if score and band_of(score) > band then
      redis.call('ZADD', keys[3], move(ticket, keys[4], band, score), tid)
      moved = 1
    elseif not score and was[2] and band_of(was[2]) > band then
      redis.call('HSET', ticket, 'order', move(ticket, keys[4], band, was[2]))
      moved = 1
    end
  end
  return record(keys[5], args[3], {moved})
end

register('ticket_raise', {'string', 'string', 'zset', 'hash', 'string'}, raise)
