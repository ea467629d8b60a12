#!lua name=lobbyd_matching_@VERSION@
-- Matching: a player waits in one queue, or is in one match, or neither; every change of that is one function here.
-- Clocks are Redis TIME. Names that are made of an id (a user's, a session's) are made from the prefixes that the
-- caller gives first. A function that takes many players reads all that it needs of all of them before its first
-- write. What comes and goes is also noted in the feed, by which the workers know who waits without asking again.

local FEED_KEEP_MS = 60000 -- who has not looked at the feed for longer reads the queues anew
local WEIGHT = 0.2         -- of the newest wait in a bucket's average

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

-- Refuses a key of another type, as Redis does when asked for a length; `seen` are those that were looked at.
local LENGTH = {string = 'STRLEN', hash = 'HLEN', zset = 'ZCARD', stream = 'XLEN'}
local function need(key, kind, seen)
  if seen and seen[key] then return end
  redis.call(LENGTH[kind], key)
  if seen then seen[key] = true end
end

local PREFIXES = 8 -- ARGV that come first in most functions

-- The names that are made of ids. ARGV: prefixes of match, session, queue, game session and stats, then the set of
-- queue ids, how that of a node's queue ends, and the hash of the first connection that can be open at each node.
local function naming(args)
  local names = {nodes = {}, seen = {}}
  function names.match(uid) return args[1] .. uid end
  function names.session(uid) return args[2] .. uid end
  function names.queue(difficulty, level) return args[3] .. difficulty .. ':' .. level end
  function names.game(id) return args[4] .. id end
  function names.stats(difficulty) return args[5] .. difficulty end
  function names.first_open(server)
    if not names.nodes[server] then
      local is_there = redis.call('SISMEMBER', args[6], server .. args[7]) == 1
      names.nodes[server] = is_there and tonumber(redis.call('HGET', args[8], server) or 0) or math.huge
    end
    return names.nodes[server]
  end
  return names
end

-- The connection at which a player is signed in, or '' for one who is away: signed out, disconnected, or at a node
-- that is gone and its queue with it, or has been started anew since.
local function address(names, uid)
  local at = redis.call('HMGET', names.session(uid), 'serverId', 'connectionId')
  if not at[1] or not at[2] or tonumber(at[2]) < names.first_open(at[1]) then return '' end
  return at[1] .. '/' .. at[2]
end

local PLACE = {'status', 'entry', 'difficulty', 'level', 'created_at'}
local ALL = {'status', 'entry', 'difficulty', 'level', 'created_at', 'region', 'players', 'skill', 'deadline',
  'game_session_id', 'matched_users'}

-- A player's match hash by field; `status` is nil where there is none.
local function look(names, uid, fields)
  local found, values = {uid = uid}, redis.call('HMGET', names.match(uid), unpack(fields))
  for i, field in ipairs(fields) do found[field] = values[i] or nil end
  if found.difficulty then need(names.queue(found.difficulty, found.level), 'zset', names.seen) end
  return found
end

-- The feed.

-- A player who waits, as the feed has it.
local function row(player)
  return table.concat({player.entry, player.difficulty, player.level, player.region, player.players,
    player.created_at, player.skill}, '|')
end

-- Notes in the feed who came (uid, row) and went (uid, entry), by turns.
local function note(feed, changes)
  for first = 1, #changes, 1000 do
    local last = math.min(first + 999, #changes)
    redis.call('XADD', feed, 'MINID', '~', whole(now_ms() - FEED_KEEP_MS), '*', unpack(changes, first, last))
  end
end

local function is_before(one, other)
  local ms, number = string.match(one, '^(%d+)-(%d+)$')
  local other_ms, other_number = string.match(other, '^(%d+)-(%d+)$')
  ms, other_ms = tonumber(ms), tonumber(other_ms)
  return ms < other_ms or ms == other_ms and tonumber(number) < tonumber(other_number)
end

-- What the feed says since a cursor: {the next cursor, 1 when something was lost in between, changes by turns}.
local function news(feed, cursor)
  local newest = redis.call('XREVRANGE', feed, '+', '-', 'COUNT', 1)
  local upto = newest[1] and newest[1][1] or '0-0'
  if cursor == upto then return {upto, 0, {}} end
  local oldest = redis.call('XRANGE', feed, '-', '+', 'COUNT', 1)
  if cursor == '' or not oldest[1] or is_before(cursor, oldest[1][1]) or is_before(upto, cursor) then
    return {upto, 1, {}}
  end
  local changes = {}
  for _, entry in ipairs(redis.call('XRANGE', feed, '(' .. cursor, '+')) do
    for _, part in ipairs(entry[2]) do changes[#changes + 1] = part end
  end
  return {upto, 0, changes}
end

-- Waiting and leaving.

-- Puts players into their queues, and notes it.
local function put(names, deadlines, players, feed)
  if #players == 0 then return end
  local due, changes = {}, {}
  for _, player in ipairs(players) do
    redis.call('ZADD', names.queue(player.difficulty, player.level), player.created_at, player.uid)
    due[#due + 1], due[#due + 2] = player.deadline, player.uid
    changes[#changes + 1], changes[#changes + 2] = player.uid, row(player)
  end
  redis.call('ZADD', deadlines, unpack(due))
  note(feed, changes)
end

-- Takes players out of their queues, and notes it.
local function take(names, deadlines, players, feed)
  if #players == 0 then return end
  local uids, changes = {}, {}
  for i, player in ipairs(players) do
    redis.call('ZREM', names.queue(player.difficulty, player.level), player.uid)
    uids[i] = player.uid
    changes[#changes + 1], changes[#changes + 2] = player.uid, player.entry
  end
  redis.call('ZREM', deadlines, unpack(uids))
  note(feed, changes)
end

-- Notes in the averages of a queue that so many of its players were matched, after so many ms altogether.
local function learn(stats, level, count, waited, cost)
  local fields = {level .. ':wait', level .. ':cost', level .. ':matched'}
  local was = redis.call('HMGET', stats, unpack(fields))
  local keep = was[1] and (1 - WEIGHT) ^ count or 0
  redis.call('HSET', stats,
    fields[1], string.format('%.3f', keep * (was[1] or 0) + (1 - keep) * waited / count),
    fields[2], string.format('%.3f', keep * (was[2] or 0) + (1 - keep) * cost / count),
    fields[3], (was[3] or 0) + count)
end

-- What a request to wait finds: its first result when it is a repeat, or why it cannot be, or nil.
local function standing(was, recorded)
  if recorded and was.entry ~= recorded then return {'left'} end
  if was.status == 'waiting' then return {recorded and 'waiting' or 'already matching', was.entry} end
  if was.status == 'matched' then
    return {recorded and 'matched' or 'already matched', was.entry, was.game_session_id, was.matched_users}
  end
  return nil
end

-- Lets players wait. KEYS: feed, deadlines, entries. ARGV: prefixes, cursor, then for each player: uid, difficulty,
-- level, region or '', players of a match, longest wait in ms, skill, record, its ttl in ms.
-- Answers {news, {for each: {what, entry, ...}}}: 'entered' with the ms that they can expect to wait or '',
-- 'waiting', 'matched' and 'left' for a repeat, 'already matching' or 'already matched'; both kinds of matched have
-- the session and the others.
local function enter(keys, args)
  need(keys[1], 'stream')
  need(keys[2], 'zset')
  local names, now, answers, entered, coming, waits = naming(args), now_ms(), {}, {}, {}, {}
  local entry = math.max(tonumber(redis.call('GET', keys[3]) or 0), now_us())
  for at = PREFIXES + 2, #args, 9 do
    local uid, record = args[at], args[at + 7]
    local was = coming[uid] or look(names, uid, ALL)
    local answer = standing(was, coming[record] or redis.call('GET', record))
    if not answer then
      local player = {uid = uid, status = 'waiting', difficulty = args[at + 1], level = args[at + 2],
        region = args[at + 3], players = args[at + 4], skill = args[at + 6], entry = whole(entry),
        created_at = whole(now), deadline = whole(now + args[at + 5]), record = record, ttl = args[at + 8]}
      local queue = names.queue(player.difficulty, player.level)
      need(queue, 'zset', names.seen)
      waits[queue] = waits[queue] or redis.call('HGET', names.stats(player.difficulty), player.level .. ':wait') or ''
      answer = {'entered', player.entry, waits[queue]}
      coming[uid], coming[record], entered[#entered + 1] = player, player.entry, player
      entry = entry + 1
    end
    answers[#answers + 1] = answer
  end
  for _, player in ipairs(entered) do
    redis.call('HSET', names.match(player.uid), 'status', 'waiting', 'difficulty', player.difficulty,
      'level', player.level, 'region', player.region, 'players', player.players, 'created_at', player.created_at,
      'deadline', player.deadline, 'entry', player.entry, 'skill', player.skill)
    redis.call('SET', player.record, player.entry, 'PX', player.ttl)
  end
  put(names, keys[2], entered, keys[1])
  if #entered > 0 then redis.call('SET', keys[3], whole(entry)) end
  return {news(keys[1], args[PREFIXES + 1]), answers}
end

-- Takes a player out of the queue, once. KEYS: feed, deadlines, record. ARGV: prefixes, uid, record ttl in ms.
-- Answers {'cancelled'}, {'missing'} or {'matched', entry, session, the others}.
local function cancel(keys, args)
  need(keys[1], 'stream')
  need(keys[2], 'zset')
  local names, uid = naming(args), args[PREFIXES + 1]
  local was = look(names, uid, ALL)
  if redis.call('EXISTS', keys[3]) == 1 then return {'cancelled'} end
  if was.status == 'matched' then return {'matched', was.entry, was.game_session_id, was.matched_users} end
  if not was.status then return {'missing'} end
  take(names, keys[2], {was}, keys[1])
  redis.call('DEL', names.match(uid))
  redis.call('SET', keys[3], was.entry, 'PX', args[PREFIXES + 2])
  return {'cancelled'}
end

-- Takes those out whose time is up, or will be in so many ms.
-- KEYS: feed, deadlines. ARGV: prefixes, ms, at most. Answers {{uid, ms waited, connection or ''}, ...}.
local function expire(keys, args)
  need(keys[1], 'stream')
  local names, now, gone, lost, answer = naming(args), now_ms(), {}, {}, {}
  local due = redis.call('ZRANGE', keys[2], '-inf', whole(now + args[PREFIXES + 1]), 'BYSCORE', 'LIMIT', 0,
    args[PREFIXES + 2])
  for _, uid in ipairs(due) do
    local was = look(names, uid, PLACE)
    if was.status == 'waiting' then
      need(names.stats(was.difficulty), 'hash', names.seen)
      gone[#gone + 1] = was
      answer[#answer + 1] = {uid, now - tonumber(was.created_at), address(names, uid)}
    else
      lost[#lost + 1] = uid
    end
  end
  take(names, keys[2], gone, keys[1])
  for _, was in ipairs(gone) do
    redis.call('DEL', names.match(was.uid))
    redis.call('HINCRBY', names.stats(was.difficulty), was.level .. ':timedOut', 1)
  end
  if #lost > 0 then redis.call('ZREM', keys[2], unpack(lost)) end
  return answer
end

-- Matches.

-- What became of a player since the match was made up: their connection, or why they cannot be in it.
local function can_be(names, was, entry, claimed)
  if was.status ~= 'waiting' or was.entry ~= entry or claimed[was.uid] then return 'gone' end
  local at = address(names, was.uid)
  return at == '' and 'away' or at
end

local function write_match(names, untold, match, now, ttl)
  local uids = {}
  for i, player in ipairs(match.players) do uids[i] = player.uid end
  for i, player in ipairs(match.players) do
    local others = {}
    for j, uid in ipairs(uids) do
      if j ~= i then others[#others + 1] = uid end
    end
    redis.call('HSET', names.match(player.uid), 'status', 'matched', 'game_session_id', match.id,
      'matched_users', table.concat(others, ','))
    redis.call('PEXPIRE', names.match(player.uid), ttl)
  end
  local game = names.game(match.id)
  redis.call('HSET', game, 'players', table.concat(uids, ','), 'difficulty', match.difficulty, 'level', match.level,
    'region', match.region, 'cost', match.cost, 'created_at', whole(now))
  redis.call('PEXPIRE', game, ttl)
  redis.call('ZADD', untold, now, match.id)
end

-- What matches taught of their queues, each queue once.
local function learn_from(names, made, now)
  local queues = {}
  for _, match in ipairs(made) do
    for _, player in ipairs(match.players) do
      local name = player.difficulty .. ':' .. player.level
      local queue = queues[name] or {player = player, count = 0, waited = 0, cost = 0}
      queues[name] = queue
      queue.count = queue.count + 1
      queue.waited = queue.waited + now - tonumber(player.created_at)
      queue.cost = queue.cost + tonumber(match.cost)
    end
  end
  for _, queue in pairs(queues) do
    learn(names.stats(queue.player.difficulty), queue.player.level, queue.count, queue.waited, queue.cost)
  end
end

-- Claims all the players of each match or none of them.
-- KEYS: feed, deadlines, untold. ARGV: prefixes, cursor, ms that a session is kept, then for each match: session id,
-- difficulty, level, region, cost, how many, and for each of these uid and entry.
-- Answers {news, {for each match: {1 or 0, for each player their connection, 'gone' or 'away'}}}.
local function claim(keys, args)
  need(keys[1], 'stream')
  need(keys[2], 'zset')
  need(keys[3], 'zset')
  local names, now, answers, made, claimed, taken = naming(args), now_ms(), {}, {}, {}, {}
  local at = PREFIXES + 3
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
  for _, match in ipairs(made) do write_match(names, keys[3], match, now, args[PREFIXES + 2]) end
  learn_from(names, made, now)
  return {news(keys[1], args[PREFIXES + 1]), answers}
end

-- Notes that the players of sessions have been told: they can be written down.
-- KEYS: untold, unwritten. ARGV: session ids.
local function told(keys, args)
  need(keys[2], 'zset')
  local now = now_ms()
  for _, id in ipairs(args) do
    if redis.call('ZREM', keys[1], id) == 1 then redis.call('ZADD', keys[2], now, id) end
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

redis.register_function('game_enter_@VERSION@', enter)
redis.register_function('game_cancel_@VERSION@', cancel)
redis.register_function('game_expire_@VERSION@', expire)
redis.register_function('game_claim_@VERSION@', claim)
redis.register_function('game_told_@VERSION@', told)
redis.register_function('game_untold_@VERSION@', untold)
redis.register_function('game_finish_@VERSION@', finish)
