-- Meeting: matches are made of players who wait, told, undone and ended. The second file of the library that
-- matching.lua begins, with whose local functions it works.

local WEIGHT = 0.2 -- of the newest wait in a bucket's average

-- What became of a player since the match was made up: their connection, or why they cannot be in it.
local function can_be(names, was, entry, claimed)
  if was.status ~= 'waiting' or was.entry ~= entry or claimed[was.uid] then return 'gone' end
  local at = address(names, was.uid)
  return at == '' and 'away' or at
end

local function write_match(names, match, now, ttl)
  local uids = {}
  for i, player in ipairs(match.players) do uids[i] = player.uid end
  for i, player in ipairs(match.players) do
    local key, others = names.match(player.uid), {}
    for j, uid in ipairs(uids) do
      if j ~= i then others[#others + 1] = uid end
    end
    redis.call('HSET', key, 'status', 'matched', 'game_session_id', match.id,
      'matched_users', table.concat(others, ','))
    redis.call('PEXPIRE', key, ttl)
  end
  local game = names.game(match.id)
  redis.call('HSET', game, 'players', table.concat(uids, ','), 'difficulty', match.difficulty, 'level', match.level,
    'region', match.region, 'cost', match.cost, 'created_at', whole(now))
  redis.call('PEXPIRE', game, ttl)
end

-- Writes down matches, and that their players have yet to be told.
local function write_matches(names, untold, matches, now, ttl)
  if #matches == 0 then return end
  local since = {}
  for _, match in ipairs(matches) do
    write_match(names, match, now, ttl)
    since[#since + 1], since[#since + 2] = now, match.id
  end
  redis.call('ZADD', untold, unpack(since))
end

-- Notes in the averages of a difficulty's levels how many were matched there, after so many ms altogether.
local function learn(stats, levels)
  local fields, known, changes = {}, {}, {}
  for level in pairs(levels) do
    for _, what in ipairs({':wait', ':cost', ':matched'}) do fields[#fields + 1] = level .. what end
  end
  for i, value in ipairs(redis.call('HMGET', stats, unpack(fields))) do known[fields[i]] = value or nil end
  for level, newest in pairs(levels) do
    local keep = known[level .. ':wait'] and (1 - WEIGHT) ^ newest.count or 0
    for what, sum in pairs({[':wait'] = newest.waited, [':cost'] = newest.cost}) do
      local average = keep * (known[level .. what] or 0) + (1 - keep) * sum / newest.count
      changes[#changes + 1], changes[#changes + 2] = level .. what, string.format('%.3f', average)
    end
    changes[#changes + 1], changes[#changes + 2] = level .. ':matched', (known[level .. ':matched'] or 0) + newest.count
  end
  redis.call('HSET', stats, unpack(changes))
end

-- Notes what matches taught of their queues, each difficulty's at once.
local function learn_from(names, made, now)
  local taught = {}
  for _, match in ipairs(made) do
    for _, player in ipairs(match.players) do
      local levels = taught[player.difficulty] or {}
      taught[player.difficulty] = levels
      local level = levels[player.level] or {count = 0, waited = 0, cost = 0}
      levels[player.level] = level
      level.count = level.count + 1
      level.waited = level.waited + now - tonumber(player.created_at)
      level.cost = level.cost + tonumber(match.cost)
    end
  end
  for difficulty, levels in pairs(taught) do learn(names.stats(difficulty), levels) end
end

-- Claims all the players of each match or none of them.
-- KEYS: feed, deadlines, untold. ARGV: prefixes, ms that a session is kept, then for each match: session id,
-- difficulty, level, region, cost, how many, and for each of these uid and entry.
-- Answers {for each match: {1 or 0, for each player their connection, 'gone' or 'away'}}.
local function claim(keys, args)
  need(keys[1], 'stream')
  need(keys[2], 'zset')
  need(keys[3], 'zset')
  local names, now, answers, made, claimed, taken = naming(args), now_ms(), {}, {}, {}, {}
  local at = PREFIXES + 2
  while at <= #args do
    local match = {id = args[at], difficulty = args[at + 1], level = args[at + 2], region = args[at + 3],
      cost = args[at + 4], players = {}}
    local count, answer = tonumber(args[at + 5]), {1}
    for i = 1, count do
      local was = look(names, args[at + 4 + 2 * i], PLACE)
      answer[1 + i] = can_be(names, was, args[at + 5 + 2 * i], claimed)
      if answer[1 + i] == 'gone' or answer[1 + i] == 'away' then answer[1] = 0 end
      match.players[i] = was
    end
    need(names.stats(match.difficulty), 'hash', names.seen)
    if answer[1] == 1 then
      for _, player in ipairs(match.players) do claimed[player.uid], taken[#taken + 1] = true, player end
      made[#made + 1] = match
    end
    answers[#answers + 1] = answer
    at = at + 6 + 2 * count
  end
  take(names, keys[2], taken, keys[1])
  write_matches(names, keys[3], made, now, args[PREFIXES + 1])
  learn_from(names, made, now)
  return answers
end

-- Notes that the players of sessions have been told: they can be written down.
-- KEYS: untold, unwritten. ARGV: session ids.
local function told(keys, args)
  need(keys[2], 'zset')
  local now = now_ms()
  for first = 1, #args, MOST_AT_ONCE do
    local ids, since = {unpack(args, first, math.min(first + MOST_AT_ONCE - 1, #args))}, {}
    for i, was in ipairs(redis.call('ZMSCORE', keys[1], unpack(ids))) do
      if was then since[#since + 1], since[#since + 2] = now, ids[i] end
    end
    redis.call('ZREM', keys[1], unpack(ids))
    if #since > 0 then redis.call('ZADD', keys[2], unpack(since)) end
  end
end

local function split(text)
  local parts = {}
  for part in string.gmatch(text or '', '[^,]+') do parts[#parts + 1] = part end
  return parts
end

-- Looks at the sessions whose players ought to have been told for so many ms. Where all of them are there, they
-- are to be told again; where one has vanished, all go back to their queues as if nothing had been, ages kept.
-- KEYS: untold, feed, deadlines. ARGV: prefixes, ms, at most. Answers {{session id, connections, ...}, ...}.
local function untold(keys, args)
  need(keys[2], 'stream')
  need(keys[3], 'zset')
  local names, again, back, waiting = naming(args), {}, {}, {}
  local upto = whole(now_ms() - args[PREFIXES + 1])
  for _, id in ipairs(redis.call('ZRANGE', keys[1], '-inf', upto, 'BYSCORE', 'LIMIT', 0, args[PREFIXES + 2])) do
    local players, answer, is_whole = {}, {id}, true
    for i, uid in ipairs(split(redis.call('HGET', names.game(id), 'players'))) do
      players[i], answer[1 + i] = look(names, uid, ALL), address(names, uid)
      if answer[1 + i] == '' or players[i].game_session_id ~= id then is_whole = false end
    end
    if is_whole and #players > 0 then again[#again + 1] = answer else back[#back + 1] = {id = id, players = players} end
  end
  for _, session in ipairs(back) do
    for _, player in ipairs(session.players) do
      if player.game_session_id == session.id then
        local key = names.match(player.uid)
        redis.call('HDEL', key, 'game_session_id', 'matched_users')
        redis.call('HSET', key, 'status', 'waiting')
        redis.call('PERSIST', key)
        waiting[#waiting + 1] = player
      end
    end
    redis.call('DEL', names.game(session.id))
    redis.call('ZREM', keys[1], session.id)
  end
  put(names, keys[3], waiting, keys[2])
  return again
end

-- Ends a session: its players are free. KEYS: game session, untold, unwritten. ARGV: prefixes, session id, uids.
-- Answers how many were still in it.
local function finish(keys, args)
  need(keys[2], 'zset')
  need(keys[3], 'zset')
  local names, id, gone = naming(args), args[PREFIXES + 1], {keys[1]}
  for i = PREFIXES + 2, #args do
    if redis.call('HGET', names.match(args[i]), 'game_session_id') == id then
      gone[#gone + 1] = names.match(args[i])
    end
  end
  redis.call('DEL', unpack(gone))
  redis.call('ZREM', keys[2], id)
  redis.call('ZREM', keys[3], id)
  return #gone - 1
end

redis.register_function('game_claim_@VERSION@', claim)
redis.register_function('game_told_@VERSION@', told)
redis.register_function('game_untold_@VERSION@', untold)
redis.register_function('game_finish_@VERSION@', finish)
