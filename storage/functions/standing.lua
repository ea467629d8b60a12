-- Where one user stands: it goes on where admitting.lua, in the same library, ends.

-- What an operator is told of a user, all of one moment and the same that the player is told.
-- KEYS: user's ticket, waiting, ready, stats, bucket, config. ARGV: ticket prefix.
-- Answers {} without a ticket, else position or 0, how many wait, ms for which an unseen player's place is
-- kept, the deadline or nothing, now, ms to wait or -1, ms of an opening to come or 0, and the ticket's fields.
local function stand(keys, args)
  local tid = redis.call('GET', keys[1])
  local ticket = tid and args[1] .. tid
  local fields = tid and redis.call('HGETALL', ticket) or {}
  if #fields == 0 then return {} end
  local now = now_ms()
  local seen = forecast(keys[6], keys[5], keys[4], now)
  local factor = tonumber(redis.call('HGET', keys[6], 'waitFactor') or 2)
  local position = place(keys[2], keys[4], tid, ticket, factor, seen.opens_at)
  return {position, redis.call('ZCARD', keys[2]), redis.call('PTTL', keys[1]), redis.call('ZSCORE', keys[3], tid),
    whole(now), (wait_ms(seen, position)), seen.opens_at or 0, fields}
end

register('ticket_stand', {'string', 'zset', 'zset', 'hash', 'hash', 'hash'}, stand)
