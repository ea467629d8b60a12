-- The waiting room: every change of a ticket's life is one function here, so that the ledger
--   issued = waiting + ready + consumed + cancelled + expired
-- holds at every moment. Clocks are Redis TIME. A ticket's hash outlives it for a while, so that
-- people can look; only PENDING and READY tickets count. Names that are made of an id found on the
-- way (a ticket's, a user's) are made from the prefixes that the caller gives. Every function reads
-- all that it needs before its first write.

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

-- Refuses a key of another type, as Redis does when asked for a length. Called before the first write, since Lua
-- never rolls back.
local LENGTH = {string = 'STRLEN', hash = 'HLEN', list = 'LLEN', set = 'SCARD', zset = 'ZCARD'}
local function need(key, kind)
  redis.call(LENGTH[kind], key)
end

-- Registers a function whose KEYS have these types.
local function register(name, kinds, f)
  redis.register_function(name .. '_@VERSION@', function(keys, args)
    for i, kind in ipairs(kinds) do need(keys[i], kind) end
    return f(keys, args)
  end)
end

-- What an earlier call with the same record answered, if any.
local function recorded(key)
  local answer = redis.call('GET', key)
  return answer and cjson.decode(answer)
end

local function record(key, ttl_ms, answer)
  redis.call('SET', key, cjson.encode(answer), 'PX', ttl_ms)
  return answer
end

-- A ticket can be used while its user's key names it, which is for the ttl since its player was seen, or
-- until a READY one's deadline. So a user never has two, also while an abandoned one waits to be cleared away.
local function usable(status, holder, tid)
  return (status == 'PENDING' or status == 'READY') and redis.call('GET', holder) == tid
end

-- A ticket that is come across, by the prefixes of tickets, clients and users and the suffix of a user's
-- ticket. `owner` is '' unless it streams. One whose hash is lost was never seen.
local function look(tid, prefixes)
  local ticket = prefixes[1] .. tid
  local was = redis.call('HMGET', ticket, 'uid', 'owner', 'streaming', 'lastSeen', 'issuedAt', 'position', 'toldAt',
    'higher')
  return {
    tid = tid, ticket = ticket, clients = prefixes[2] .. tid, holder = prefixes[3] .. (was[1] or '') .. prefixes[4],
    owner = was[3] == '1' and was[2] or '', seen = tonumber(was[4] or 0), issued = tonumber(was[5] or 0),
    position = tonumber(was[6] or 0), told = tonumber(was[7] or 0), higher = tonumber(was[8] or 0),
  }
end

local function ids(tickets)
  local list = {}
  for i, each in ipairs(tickets) do list[i] = each.tid end
  return list
end

local function rows(tickets, reason)
  local list = {}
  for i, each in ipairs(tickets) do list[i] = {each.tid, each.owner, reason} end
  return list
end

-- Ends tickets, each {tid, ticket, clients, holder}: 'CONSUMED', 'CANCELLED' or 'EXPIRED'.
local function finish(ended, status, stats, keep_ms)
  if #ended == 0 then return end
  local gone, holders = {}, {}
  for i, each in ipairs(ended) do
    redis.call('HSET', each.ticket, 'status', status)
    redis.call('PEXPIRE', each.ticket, keep_ms)
    gone[i], holders[i] = each.clients, each.holder
  end
  for i, tid in ipairs(redis.call('MGET', unpack(holders))) do
    if tid == ended[i].tid then gone[#gone + 1] = holders[i] end
  end
  redis.call('DEL', unpack(gone))
  redis.call('HINCRBY', stats, string.lower(status), #ended)
end

-- Issues the user's ticket, or hands the existing one over to this login: a compare-and-set on who
-- asked last, so that a login which was asked for earlier never takes it from a later one.
-- KEYS: user's ticket, waiting, stats, record, new ticket, new ticket's clients.
-- ARGV: tid, clientId, uid, owner, sent ms, ttl ms, most waiting, family, record ttl ms, ticket prefix, clients prefix,
-- band of the tier, wait factor, risk.
-- Answers {'issued'|'kept', tid, clientId, status, position, total, who is to be kicked out or ''} or {'full', total}.
local function issue(keys, args)
  local before = recorded(keys[4])
  if before then return before end
  local tid, client, uid, owner, sent, ttl = args[1], args[2], args[3], args[4], tonumber(args[5]), args[6]
  local now, total = now_ms(), redis.call('ZCARD', keys[2])
  local held = redis.call('GET', keys[1])
  if held then
    local ticket, clients = args[10] .. held, args[11] .. held
    local was = redis.call('HMGET', ticket, 'status', 'owner', 'ownedAt', 'clientId')
    need(clients, 'set')
    if usable(was[1], keys[1], held) then
      local kicked = was[2] ~= owner and was[2] or ''
      if sent < tonumber(was[3]) then
        kicked = was[2] ~= owner and owner or ''
      else
        redis.call('HSET', ticket, 'clientId', client, 'owner', owner, 'ownedAt', args[5], 'streaming', 0,
          'lastSeen', now, 'family', args[8], 'risk', args[14])
        redis.call('SREM', clients, was[4])
        redis.call('SADD', clients, client)
        redis.call('PEXPIRE', keys[1], ttl, 'GT')
      end
      return record(keys[4], args[9], {'kept', held, client, was[1], place(keys[2], held, tonumber(args[13])),
        total, kicked})
    end
  end
  if total >= tonumber(args[7]) then return {'full', total} end
  local arrival = math.max(now_us(), tonumber(redis.call('HGET', keys[3], 'lastArrival') or 0) + 1)
  local band = tonumber(args[12])
  redis.call('HSET', keys[3], 'lastArrival', whole(arrival))
  redis.call('HINCRBY', keys[3], 'issued', 1)
  redis.call('HINCRBY', keys[3], 'arrived' .. TIERS[band + 1], 1)
  redis.call('ZADD', keys[2], whole(band * BAND + arrival), tid)
  local position = place(keys[2], tid, tonumber(args[13]))
  redis.call('HSET', keys[5], 'uid', uid, 'status', 'PENDING', 'issuedAt', now, 'lastSeen', now, 'clientId', client,
    'position', position, 'tier', TIERS[band + 1], 'higher', higher_arrivals(keys[3], band), 'owner', owner,
    'ownedAt', args[5], 'streaming', 0, 'family', args[8], 'risk', args[14])
  redis.call('SADD', keys[6], client)
  redis.call('SET', keys[1], tid, 'PX', ttl)
  return record(keys[4], args[9], {'issued', tid, client, 'PENDING', position, total + 1, ''})
end

-- Sends the ticket's events to one connection from now on.
-- KEYS: ticket, waiting, ready. ARGV: tid, clientId, owner, sent ms, ttl ms, user's ticket prefix, suffix, wait factor.
-- Answers {'missing'}, {'taken'} or {'ok', status, position, total, kicked or '', ms to the deadline or 0}.
local function stream(keys, args)
  local was = redis.call('HMGET', keys[1], 'status', 'clientId', 'owner', 'ownedAt', 'uid', 'displaced')
  local holder = args[6] .. (was[5] or '') .. args[7]
  if not usable(was[1], holder, args[1]) then return {'missing'} end
  if was[2] ~= args[2] or tonumber(args[4]) < tonumber(was[4]) then return {'taken'} end
  local now, position = now_ms(), place(keys[2], args[1], tonumber(args[8]))
  -- Who asks again gets the same answer, since the worker that was to kick the other out may have died.
  local kicked = was[3] == args[3] and (was[6] or '') or was[3]
  redis.call('HSET', keys[1], 'owner', args[3], 'ownedAt', args[4], 'streaming', 1, 'lastSeen', now,
    'position', position, 'toldAt', now, 'displaced', kicked)
  redis.call('PEXPIRE', holder, args[5], 'GT')
  local deadline = redis.call('ZSCORE', keys[3], args[1])
  local left = deadline and math.max(0, tonumber(deadline) - now) or 0
  return {'ok', was[1], position, redis.call('ZCARD', keys[2]), kicked, left}
end

-- KEYS: ticket, clients, waiting, ready, stats, user's ticket, record, bucket, untold.
-- ARGV: tid, clientId, keep ms, record ttl ms.
-- Answers {'missing'}, {'taken'} or {'ok'}.
local function cancel(keys, args)
  local before = recorded(keys[7])
  if before then return before end
  local was = redis.call('HMGET', keys[1], 'status', 'clientId')
  if not usable(was[1], keys[6], args[1]) then return {'missing'} end
  if was[2] ~= args[2] then return {'taken'} end
  redis.call('ZREM', keys[3], args[1])
  redis.call('ZREM', keys[9], args[1])
  if redis.call('ZREM', keys[4], args[1]) == 1 then redis.call('HINCRBY', keys[8], 'refunds', 1) end
  finish({{tid = args[1], ticket = keys[1], clients = keys[2], holder = keys[6]}}, 'CANCELLED', keys[5], args[3])
  return record(keys[7], args[4], {'ok'})
end

-- Of the chosen tickets those whose players are there, and the abandoned.
local function sort_out(chosen, ttl, now, prefixes)
  local present, abandoned = {}, {}
  for _, tid in ipairs(chosen) do
    local each = look(tid, prefixes)
    local list = each.seen + ttl < now and abandoned or present
    list[#list + 1] = each
  end
  return present, abandoned
end

-- Makes tickets READY until the deadline, for which their users' keys last too.
local function make_ready(tickets, ready, stats, untold, now, deadline_ms, ttl, today)
  if #tickets == 0 then return end
  local due, telling = {}, {}
  local average = tonumber(redis.call('HGET', stats, 'avgWaitTime') or 0)
  for _, each in ipairs(tickets) do
    redis.call('HSET', each.ticket, 'status', 'READY', 'readyAt', now, 'position', 0)
    if each.seen + ttl < now + deadline_ms then redis.call('PEXPIRE', each.holder, deadline_ms, 'GT') end
    due[#due + 1], due[#due + 2] = whole(now + deadline_ms), each.tid
    if each.owner ~= '' then telling[#telling + 1], telling[#telling + 2] = whole(now), each.tid end
    average = average + ((now - each.issued) / 1000 - average) * 0.02
  end
  redis.call('ZADD', ready, unpack(due))
  if #telling > 0 then redis.call('ZADD', untold, unpack(telling)) end
  if redis.call('HGET', stats, 'processedOn') ~= today then
    redis.call('HSET', stats, 'processedOn', today, 'processedToday', 0)
  end
  redis.call('HINCRBY', stats, 'processedToday', #tickets)
  redis.call('HSET', stats, 'avgWaitTime', string.format('%.3f', average))
end

-- Expires READY tickets past their deadline, then admits in the place of those no-shows and of cancelled
-- READY tickets, and as many more as the bucket, refilled by the clock, and the window allow. Whoever of them
-- is abandoned expires instead. Safe with any number of callers.
-- KEYS: waiting, ready, stats, bucket, window, config, untold.
-- ARGV: most, deadline ms, ttl ms, ticket prefix, clients prefix, user's ticket prefix, suffix, today, keep ms, wait
-- factor.
-- Answers {{tid, owner or ''}..., admitted}, {{tid, owner or '', reason}..., expired}, waiting, ms until more can
-- be admitted or -1.
local function admit(keys, args)
  local name = redis.call('HGET', keys[6], 'totalRate') or '0'
  local rate, now = tonumber(name) / 60000, now_ms()
  local most, deadline_ms, ttl = tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
  local prefixes, late = {unpack(args, 4, 7)}, {}
  for i, tid in ipairs(redis.call('ZRANGEBYSCORE', keys[2], '-inf', now, 'LIMIT', 0, most)) do
    late[i] = look(tid, prefixes)
  end

  local waited = tonumber(redis.call('HGET', keys[3], 'totalWaiting') or 0) > 0
  local bucket, out = refill(keys[4], rate, name, now, waited), nil
  out, bucket.in_window = slide(keys[5], bucket.in_window, now)
  local fresh = math.max(0, math.min(math.floor(bucket.tokens + EPSILON), room_for(rate, bucket.in_window)))
  local refunds = bucket.refunds + #late
  local count = rate > 0 and math.min(refunds + fresh, most) or 0
  local chosen = {}
  if count > 0 then chosen, bucket.turn = choose(keys[1], count, tonumber(args[10]), bucket.turn) end
  local admitted, abandoned = sort_out(chosen, ttl, now, prefixes)

  if #late > 0 then
    redis.call('ZREM', keys[2], unpack(ids(late)))
    redis.call('ZREM', keys[7], unpack(ids(late)))
    finish(late, 'EXPIRED', keys[3], args[9])
  end
  if #admitted + #abandoned > 0 then
    redis.call('ZREM', keys[1], unpack(chosen))
    finish(abandoned, 'EXPIRED', keys[3], args[9])
    make_ready(admitted, keys[2], keys[3], keys[7], now, deadline_ms, ttl, args[8])
  end
  local waiting = redis.call('ZCARD', keys[1])
  fresh = math.max(0, #admitted - refunds)
  bucket.tokens, bucket.in_window = bucket.tokens - fresh, bucket.in_window + fresh
  -- A place that was given back and is wanted by nobody now is not kept for later.
  bucket.refunds = waiting > 0 and rate > 0 and math.max(0, refunds - #admitted) or 0
  spend(keys[4], bucket, name, now, keys[5], out, fresh)
  redis.call('HSET', keys[3], 'totalWaiting', waiting)
  local pause = waiting > 0 and rate > 0 and pause_ms(bucket, rate) or -1
  local expired = rows(late, 'FINALIZE_DEADLINE')
  for _, row in ipairs(rows(abandoned, 'ABANDONED')) do expired[#expired + 1] = row end
  return {rows(admitted), expired, waiting, pause}
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

-- Walks a part of the waiting room: expires the abandoned, and finds who is to be told their place.
-- KEYS: waiting, stats. ARGV: first rank, count, ttl ms, least ms between two updates, ms after which an
-- unchanged place is told again, keep ms, ticket prefix, clients prefix, user's ticket prefix, suffix, wait factor.
-- Answers total, {{owner, position, why it is worse than before or ''}...}, {{tid, owner or '', reason}..., expired}.
local function survey(keys, args)
  local now, telling, updates, abandoned, prefixes = now_ms(), {}, {}, {}, {unpack(args, 7, 10)}
  local first, ttl, least, again = tonumber(args[1]), tonumber(args[3]), tonumber(args[4]), tonumber(args[5])
  local mixed, higher = is_mixed(keys[1]), {}
  for band = 0, #TIERS - 1 do higher[band] = higher_arrivals(keys[2], band) end
  local walked = redis.call('ZRANGE', keys[1], first, first + args[2] - 1, 'WITHSCORES')
  for i = 1, #walked, 2 do
    local each, score, rank = look(walked[i], prefixes), tonumber(walked[i + 1]), first + (i - 1) / 2
    local since = now - each.told
    if each.seen + ttl < now then
      abandoned[#abandoned + 1] = each
    elseif each.owner ~= '' and since >= least then
      local position = rank + 1 - #abandoned
      if mixed then position = position_of(keys[1], score, rank, tonumber(args[11])) end
      local reason, now_higher = '', higher[band_of(score)]
      if each.position > 0 and position > each.position then
        -- Only a higher tier makes a place worse; a bound that got looser by rounding is kept from the player.
        if now_higher > each.higher then reason = 'HIGHER_TIER' else position = each.position end
      end
      if each.position ~= position or since >= again then
        telling[#telling + 1] = {ticket = each.ticket, position = position, higher = now_higher}
        updates[#updates + 1] = {each.owner, position, reason}
      end
    end
  end
  for _, each in ipairs(telling) do
    redis.call('HSET', each.ticket, 'position', each.position, 'toldAt', now, 'higher', each.higher)
  end
  if #abandoned > 0 then redis.call('ZREM', keys[1], unpack(ids(abandoned))) end
  finish(abandoned, 'EXPIRED', keys[2], args[6])
  return {redis.call('ZCARD', keys[1]), updates, rows(abandoned, 'ABANDONED')}
end

-- Keeps the places of those who are still connected. ARGV: ttl ms, ticket prefix, user's ticket prefix, suffix,
-- then tid and owner by turns. Answers how many.
local function touch(_, args)
  local now, tickets, tids, holders, touched = now_ms(), {}, {}, {}, 0
  for i = 5, #args, 2 do
    local ticket = args[2] .. args[i]
    local was = redis.call('HMGET', ticket, 'owner', 'uid')
    if was[1] == args[i + 1] then
      tickets[#tickets + 1], tids[#tids + 1] = ticket, args[i]
      holders[#holders + 1] = args[3] .. was[2] .. args[4]
    end
  end
  if #tids == 0 then return 0 end
  for i, tid in ipairs(redis.call('MGET', unpack(holders))) do
    if tid == tids[i] then
      redis.call('HSET', tickets[i], 'lastSeen', now)
      redis.call('PEXPIRE', holders[i], args[1], 'GT')
      touched = touched + 1
    end
  end
  return touched
end

-- KEYS: waiting, ready, stats, config. ARGV: counters. Answers waiting, ready, total rate, average wait and each
-- counter, all of one moment.
local function ledger(keys, args)
  local answer = {redis.call('ZCARD', keys[1]), redis.call('ZCARD', keys[2]),
    redis.call('HGET', keys[4], 'totalRate'), redis.call('HGET', keys[3], 'avgWaitTime')}
  for _, counter in ipairs(args) do answer[#answer + 1] = redis.call('HGET', keys[3], counter) end
  return answer
end

register('ticket_issue', {'string', 'zset', 'hash', 'string', 'hash', 'set'}, issue)
register('ticket_stream', {'hash', 'zset', 'zset'}, stream)
register('ticket_cancel', {'hash', 'set', 'zset', 'zset', 'hash', 'string', 'string', 'hash', 'zset'}, cancel)
register('ticket_admit', {'zset', 'zset', 'hash', 'hash', 'list', 'hash', 'zset'}, admit)
register('ticket_told', {'zset'}, told)
register('ticket_untold', {'zset', 'zset'}, untold)
register('ticket_survey', {'zset', 'hash'}, survey)
register('ticket_touch', {}, touch)
register('ticket_ledger', {'zset', 'zset', 'hash', 'hash'}, ledger)
