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
local LENGTH = {string = 'STRLEN', hash = 'HLEN', list = 'LLEN', set = 'SCARD', zset = 'ZCARD', stream = 'XLEN'}
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
-- ticket. `owner` is '' unless it streams, and `left` is whether it did until its connection was gone. One whose
-- hash is lost was never seen.
local function look(tid, prefixes)
  local ticket = prefixes[1] .. tid
  local was = redis.call('HMGET', ticket, 'uid', 'owner', 'streaming', 'lastSeen', 'issuedAt', 'position', 'toldAt',
    'higher', 'order', 'estimatedAt', 'due', 'drawn', 'best')
  return {
    tid = tid, ticket = ticket, clients = prefixes[2] .. tid, holder = prefixes[3] .. (was[1] or '') .. prefixes[4],
    owner = was[3] == '1' and was[2] or '', left = was[3] == 'left', seen = tonumber(was[4] or 0),
    issued = tonumber(was[5] or 0), position = tonumber(was[6] or 0), told = tonumber(was[7] or 0),
    higher = tonumber(was[8] or 0), order = was[9],
    estimated_at = was[10], due = was[11], drawn = was[12] == '1', best = tonumber(was[13] or was[6] or 0),
  }
end

-- The position to tell a ticket's player: from 1 while waiting, else 0. Beside it, how many of higher tiers came so
-- far, and the position and the best one to compare later ones with.
local function place(waiting, stats, tid, ticket, factor, opens_at)
  local score = redis.call('ZSCORE', waiting, tid)
  if not score then return 0, 0, 0, 0 end
  local was = redis.call('HMGET', ticket, 'position', 'higher', 'best')
  local higher = higher_arrivals(stats, band_of(score))
  if opens_at then return last_place(waiting, score), higher, 0, 0 end
  local position = position_of(counting(waiting), tonumber(score), redis.call('ZRANK', waiting, tid), factor)
  position = to_tell(position, tonumber(was[1] or 0), higher, tonumber(was[2] or 0))
  return position, higher, position, best_told(tonumber(was[3] or was[1] or 0), position)
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
-- KEYS: user's ticket, waiting, stats, record, new ticket, new ticket's clients, away, bucket, config, the user's raise.
-- ARGV: tid, clientId, uid, owner, sent ms, ttl ms, most waiting, family, record ttl ms, ticket prefix, clients prefix,
-- band of the tier, wait factor, risk, number drawn, trace of the stay, match that is to be looked for or ''.
-- Answers {'issued'|'kept', tid, clientId, status, position, total, who is to be kicked out or '', ms to wait or -1, ms
-- of an opening to come or 0} or {'full', total}.
local function issue(keys, args)
  local before = recorded(keys[4])
  if before then return before end
  local tid, client, uid, owner, sent, ttl = args[1], args[2], args[3], args[4], tonumber(args[5]), args[6]
  local now, total = now_ms(), redis.call('ZCARD', keys[2])
  local held, seen = redis.call('GET', keys[1]), forecast(keys[9], keys[8], keys[3], now)
  if held then
    local ticket, clients = args[10] .. held, args[11] .. held
    local was = redis.call('HMGET', ticket, 'status', 'owner', 'ownedAt', 'clientId')
    need(clients, 'set')
    if usable(was[1], keys[1], held) then
      local is_late, kicked = sent < tonumber(was[3]), was[2] ~= owner and was[2] or ''
      if not is_late then come_back(keys[7], keys[2], held, ticket) end
      local position, higher, told, best = place(keys[2], keys[3], held, ticket, tonumber(args[13]), seen.opens_at)
      if is_late then
        kicked = was[2] ~= owner and owner or ''
      else
        redis.call('HSET', ticket, 'clientId', client, 'owner', owner, 'ownedAt', args[5], 'streaming', 0,
          'lastSeen', now, 'family', args[8], 'risk', args[14], 'position', told, 'higher', higher,
          'best', best, 'trace', args[16], 'autoMatch', args[17])
        redis.call('SREM', clients, was[4])
        redis.call('SADD', clients, client)
        redis.call('PEXPIRE', keys[1], ttl, 'GT')
      end
      return record(keys[4], args[9], {'kept', held, client, was[1], position, redis.call('ZCARD', keys[2]), kicked,
        (wait_ms(seen, position)), seen.opens_at or 0})
    end
  end
  if total >= tonumber(args[7]) then return {'full', total} end
  local band = math.min(tonumber(args[12]), tonumber(redis.call('GET', keys[10]) or args[12]))
  local arrival = arrive(keys[3], now_us(), seen.opens_at, band, tonumber(args[15]))
  redis.call('HINCRBY', keys[3], 'issued', 1)
  redis.call('HINCRBY', keys[3], 'arrived' .. TIERS[band + 1], 1)
  redis.call('ZADD', keys[2], whole(band * BAND + arrival), tid)
  local position, higher, told, best = place(keys[2], keys[3], tid, keys[5], tonumber(args[13]), seen.opens_at)
  redis.call('HSET', keys[5], 'uid', uid, 'status', 'PENDING', 'issuedAt', now, 'lastSeen', now, 'clientId', client,
    'position', told, 'tier', TIERS[band + 1], 'higher', higher, 'owner', owner, 'ownedAt', args[5],
    'streaming', 0, 'family', args[8], 'risk', args[14], 'best', best, 'trace', args[16], 'autoMatch', args[17])
  if seen.opens_at then redis.call('HSET', keys[5], 'drawn', 1) end
  local wait = wait_ms(seen, position)
  keep_told(keys[5], nil, seen, wait, now)
  redis.call('SADD', keys[6], client)
  redis.call('SET', keys[1], tid, 'PX', ttl)
  return record(keys[4], args[9], {'issued', tid, client, 'PENDING', position, total + 1, '', wait,
    seen.opens_at or 0})
end

-- Sends the ticket's events to one connection from now on.
-- KEYS: ticket, waiting, ready, away, stats, bucket, config. ARGV: tid, clientId, owner, sent ms, ttl ms, user's ticket
-- prefix, suffix, wait factor.
-- Answers {'missing'}, {'taken'} or {'ok', status, position, total, kicked or '', ms to the deadline or 0, ms to wait
-- or -1, ms of an opening to come or 0}.
local function stream(keys, args)
  local was = redis.call('HMGET', keys[1], 'status', 'clientId', 'owner', 'ownedAt', 'uid', 'displaced',
    'estimatedAt')
  local holder = args[6] .. (was[5] or '') .. args[7]
  if not usable(was[1], holder, args[1]) then return {'missing'} end
  if was[2] ~= args[2] or tonumber(args[4]) < tonumber(was[4]) then return {'taken'} end
  local now = now_ms()
  local seen = forecast(keys[7], keys[6], keys[5], now)
  come_back(keys[4], keys[2], args[1], keys[1])
  local position, higher, told, best = place(keys[2], keys[5], args[1], keys[1], tonumber(args[8]), seen.opens_at)
  local wait = wait_ms(seen, position)
  -- Who asks again gets the same answer, since the worker that was to kick the other out may have died.
  local kicked = was[3] == args[3] and (was[6] or '') or was[3]
  redis.call('HSET', keys[1], 'owner', args[3], 'ownedAt', args[4], 'streaming', 1, 'lastSeen', now,
    'position', told, 'higher', higher, 'best', best, 'toldAt', now, 'displaced', kicked)
  if position > 0 then keep_told(keys[1], was[7], seen, wait, now) end
  redis.call('PEXPIRE', holder, args[5], 'GT')
  local deadline = redis.call('ZSCORE', keys[3], args[1])
  local left = deadline and math.max(0, tonumber(deadline) - now) or 0
  return {'ok', was[1], position, redis.call('ZCARD', keys[2]), kicked, left, wait, seen.opens_at or 0}
end

-- Gives a usable ticket up, {tid, ticket, clients, holder}: its place is free. `room` holds the keys waiting, ready,
-- stats, bucket, untold, away.
local function give_up(each, room, keep_ms)
  redis.call('ZREM', room[1], each.tid)
  redis.call('ZREM', room[5], each.tid)
  redis.call('ZREM', room[6], each.tid)
  if redis.call('ZREM', room[2], each.tid) == 1 then redis.call('HINCRBY', room[4], 'refunds', 1) end
  finish({each}, 'CANCELLED', room[3], keep_ms)
end

-- KEYS: ticket, clients, user's ticket, record, waiting, ready, stats, bucket, untold, away.
-- ARGV: tid, clientId, keep ms, record ttl ms.
-- Answers {'missing'}, {'taken'} or {'ok'}.
local function cancel(keys, args)
  local before = recorded(keys[4])
  if before then return before end
  local was = redis.call('HMGET', keys[1], 'status', 'clientId')
  if not usable(was[1], keys[3], args[1]) then return {'missing'} end
  if was[2] ~= args[2] then return {'taken'} end
  local each = {tid = args[1], ticket = keys[1], clients = keys[2], holder = keys[3]}
  give_up(each, {unpack(keys, 5, 10)}, args[3])
  return record(keys[4], args[4], {'ok'})
end

-- What a walk comes to: tids and scores by turns, and the first one's rank. With '' for it, it is where the last such
-- walk ended, by score, since ranks change under way: so nobody is passed by. Beside them, the score to go on from.
local function walked_from(waiting, stats, first, count)
  if first ~= '' then
    return redis.call('ZRANGE', waiting, first, first + count - 1, 'WITHSCORES'), tonumber(first)
  end
  local from = redis.call('HGET', stats, 'surveyed') or 0
  local walked = redis.call('ZRANGEBYSCORE', waiting, from, '+inf', 'WITHSCORES', 'LIMIT', 0, count + 1)
  local after = '0'
  if #walked > 2 * count then
    after = whole(table.remove(walked))
    table.remove(walked)
  end
  return walked, walked[1] and redis.call('ZRANK', waiting, walked[1]) or 0, after
end

-- Walks a part of the waiting room: expires the abandoned, and finds who is to be told their place.
-- KEYS: waiting, stats, bucket, config. ARGV: first rank or '' to go on, count, ttl ms, least ms between two updates, ms after which
-- an unchanged place is told again, keep ms, ticket prefix, clients prefix, user's ticket prefix, suffix, wait factor.
-- Answers total, {{owner, position, why it is worse than the best one told or '', ms to wait or -1, the same for nine
-- of ten}...}, {{tid, owner or '', reason}..., expired}, ms of an opening to come or 0. Before the opening only those
-- are told whom it is time to tell again.
local function survey(keys, args)
  local now, telling, updates, abandoned, prefixes = now_ms(), {}, {}, {}, {unpack(args, 7, 10)}
  local ttl, least, again = tonumber(args[3]), tonumber(args[4]), tonumber(args[5])
  local mixed, higher, seen = is_mixed(keys[1]), {}, forecast(keys[4], keys[3], keys[2], now)
  for band = 0, #TIERS - 1 do higher[band] = higher_arrivals(keys[2], band) end
  local counts, factor, at = counting(keys[1]), tonumber(args[11]), whole(now)
  local walked, first, after = walked_from(keys[1], keys[2], args[1], tonumber(args[2]))
  for i = 1, #walked, 2 do
    local each, score, rank = look(walked[i], prefixes), tonumber(walked[i + 1]), first + (i - 1) / 2
    local since = now - each.told
    if each.seen + ttl < now then
      abandoned[#abandoned + 1] = each
    elseif each.owner ~= '' and since >= least then
      local position = rank + 1 - #abandoned
      if mixed then position = position_of(counts, score, rank, factor) end
      local now_higher, reason, told = higher[band_of(score)], '', 0
      if seen.opens_at then
        position = last_place(keys[1], score)
      else
        position = to_tell(position, each.position, now_higher, each.higher)
        reason = each.drawn and 'DRAWN' or why_worse(position, each.best)
        told = position
      end
      if each.position ~= told or since >= again then
        each.position, each.higher, each.best = told, now_higher, best_told(each.best, told)
        each.wait, each.wait90 = wait_ms(seen, position)
        telling[#telling + 1] = each
        updates[#updates + 1] = {each.owner, position, reason, each.wait, each.wait90}
      end
    end
  end
  if after then redis.call('HSET', keys[2], 'surveyed', after) end
  for _, each in ipairs(telling) do
    redis.call('HSET', each.ticket, 'position', each.position, 'toldAt', at, 'higher', each.higher, 'best', each.best)
    if each.drawn and not seen.opens_at then redis.call('HDEL', each.ticket, 'drawn') end
    keep_told(each.ticket, each.estimated_at, seen, each.wait, now)
  end
  if #abandoned > 0 then redis.call('ZREM', keys[1], unpack(ids(abandoned))) end
  finish(abandoned, 'EXPIRED', keys[2], args[6])
  return {redis.call('ZCARD', keys[1]), updates, rows(abandoned, 'ABANDONED'), seen.opens_at or 0}
end

-- Keeps the places of those who were connected until now, and still are ('1') or have just 'left'. Who was passed
-- over because the node was thought to be gone is back in line.
-- KEYS: waiting, away. ARGV: ttl ms, '1' or 'left', ticket prefix, user's ticket prefix, suffix, then tid and
-- owner by turns. Answers how many.
local function touch(keys, args)
  local now, tickets, tids, holders, passed, touched = now_ms(), {}, {}, {}, {}, 0
  for i = 6, #args, 2 do
    local ticket = args[3] .. args[i]
    local was = redis.call('HMGET', ticket, 'owner', 'uid', 'streaming', 'passedAt')
    if was[1] == args[i + 1] and was[3] ~= 'left' then
      tickets[#tickets + 1], tids[#tids + 1], passed[args[i]] = ticket, args[i], was[4]
      holders[#holders + 1] = args[4] .. was[2] .. args[5]
    end
  end
  if #tids == 0 then return 0 end
  for i, tid in ipairs(redis.call('MGET', unpack(holders))) do
    if tid == tids[i] then
      redis.call('HSET', tickets[i], 'lastSeen', now)
      redis.call('PEXPIRE', holders[i], args[1], 'GT')
      if args[2] == 'left' then
        redis.call('HSET', tickets[i], 'streaming', 'left')
      elseif passed[tid] then
        come_back(keys[2], keys[1], tid, tickets[i])
      end
      touched = touched + 1
    end
  end
  return touched
end

-- KEYS: waiting, ready, stats, config, away, bucket. ARGV: counters. Answers waiting, ready, total rate, average wait,
-- by how much estimates are off, how many leave the line for each that the rate lets in, and each counter, all of one
-- moment. Who was passed over waits, too.
local function ledger(keys, args)
  local answer = {redis.call('ZCARD', keys[1]) + redis.call('ZCARD', keys[5]), redis.call('ZCARD', keys[2]),
    redis.call('HGET', keys[4], 'totalRate'), redis.call('HGET', keys[3], 'avgWaitTime'),
    redis.call('HGET', keys[3], 'estimateError'),
    string.format('%.6f', outflow(unpack(redis.call('HMGET', keys[6], 'gone', 'spent'))))}
  for _, counter in ipairs(args) do answer[#answer + 1] = redis.call('HGET', keys[3], counter) end
  return answer
end

register('ticket_issue', {'string', 'zset', 'hash', 'string', 'hash', 'set', 'zset', 'hash', 'hash', 'string'}, issue)
register('ticket_stream', {'hash', 'zset', 'zset', 'zset', 'hash', 'hash', 'hash'}, stream)
register('ticket_cancel', {'hash', 'set', 'string', 'string', 'zset', 'zset', 'hash', 'hash', 'zset', 'zset'}, cancel)
register('ticket_survey', {'zset', 'hash', 'hash', 'hash'}, survey)
register('ticket_touch', {'zset', 'zset'}, touch)
register('ticket_ledger', {'zset', 'zset', 'hash', 'hash', 'zset', 'hash'}, ledger)
