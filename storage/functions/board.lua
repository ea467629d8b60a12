-- Looking at who waits and who plays, and whose turn it is to sweep. The third file of the library that matching.lua
-- begins, with whose local functions it works.

-- What the feed says, and whether the caller is the one who sweeps now; asking in time keeps it so.
-- KEYS: feed, sweeper. ARGV: cursor, who asks, ms. Answers {news, 1 or 0, ms since the epoch}.
local function tick(keys, args)
  local sweeps = redis.call('GET', keys[2])
  if not sweeps or sweeps == args[2] then
    redis.call('SET', keys[2], args[2], 'PX', args[3])
    sweeps = args[2]
  end
  return {news(keys[1], args[1]), sweeps == args[2] and 1 or 0, now_ms()}
end

-- Lets another sweep at once. KEYS: sweeper. ARGV: who asks. Answers 1 when it was the one who sweeps.
local function leave(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then return 0 end
  return redis.call('DEL', keys[1])
end

-- Who waits in some queues. ARGV: prefixes, difficulty, first level, last level. Answers {uid, row, ...}.
local function waiting(_, args)
  local names, found = naming(args), {}
  for level = args[PREFIXES + 2], args[PREFIXES + 3] do
    for _, uid in ipairs(redis.call('ZRANGE', names.queue(args[PREFIXES + 1], whole(level)), 0, -1)) do
      local player = look(names, uid, ALL)
      if player.status == 'waiting' then found[#found + 1], found[#found + 2] = uid, row(player) end
    end
  end
  return found
end

-- Who is there. ARGV: prefixes, uids. Answers their connections, '' for those who are away.
local function present(_, args)
  local names, found = naming(args), {}
  for i = PREFIXES + 1, #args do found[#found + 1] = address(names, args[i]) end
  return found
end

-- Where a player stands. ARGV: prefixes, uid.
-- Answers nothing, or {status, row, ms waited, ms left to wait, expected ms or '', session or '', the others or ''}.
local function stand(_, args)
  local names, now = naming(args), now_ms()
  local was = look(names, args[PREFIXES + 1], ALL)
  if not was.status then return nil end
  local expected = redis.call('HGET', names.stats(was.difficulty), was.level .. ':wait')
  return {was.status, row(was), now - tonumber(was.created_at), tonumber(was.deadline) - now, expected or '',
    was.game_session_id or '', was.matched_users or ''}
end

-- The queues of some levels in which somebody waits or was matched or timed out. ARGV: prefixes, difficulty, first
-- level, last level. Answers {{level, waiting, ms the oldest has waited, matched, timed out, ms waited, cost}, ...}.
local function buckets(_, args)
  local names, now, found = naming(args), now_ms(), {}
  local stats = names.stats(args[PREFIXES + 1])
  for level = args[PREFIXES + 2], args[PREFIXES + 3] do
    local queue, at = names.queue(args[PREFIXES + 1], whole(level)), whole(level)
    local known = redis.call('HMGET', stats, at .. ':matched', at .. ':timedOut', at .. ':wait', at .. ':cost')
    local count, oldest = redis.call('ZCARD', queue), redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
    if count > 0 or known[1] or known[2] then
      found[#found + 1] = {level, count, oldest[2] and now - tonumber(oldest[2]) or 0, known[1] or '0', known[2] or '0',
        known[3] or '', known[4] or ''}
    end
  end
  return found
end

local function register_reading(name, callback)
  redis.register_function{function_name = name .. '_@VERSION@', callback = callback, flags = {'no-writes'}}
end

redis.register_function('game_tick_@VERSION@', tick)
redis.register_function('game_leave_@VERSION@', leave)
register_reading('game_waiting', waiting)
register_reading('game_present', present)
register_reading('game_stand', stand)
register_reading('game_buckets', buckets)
