#!lua name=lobbyd_tickets_@VERSION@
-- The waiting room: every change of a ticket's life is one function here, so that the ledger
--   issued = waiting + ready + consumed + cancelled + expired
-- holds at every moment. Clocks are Redis TIME. A ticket's hash outlives it for a while, so that
-- people can look; only PENDING and READY tickets count. Names that are made of an id found on the
-- way (a ticket's, a user's) are made from the prefixes that the caller gives.

local WINDOW_MS = 10000 -- in any window of this length no more are admitted than the rate allows
local BURST_MS = 100    -- what the bucket holds: unused permission older than this is lost

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

local function alive(status)
  return status == 'PENDING' or status == 'READY'
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

-- Ends a ticket: 'CONSUMED', 'CANCELLED' or 'EXPIRED'.
local function finish(ticket, tid, status, counter, stats, clients, user_ticket, keep_ms)
  redis.call('HSET', ticket, 'status', status)
  redis.call('PEXPIRE', ticket, keep_ms)
  redis.call('DEL', clients)
  if redis.call('GET', user_ticket) == tid then redis.call('DEL', user_ticket) end
  redis.call('HINCRBY', stats, counter, 1)
end

-- Position from 1 while waiting, 0 once READY.
local function place(waiting, tid)
  local rank = redis.call('ZRANK', waiting, tid)
  return rank and rank + 1 or 0
end

-- Issues the user's ticket, or hands the existing one over to this login: a compare-and-set on who
-- asked last, so that a login which was asked for earlier never takes it from a later one.
-- KEYS: user's ticket, waiting, stats, record, new ticket, new ticket's clients.
-- ARGV: tid, clientId, uid, owner, sent ms, ttl ms, most waiting, family, record ttl ms, ticket prefix, clients prefix.
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
    if alive(was[1]) then
      local kicked = was[2] ~= owner and was[2] or ''
      if sent < tonumber(was[3]) then
        kicked = was[2] ~= owner and owner or ''
      else
        redis.call('HSET', ticket, 'clientId', client, 'owner', owner, 'ownedAt', args[5], 'streaming', 0,
          'lastSeen', now, 'family', args[8])
        redis.call('SREM', clients, was[4])
        redis.call('SADD', clients, client)
        redis.call('PEXPIRE', keys[1], ttl)
      end
      return record(keys[4], args[9], {'kept', held, client, was[1], place(keys[2], held), total, kicked})
    end
  end
  if total >= tonumber(args[7]) then return {'full', total} end
  local score = math.max(now_us(), tonumber(redis.call('HGET', keys[3], 'lastArrival') or 0) + 1)
  redis.call('HSET', keys[3], 'lastArrival', whole(score))
  redis.call('HINCRBY', keys[3], 'issued', 1)
  redis.call('ZADD', keys[2], whole(score), tid)
  redis.call('HSET', keys[5], 'uid', uid, 'status', 'PENDING', 'issuedAt', now, 'lastSeen', now, 'clientId', client,
    'position', total + 1, 'tier', 'NORMAL', 'owner', owner, 'ownedAt', args[5], 'streaming', 0, 'family', args[8])
  redis.call('SADD', keys[6], client)
  redis.call('SET', keys[1], tid, 'PX', ttl)
  return record(keys[4], args[9], {'issued', tid, client, 'PENDING', total + 1, total + 1, ''})
end

-- Sends the ticket's events to one connection from now on.
-- KEYS: ticket, waiting, ready. ARGV: tid, clientId, owner, sent ms, ttl ms, user's ticket prefix, suffix.
-- Answers {'missing'}, {'taken'} or {'ok', status, position, total, kicked or '', ms to the deadline or 0}.
local function stream(keys, args)
  local was = redis.call('HMGET', keys[1], 'status', 'clientId', 'owner', 'ownedAt', 'uid')
  if not alive(was[1]) then return {'missing'} end
  if was[2] ~= args[2] or tonumber(args[4]) < tonumber(was[4]) then return {'taken'} end
  local now, position = now_ms(), place(keys[2], args[1])
  redis.call('HSET', keys[1], 'owner', args[3], 'ownedAt', args[4], 'streaming', 1, 'lastSeen', now,
    'position', position, 'toldAt', now)
  redis.call('PEXPIRE', args[6] .. was[5] .. args[7], args[5])
  local deadline = redis.call('ZSCORE', keys[3], args[1])
  local left = deadline and math.max(0, tonumber(deadline) - now) or 0
  return {'ok', was[1], position, redis.call('ZCARD', keys[2]), was[3] ~= args[3] and was[3] or '', left}
end

-- Gives admissions back: their players did not come.
local function refund(bucket, window, count, now)
  if count == 0 then return end
  redis.call('HINCRBYFLOAT', bucket, 'tokens', count)
  redis.call('HINCRBY', bucket, 'inWindow', -count)
  redis.call('RPUSH', window, now .. ':' .. -count)
end

-- KEYS: ticket, clients, waiting, ready, stats, user's ticket, record, bucket, window, untold.
-- ARGV: tid, clientId, keep ms, record ttl ms.
-- Answers {'missing'}, {'taken'} or {'ok'}.
local function cancel(keys, args)
  local before = recorded(keys[7])
  if before then return before end
  local was = redis.call('HMGET', keys[1], 'status', 'clientId')
  if not alive(was[1]) then return {'missing'} end
  if was[2] ~= args[2] then return {'taken'} end
  redis.call('ZREM', keys[3], args[1])
  redis.call('ZREM', keys[10], args[1])
  if redis.call('ZREM', keys[4], args[1]) == 1 then refund(keys[8], keys[9], 1, now_ms()) end
  finish(keys[1], args[1], 'CANCELLED', 'cancelled', keys[5], keys[2], keys[6], args[3])
  return record(keys[7], args[4], {'ok'})
end

-- Expires READY tickets past their deadline, then admits as many as the bucket, refilled by the
-- clock and by those no-shows, and the window allow. Safe with any number of callers.
-- KEYS: waiting, ready, stats, bucket, window, config, untold.
-- ARGV: most, deadline ms, keep ms, ticket prefix, clients prefix, user's ticket prefix, suffix, today.
-- Answers {{tid, owner or ''}..., admitted}, {{tid, owner or ''}..., expired}, waiting, ms until more can be admitted.
local function admit(keys, args)
  local rate = tonumber(redis.call('HGET', keys[6], 'totalRate') or 0) / 60000
  local most, now = tonumber(args[1]), now_ms()

  local expired = {}
  for _, tid in ipairs(redis.call('ZRANGEBYSCORE', keys[2], '-inf', now, 'LIMIT', 0, most)) do
    local ticket = args[4] .. tid
    local was = redis.call('HMGET', ticket, 'uid', 'owner', 'streaming')
    redis.call('ZREM', keys[2], tid)
    redis.call('ZREM', keys[7], tid)
    finish(ticket, tid, 'EXPIRED', 'expired', keys[3], args[5] .. tid, args[6] .. was[1] .. args[7], args[3])
    expired[#expired + 1] = {tid, was[3] == '1' and was[2] or ''}
  end

  local state = redis.call('HMGET', keys[4], 'tokens', 'at', 'inWindow')
  local capacity = math.max(1, rate * BURST_MS)
  local tokens, at = tonumber(state[1] or capacity), tonumber(state[2] or now)
  tokens = math.min(math.max(capacity, tokens), tokens + math.max(0, now - at) * rate) + #expired
  local in_window = tonumber(state[3] or 0) - #expired
  if #expired > 0 then redis.call('RPUSH', keys[5], now .. ':' .. -#expired) end
  while true do
    local head = redis.call('LINDEX', keys[5], 0)
    if not head then break end
    local ms, count = string.match(head, '^(%d+):(-?%d+)$')
    if tonumber(ms) >= now - WINDOW_MS then break end
    redis.call('LPOP', keys[5])
    in_window = in_window - tonumber(count)
  end

  local room = math.max(rate > 0 and 1 or 0, math.floor(rate * WINDOW_MS + 0.000001)) - in_window
  local count = math.max(0, math.min(math.floor(tokens + 0.000001), room, most))
  local popped = count > 0 and redis.call('ZPOPMIN', keys[1], count) or {}
  local admitted, average = {}, tonumber(redis.call('HGET', keys[3], 'avgWaitTime') or 0)
  for i = 1, #popped, 2 do
    local tid = popped[i]
    local was = redis.call('HMGET', args[4] .. tid, 'owner', 'streaming', 'issuedAt')
    redis.call('HSET', args[4] .. tid, 'status', 'READY', 'readyAt', now, 'position', 0)
    redis.call('ZADD', keys[2], whole(now + args[2]), tid)
    if was[2] == '1' then redis.call('ZADD', keys[7], now, tid) end
    average = average + ((now - tonumber(was[3])) / 1000 - average) * 0.02
    admitted[#admitted + 1] = {tid, was[2] == '1' and was[1] or ''}
  end
  if #admitted > 0 then
    redis.call('RPUSH', keys[5], now .. ':' .. #admitted)
    if redis.call('HGET', keys[3], 'processedOn') ~= args[8] then
      redis.call('HSET', keys[3], 'processedOn', args[8], 'processedToday', 0)
    end
    redis.call('HINCRBY', keys[3], 'processedToday', #admitted)
    redis.call('HSET', keys[3], 'avgWaitTime', string.format('%.3f', average))
  end
  tokens = tokens - #admitted
  local waiting = redis.call('ZCARD', keys[1])
  -- Nobody used them: what no-shows gave back is kept no longer than the rest of the bucket.
  if waiting == 0 then tokens = math.min(tokens, capacity) end
  redis.call('HSET', keys[4], 'tokens', string.format('%.6f', tokens), 'at', now, 'inWindow', in_window + #admitted)
  redis.call('HSET', keys[3], 'totalWaiting', waiting)
  local pause = -1
  if waiting > 0 and rate > 0 then pause = math.max(0, math.ceil((1 - tokens) / rate)) end
  return {admitted, expired, waiting, pause}
end

-- Forgets tickets whose players have been told that they are READY. KEYS: untold. ARGV: tids.
local function told(keys, args)
  return redis.call('ZREM', keys[1], unpack(args))
end

-- READY tickets whose players should have been told before and were not: who admitted them died.
-- KEYS: untold, ready. ARGV: ms since, most, ticket prefix. Answers {{tid, owner, ms to the deadline}...}.
local function untold(keys, args)
  local now, found = now_ms(), {}
  for _, tid in ipairs(redis.call('ZRANGEBYSCORE', keys[1], '-inf', now - args[1], 'LIMIT', 0, args[2])) do
    local deadline = redis.call('ZSCORE', keys[2], tid)
    local was = redis.call('HMGET', args[3] .. tid, 'owner', 'streaming')
    if deadline and was[2] == '1' then
      found[#found + 1] = {tid, was[1], math.max(0, tonumber(deadline) - now)}
    else
      redis.call('ZREM', keys[1], tid)
    end
  end
  return found
end

-- Walks a part of the waiting room: expires the abandoned, and finds who is to be told their place.
-- KEYS: waiting, stats. ARGV: first rank, count, ttl ms, least ms between two updates, ms after which an
-- unchanged place is told again, keep ms, ticket prefix, clients prefix, user's ticket prefix, suffix.
-- Answers total, {{owner, position}...}, {{tid, owner or ''}..., expired}.
local function survey(keys, args)
  local now, updates, expired = now_ms(), {}, {}
  local first, ttl, least, again = tonumber(args[1]), tonumber(args[3]), tonumber(args[4]), tonumber(args[5])
  for i, tid in ipairs(redis.call('ZRANGE', keys[1], first, first + args[2] - 1)) do
    local ticket = args[7] .. tid
    local was = redis.call('HMGET', ticket, 'owner', 'streaming', 'lastSeen', 'position', 'toldAt', 'uid')
    local position, since = first + i - #expired, now - tonumber(was[5] or 0)
    if tonumber(was[3]) + ttl < now then
      redis.call('ZREM', keys[1], tid)
      finish(ticket, tid, 'EXPIRED', 'expired', keys[2], args[8] .. tid, args[9] .. was[6] .. args[10], args[6])
      expired[#expired + 1] = {tid, was[2] == '1' and was[1] or ''}
    elseif was[2] == '1' and since >= least and (tonumber(was[4]) ~= position or since >= again) then
      redis.call('HSET', ticket, 'position', position, 'toldAt', now)
      updates[#updates + 1] = {was[1], position}
    end
  end
  return {redis.call('ZCARD', keys[1]), updates, expired}
end

-- Keeps the places of those who are still connected. ARGV: ttl ms, ticket prefix, user's ticket prefix, suffix,
-- then tid and owner by turns. Answers how many.
local function touch(_, args)
  local now, touched = now_ms(), 0
  for i = 5, #args, 2 do
    local ticket = args[2] .. args[i]
    local was = redis.call('HMGET', ticket, 'status', 'owner', 'uid')
    if alive(was[1]) and was[2] == args[i + 1] then
      redis.call('HSET', ticket, 'lastSeen', now)
      redis.call('PEXPIRE', args[3] .. was[3] .. args[4], args[1])
      touched = touched + 1
    end
  end
  return touched
end

-- Gives the session to a connection. Answers who had it before and is to be kicked out, or ''.
local function take_session(session, owner_server, owner_connection, sent)
  local was = redis.call('HMGET', session, 'serverId', 'connectionId')
  redis.call('HSET', session, 'serverId', owner_server, 'connectionId', owner_connection, 'takenAt', sent)
  redis.call('HINCRBY', session, 'epoch', 1)
  if not was[1] or (was[1] == owner_server and was[2] == owner_connection) then return '' end
  return was[1] .. '/' .. was[2]
end

-- A family of refresh tokens is the field `family:{id}`: "number of the newest token|its hash|expiry in ms".
local function family(tokens, id)
  local value = redis.call('HGET', tokens, 'family:' .. id)
  if not value then return nil end
  local number, hash, expires = string.match(value, '^(%d+)|(%x+)|(%d+)$')
  return {number = tonumber(number), hash = hash, expires = tonumber(expires)}
end

local function write_family(tokens, id, number, hash, expires_ms, expires_at, ttl_ms)
  redis.call('HSET', tokens, 'family:' .. id, number .. '|' .. hash .. '|' .. expires_ms,
    'token', hash, 'expires_at', expires_at)
  redis.call('PEXPIRE', tokens, ttl_ms)
end

-- Drops families that are over, and the oldest while there are too many.
local function prune_families(tokens, now, most)
  while true do
    local count, oldest, oldest_expires = 0, nil, nil
    local all = redis.call('HGETALL', tokens)
    for i = 1, #all, 2 do
      local expires = tonumber(string.match(all[i + 1], '^%d+|%x+|(%d+)$'))
      if string.sub(all[i], 1, 7) == 'family:' and expires then
        if expires < now then
          redis.call('HDEL', tokens, all[i])
        else
          count = count + 1
          if not oldest_expires or expires < oldest_expires then oldest, oldest_expires = all[i], expires end
        end
      end
    end
    if count <= most then return end
    redis.call('HDEL', tokens, oldest)
  end
end

-- Spends a READY ticket: signs its user in, whatever races, once.
-- KEYS: ticket, clients, ready, stats, user's ticket, session, refresh tokens, record, untold.
-- ARGV: tid, clientId, keep ms, record ttl ms, owner's server, owner's connection, sent ms, now as ISO 8601, role,
-- permissions, family to go on with or '', its newest number, hash of its next token, fresh family, hash of its
-- first token, expiry ms, expiry as ISO 8601, refresh ttl ms, most families.
-- Answers {'missing'}, {'not ready'}, {'not yours'} or {'ok', family, number, kicked or '', ms of issue}.
local function finalize(keys, args)
  local before = recorded(keys[8])
  if before then return before end
  local was = redis.call('HMGET', keys[1], 'status', 'clientId')
  if not alive(was[1]) then return {'missing'} end
  if was[2] ~= args[2] then return {'not yours'} end
  if was[1] ~= 'READY' then return {'not ready'} end
  local now, deadline = now_ms(), redis.call('ZSCORE', keys[3], args[1])
  if not deadline or tonumber(deadline) < now then return {'missing'} end
  redis.call('ZREM', keys[3], args[1])
  redis.call('ZREM', keys[9], args[1])
  finish(keys[1], args[1], 'CONSUMED', 'consumed', keys[4], keys[2], keys[5], args[3])
  local id, number, hash = args[14], 1, args[15]
  local going_on = args[11] ~= '' and family(keys[7], args[11])
  if going_on and going_on.number == tonumber(args[12]) then
    id, number, hash = args[11], going_on.number + 1, args[13]
  end
  write_family(keys[7], id, number, hash, args[16], args[17], args[18])
  redis.call('HSET', keys[7], 'role', args[9], 'permissions', args[10])
  prune_families(keys[7], now, tonumber(args[19]))
  local kicked = take_session(keys[6], args[5], args[6], args[7])
  redis.call('HSET', keys[6], 'last_login', args[8], 'role', args[9], 'permissions', args[10], 'family', id)
  redis.call('HINCRBY', keys[6], 'login_count', 1)
  redis.call('PEXPIRE', keys[6], args[18])
  return record(keys[8], args[4], {'ok', id, number, kicked, now})
end

-- Gives the session of a user whose family still stands to a connection.
-- KEYS: session, refresh tokens. ARGV: family, owner's server, owner's connection, sent ms.
-- Answers {'revoked'}, {'stale'} when a later request has the session, or {'ok', kicked or ''}.
local function resume(keys, args)
  if redis.call('HEXISTS', keys[2], 'family:' .. args[1]) == 0 then return {'revoked'} end
  if tonumber(args[4]) < tonumber(redis.call('HGET', keys[1], 'takenAt') or 0) then return {'stale'} end
  local kicked = take_session(keys[1], args[2], args[3], args[4])
  redis.call('HSET', keys[1], 'family', args[1])
  return {'ok', kicked}
end

-- Ends a family and answers the connection that was signed in with it, or ''.
local function revoke_family(tokens, session, id)
  redis.call('HDEL', tokens, 'family:' .. id)
  local was = redis.call('HMGET', session, 'family', 'serverId', 'connectionId')
  if was[1] ~= id or not was[2] then return '' end
  redis.call('HDEL', session, 'serverId', 'connectionId', 'family')
  return was[2] .. '/' .. was[3]
end

-- Checks a refresh token that was signed by us; one that is not its family's newest ends the family.
-- KEYS: refresh tokens, session. ARGV: family, number, hash.
-- Answers {'missing'}, {'reused', signed out or ''} or {'ok'}.
local function check(keys, args)
  local stands = family(keys[1], args[1])
  if not stands or stands.expires < now_ms() then return {'missing'} end
  if stands.number == tonumber(args[2]) and stands.hash == args[3] then return {'ok'} end
  return {'reused', revoke_family(keys[1], keys[2], args[1])}
end

-- Exchanges a family's newest token for the next.
-- KEYS: refresh tokens, session, record. ARGV: family, number, hash, next hash, expiry ms, expiry as ISO 8601,
-- refresh ttl ms, record ttl ms. Answers as `check`, but {'ok', next number, ms of issue}.
local function rotate(keys, args)
  local before = recorded(keys[3])
  if before then return before end
  local checked = check(keys, args)
  if checked[1] ~= 'ok' then return checked end
  write_family(keys[1], args[1], tonumber(args[2]) + 1, args[4], args[5], args[6], args[7])
  return record(keys[3], args[8], {'ok', tonumber(args[2]) + 1, now_ms()})
end

-- KEYS: refresh tokens, session, record. ARGV: family, record ttl ms.
-- Answers {'missing'} or {'ok', signed out or ''}.
local function revoke(keys, args)
  local before = recorded(keys[3])
  if before then return before end
  if not family(keys[1], args[1]) then return {'missing'} end
  return record(keys[3], args[2], {'ok', revoke_family(keys[1], keys[2], args[1])})
end

-- KEYS: waiting, ready, stats, config. ARGV: counters. Answers waiting, ready, total rate, average wait and each
-- counter, all of one moment.
local function ledger(keys, args)
  local answer = {redis.call('ZCARD', keys[1]), redis.call('ZCARD', keys[2]),
    redis.call('HGET', keys[4], 'totalRate'), redis.call('HGET', keys[3], 'avgWaitTime')}
  for _, counter in ipairs(args) do answer[#answer + 1] = redis.call('HGET', keys[3], counter) end
  return answer
end

redis.register_function('ticket_ledger_@VERSION@', ledger)
redis.register_function('ticket_issue_@VERSION@', issue)
redis.register_function('ticket_stream_@VERSION@', stream)
redis.register_function('ticket_cancel_@VERSION@', cancel)
redis.register_function('ticket_admit_@VERSION@', admit)
redis.register_function('ticket_told_@VERSION@', told)
redis.register_function('ticket_untold_@VERSION@', untold)
redis.register_function('ticket_survey_@VERSION@', survey)
redis.register_function('ticket_touch_@VERSION@', touch)
redis.register_function('ticket_finalize_@VERSION@', finalize)
redis.register_function('session_resume_@VERSION@', resume)
redis.register_function('tokens_check_@VERSION@', check)
redis.register_function('tokens_rotate_@VERSION@', rotate)
redis.register_function('tokens_revoke_@VERSION@', revoke)
