-- Sessions and refresh tokens. The last file of the library that order.lua begins, with whose local functions
-- it works: a ticket is spent and its user signed in in one step.

-- Gives the session to a connection. Answers who had it before and is to be kicked out, or ''; the same to who asks
-- again, since the worker that was to do it may have died.
local function take_session(session, owner_server, owner_connection, sent)
  local was = redis.call('HMGET', session, 'serverId', 'connectionId', 'displaced')
  redis.call('HSET', session, 'serverId', owner_server, 'connectionId', owner_connection, 'takenAt', sent)
  redis.call('HINCRBY', session, 'epoch', 1)
  if not was[1] then
    redis.call('HDEL', session, 'displaced')
    return ''
  end
  if was[1] == owner_server and was[2] == owner_connection then return was[3] or '' end
  redis.call('HSET', session, 'displaced', was[1] .. '/' .. was[2])
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

-- Drops families that are over, and the oldest but the `newest` while there are too many.
local function prune_families(tokens, newest, now, most)
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
          if all[i] ~= 'family:' .. newest and (not oldest or expires < oldest_expires) then
            oldest, oldest_expires = all[i], expires
          end
        end
      end
    end
    if count <= most then return end
    redis.call('HDEL', tokens, oldest)
  end
end

-- A finalize that is repeated, maybe by another connection of its client: its session goes there, unless a later
-- request has it.
local function again(answer, session, args)
  local was = redis.call('HMGET', session, 'serverId', 'connectionId', 'takenAt', 'family')
  if was[1] == args[5] and was[2] == args[6] then return answer end
  if was[4] ~= answer[2] or tonumber(args[7]) < tonumber(was[3]) then
    answer[4] = args[5] .. '/' .. args[6]
  else
    answer[4] = take_session(session, args[5], args[6], args[7])
  end
  return answer
end

-- Spends a READY ticket: signs its user in, whatever races, once. A session that a later request has stays where it
-- is: the ticket's tokens are good all the same, and who asked is to be kicked out. What is to be announced of it is,
-- in the same step.
-- KEYS: ticket, clients, ready, stats, user's ticket, session, refresh tokens, record, untold, event bus, its meta, its
-- stats.
-- ARGV: tid, clientId, keep ms, record ttl ms, owner's server, owner's connection, sent ms, now as ISO 8601, role,
-- permissions, family to go on with or '', its newest number, hash of its next token, fresh family, hash of its
-- first token, expiry ms, expiry as ISO 8601, refresh ttl ms, most families, announcement or ''.
-- Answers {'missing'}, {'not ready'}, {'not yours'}, {'no bus'}, {'full'} or {'ok', family, number, kicked or '', ms of issue}.
local function finalize(keys, args)
  local before = recorded(keys[8])
  if before then return again(before, keys[6], args) end
  local was = redis.call('HMGET', keys[1], 'status', 'clientId', 'risk', 'trace')
  if not usable(was[1], keys[5], args[1]) then return {'missing'} end
  if was[2] ~= args[2] then return {'not yours'} end
  if was[1] ~= 'READY' then return {'not ready'} end
  local now, deadline = now_ms(), redis.call('ZSCORE', keys[3], args[1])
  if not deadline or tonumber(deadline) < now then return {'missing'} end
  local refused = args[20] ~= '' and refusing(keys[10], keys[11])
  if refused then return refused end
  redis.call('ZREM', keys[3], args[1])
  redis.call('ZREM', keys[9], args[1])
  finish({{tid = args[1], ticket = keys[1], clients = keys[2], holder = keys[5]}}, 'CONSUMED', keys[4], args[3])
  local id, number, hash = args[14], 1, args[15]
  local going_on = args[11] ~= '' and family(keys[7], args[11])
  if going_on and going_on.number == tonumber(args[12]) then
    id, number, hash = args[11], going_on.number + 1, args[13]
  end
  write_family(keys[7], id, number, hash, args[16], args[17], args[18])
  redis.call('HSET', keys[7], 'role', args[9], 'permissions', args[10])
  prune_families(keys[7], id, now, tonumber(args[19]))
  local kicked = args[5] .. '/' .. args[6]
  local holds = redis.call('HMGET', keys[6], 'serverId', 'takenAt')
  if not holds[1] or tonumber(args[7]) >= tonumber(holds[2]) then
    kicked = take_session(keys[6], args[5], args[6], args[7])
    redis.call('HSET', keys[6], 'family', id)
  end
  redis.call('HSET', keys[6], 'last_login', args[8], 'role', args[9], 'permissions', args[10],
    'risk_score', was[3] or '0', 'trace', was[4] or '')
  if args[20] ~= '' then announce(keys[10], keys[12], args[20]) end
  redis.call('HINCRBY', keys[6], 'login_count', 1)
  redis.call('PEXPIRE', keys[6], args[18])
  return record(keys[8], args[4], {'ok', id, number, kicked, now})
end

-- Gives the session of a user whose family still stands to a connection.
-- KEYS: session, refresh tokens. ARGV: family, owner's server, owner's connection, sent ms.
-- Answers {'revoked'}, {'stale'} when a later request has the session, or {'ok', kicked or '', trace of the stay or ''}.
local function resume(keys, args)
  local stands = family(keys[2], args[1])
  if not stands or stands.expires < now_ms() then return {'revoked'} end
  if tonumber(args[4]) < tonumber(redis.call('HGET', keys[1], 'takenAt') or 0) then return {'stale'} end
  local kicked = take_session(keys[1], args[2], args[3], args[4])
  redis.call('HSET', keys[1], 'family', args[1])
  redis.call('PEXPIRE', keys[1], redis.call('PTTL', keys[2]))
  return {'ok', kicked, redis.call('HGET', keys[1], 'trace') or ''}
end

-- Ends a family and answers the connection that was signed in with it, or ''.
local function revoke_family(tokens, session, id)
  redis.call('HDEL', tokens, 'family:' .. id)
  local was = redis.call('HMGET', session, 'family', 'serverId', 'connectionId')
  if was[1] ~= id or not was[2] then return '' end
  redis.call('HDEL', session, 'serverId', 'connectionId', 'family')
  return was[2] .. '/' .. was[3]
end

-- Looks at a refresh token that was signed by us; one that is not its family's newest ends the family.
-- KEYS: refresh tokens, session. ARGV: family, number, hash.
-- Answers {'missing'}, {'reused', signed out or ''} or {'ok'}.
local function examine(keys, args)
  local stands = family(keys[1], args[1])
  if not stands or stands.expires < now_ms() then return {'missing'} end
  if stands.number == tonumber(args[2]) and stands.hash == args[3] then return {'ok'} end
  return {'reused', revoke_family(keys[1], keys[2], args[1])}
end

-- Checks the token of a login that has this record. One that has got its ticket is delivered again after its family
-- went on, which is no reuse.
-- KEYS: refresh tokens, session, record. ARGV: family, number, hash, record ttl ms. Answers as `examine`.
local function check(keys, args)
  local before = recorded(keys[3])
  if before then return before[1] == 'reused' and before or {'ok'} end
  local found = examine(keys, args)
  if found[1] == 'reused' then return record(keys[3], args[4], found) end
  return found
end

-- Exchanges a family's newest token for the next.
-- KEYS: refresh tokens, session, record. ARGV: family, number, hash, next hash, expiry ms, expiry as ISO 8601,
-- refresh ttl ms, record ttl ms, role, permissions. Answers as `examine`, but {'ok', next number, ms of issue}.
local function rotate(keys, args)
  local before = recorded(keys[3])
  if before then return before end
  local found = examine(keys, args)
  if found[1] == 'missing' then return found end
  if found[1] == 'reused' then return record(keys[3], args[8], found) end
  write_family(keys[1], args[1], tonumber(args[2]) + 1, args[4], args[5], args[6], args[7])
  redis.call('HSET', keys[1], 'role', args[9], 'permissions', args[10])
  if redis.call('PEXPIRE', keys[2], args[7]) == 1 then
    redis.call('HSET', keys[2], 'role', args[9], 'permissions', args[10])
  end
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

-- Ends a user's stay: all tokens, the session, and the ticket.
-- KEYS: session, refresh tokens, user's ticket, waiting, ready, stats, bucket, untold, away.
-- ARGV: ticket prefix, clients prefix, keep ms.
-- Answers the connection that was signed in or '', the one that had the ticket or '', and how many families of tokens
-- there were. Who asks again is told of the first again, since whoever was to close it may have died.
local function expel(keys, args)
  local was = redis.call('HMGET', keys[1], 'serverId', 'connectionId', 'displaced')
  local held = redis.call('GET', keys[3])
  local owner, families = '', 0
  if held then
    local ticket, clients = args[1] .. held, args[2] .. held
    local had = redis.call('HMGET', ticket, 'status', 'owner')
    need(clients, 'set')
    if usable(had[1], keys[3], held) then
      owner = had[2]
      local each = {tid = held, ticket = ticket, clients = clients, holder = keys[3]}
      give_up(each, {unpack(keys, 4, 9)}, args[3])
    end
  end
  for _, name in ipairs(redis.call('HKEYS', keys[2])) do
    if string.sub(name, 1, 7) == 'family:' then families = families + 1 end
  end
  redis.call('DEL', keys[2])
  local signed_in = was[3] or ''
  if was[1] then
    signed_in = was[1] .. '/' .. was[2]
    redis.call('HSET', keys[1], 'displaced', signed_in)
    redis.call('HDEL', keys[1], 'serverId', 'connectionId', 'family')
  end
  return {signed_in, owner, families}
end

-- Connections that are closed: their users are signed in nowhere, unless they are somewhere else by now.
-- KEYS: none. ARGV: session prefix, then user id, server and connection by turns. Answers how many left.
local function leave(keys, args)
  local left = 0
  for i = 2, #args, 3 do
    local session = args[1] .. args[i]
    local at = redis.call('HMGET', session, 'serverId', 'connectionId')
    if at[1] == args[i + 1] and at[2] == args[i + 2] then
      redis.call('HDEL', session, 'serverId', 'connectionId')
      left = left + 1
    end
  end
  return left
end

-- Where users are signed in. KEYS: sessions. Answers number, server id and connection id of those that are, by turns.
local function where(keys)
  local found = {}
  for i, session in ipairs(keys) do
    local at = redis.call('HMGET', session, 'serverId', 'connectionId')
    if at[1] and at[2] then found[#found + 1], found[#found + 2], found[#found + 3] = i, at[1], at[2] end
  end
  return found
end

register('ticket_finalize', {'hash', 'set', 'zset', 'hash', 'string', 'hash', 'hash', 'string', 'zset', 'stream', 'hash',
  'hash'}, finalize)
register('session_resume', {'hash', 'hash'}, resume)
register('session_leave', {}, leave)
register('session_expel', {'hash', 'hash', 'string', 'zset', 'zset', 'hash', 'hash', 'zset', 'zset'}, expel)
register('tokens_check', {'hash', 'hash', 'string'}, check)
register('tokens_rotate', {'hash', 'hash', 'string'}, rotate)
register('tokens_revoke', {'hash', 'hash', 'string'}, revoke)
register('session_where', {}, where)
