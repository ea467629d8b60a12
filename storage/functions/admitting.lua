-- Admission: it goes on where tickets.lua, in the same library, ends. Whose turn it is becomes READY, and whoever does
-- not come loses the slot to the next.

-- Those past their deadline: no-shows, and those who lost their connection and whose place is kept.
local function sort_late(ready, now, most, ttl, first, prefixes)
  local no_shows, lost = {}, {}
  for _, tid in ipairs(redis.call('ZRANGEBYSCORE', ready, '-inf', now, 'LIMIT', 0, most)) do
    local each = look(tid, prefixes)
    local is_kept = is_away(each, first) and each.order and each.seen + ttl >= now
    local list = is_kept and lost or no_shows
    list[#list + 1] = each
  end
  return no_shows, lost
end

-- Of the away those whose place is kept no longer.
local function look_up_forgotten(away, now, most, prefixes)
  local forgotten = {}
  for i, tid in ipairs(redis.call('ZRANGEBYSCORE', away, '-inf', '(' .. whole(now), 'LIMIT', 0, most)) do
    forgotten[i] = look(tid, prefixes)
  end
  return forgotten
end

-- Makes tickets READY until the deadline, for which their users' keys last too.
local function make_ready(tickets, ready, stats, untold, now, deadline_ms, ttl, today)
  if #tickets == 0 then return end
  local due, telling = {}, {}
  local was = redis.call('HMGET', stats, 'avgWaitTime', 'estimateError')
  local average, off = tonumber(was[1] or 0), tonumber(was[2] or 0)
  for _, each in ipairs(tickets) do
    redis.call('HSET', each.ticket, 'status', 'READY', 'readyAt', now, 'position', 0, 'order', each.order)
    if each.seen + ttl < now + deadline_ms then redis.call('PEXPIRE', each.holder, deadline_ms, 'GT') end
    due[#due + 1], due[#due + 2] = whole(now + deadline_ms), each.tid
    if each.owner ~= '' then telling[#telling + 1], telling[#telling + 2] = whole(now), each.tid end
    average = average + ((now - each.issued) / 1000 - average) * 0.02
    if each.late then off = off + (math.abs(each.late) / 1000 - off) * 0.02 end
  end
  redis.call('ZADD', ready, unpack(due))
  if #telling > 0 then redis.call('ZADD', untold, unpack(telling)) end
  if redis.call('HGET', stats, 'processedOn') ~= today then
    redis.call('HSET', stats, 'processedOn', today, 'processedToday', 0)
  end
  redis.call('HINCRBY', stats, 'processedToday', #tickets)
  redis.call('HSET', stats, 'avgWaitTime', string.format('%.3f', average), 'estimateError', string.format('%.3f', off))
end

-- Expires READY tickets past their deadline, then admits in the place of those no-shows and of cancelled
-- READY tickets, and as many more as the bucket, refilled by the clock, and the window allow. Whoever of them
-- is abandoned expires instead, and who is away is passed over. Before the opening nobody is admitted. Safe with any
-- number of callers.
-- KEYS: waiting, ready, stats, bucket, window, config, untold, away, nodes.
-- ARGV: most, deadline ms, ttl ms, ticket prefix, clients prefix, user's ticket prefix, suffix, today, keep ms, wait
-- factor.
-- Answers {{tid, owner or '', ms after the time that was told or ''}..., admitted}, {{tid, owner or '', reason}...,
-- expired}, waiting, ms until more can be admitted or -1.
local function admit(keys, args)
  local now = now_ms()
  local rate, name, opens_at = rate_now(keys[6], now)
  local most, deadline_ms, ttl = tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
  local prefixes, first = {unpack(args, 4, 7)}, living(keys[9])
  local no_shows, lost = sort_late(keys[2], now, most, ttl, first, prefixes)
  local forgotten = look_up_forgotten(keys[8], now, most, prefixes)

  local waited = tonumber(redis.call('HGET', keys[3], 'totalWaiting') or 0) > 0
  local bucket, out, leaving = refill(keys[4], rate, name, now, waited), nil, nil
  out, bucket.in_window, leaving = slide(keys[5], bucket.in_window, now)
  local fresh = math.max(0, math.min(math.floor(bucket.tokens + EPSILON), room_for(rate, bucket.in_window)))
  local refunds = bucket.refunds + #no_shows + #lost
  local count = rate > 0 and math.min(refunds + fresh, most) or 0
  local admitted, abandoned, passed, chosen = {}, {}, {}, {}
  bucket.turn = choose(keys[1], count, most, tonumber(args[10]), bucket.turn, function(tid, score)
    local each = look(tid, prefixes)
    local list = each.seen + ttl < now and abandoned or is_away(each, first) and passed or admitted
    each.order = whole(score)
    list[#list + 1], chosen[#chosen + 1] = each, tid
    if list == admitted then each.late = judge(bucket, each, now) end
    return list == admitted
  end)

  for _, list in ipairs({no_shows, lost}) do
    if #list > 0 then
      redis.call('ZREM', keys[2], unpack(ids(list)))
      redis.call('ZREM', keys[7], unpack(ids(list)))
    end
  end
  if #forgotten > 0 then redis.call('ZREM', keys[8], unpack(ids(forgotten))) end
  if #chosen > 0 then redis.call('ZREM', keys[1], unpack(chosen)) end
  for _, list in ipairs({no_shows, forgotten, abandoned}) do finish(list, 'EXPIRED', keys[3], args[9]) end
  for _, list in ipairs({lost, passed}) do pass_over(list, keys[8], keys[3], now, ttl) end
  make_ready(admitted, keys[2], keys[3], keys[7], now, deadline_ms, ttl, args[8])
  local waiting = redis.call('ZCARD', keys[1])
  fresh = math.max(0, #admitted - refunds)
  bucket.tokens, bucket.in_window = bucket.tokens - fresh, bucket.in_window + fresh
  -- A place that was given back and is wanted by nobody now is not kept for later.
  bucket.refunds = waiting > 0 and rate > 0 and math.max(0, refunds - #admitted) or 0
  note_outflow(bucket, rate, #chosen, fresh + bucket.lost)
  spend(keys[4], bucket, name, now, keys[5], out, fresh)
  if bucket.opened then redis.call('HSET', keys[4], 'consumed', redis.call('HGET', keys[3], 'consumed') or 0) end
  if not opens_at then redis.call('HDEL', keys[3], 'drawnBefore') end
  redis.call('HSET', keys[3], 'totalWaiting', waiting)
  local pause = waiting > 0 and (opens_at and opens_at - now or rate > 0 and pause_ms(bucket, rate, leaving)) or -1
  local let_in, expired = rows(admitted), rows(no_shows, 'FINALIZE_DEADLINE')
  for i, each in ipairs(admitted) do let_in[i][3] = each.late or '' end
  for _, list in ipairs({forgotten, abandoned}) do
    for _, row in ipairs(rows(list, 'ABANDONED')) do expired[#expired + 1] = row end
  end
  return {let_in, expired, waiting, pause}
end

-- Forgets tickets whose players have been told that they are READY. KEYS: untold. ARGV: tids. Answers how many.
local function told(keys, args)
  local known = 0
  for _, tid in ipairs(args) do known = known + redis.call('ZREM', keys[1], tid) end
  return known
end

-- READY tickets whose players should have been told before and were not: who admitted them died.
-- KEYS: untold, ready. ARGV: ms since, most, ticket prefix. Answers {{tid, owner, ms to the deadline}...}.
local function untold(keys, args)
  local now, found, settled = now_ms(), {}, {}
  for _, tid in ipairs(redis.call('ZRANGEBYSCORE', keys[1], '-inf', now - args[1], 'LIMIT', 0, args[2])) do
    local deadline = redis.call('ZSCORE', keys[2], tid)
    local was = redis.call('HMGET', args[3] .. tid, 'owner', 'streaming')
    if deadline and was[2] == '1' then
      found[#found + 1] = {tid, was[1], math.max(0, tonumber(deadline) - now)}
    else
      settled[#settled + 1] = tid
    end
  end
  if #settled > 0 then redis.call('ZREM', keys[1], unpack(settled)) end
  return found
end

register('ticket_admit', {'zset', 'zset', 'hash', 'hash', 'list', 'hash', 'zset', 'zset', 'hash'}, admit)
register('ticket_told', {'zset'}, told)
register('ticket_untold', {'zset', 'zset'}, untold)
