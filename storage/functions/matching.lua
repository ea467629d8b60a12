#!lua name=lobbyd_matching_@VERSION@
-- Matching: a player waits in one queue, or is in one match, or neither; every change of that is one function here.
-- Clocks are Redis TIME. Names that are made of an id (a user's, a session's) are made from the prefixes that the
-- caller gives first. A function that takes many players reads all that it needs of all of them before its first
-- write. What comes and goes is also noted in the feed, by which the workers know who waits without asking again.

local FEED_KEEP_MS = 60000   -- who has not looked at the feed for longer reads the queues anew
local MOST_AT_ONCE = 1000    -- arguments of one command, well below what Lua can unpack
local NOTHING_YET = '0-0'    -- the cursor of who looked at an empty feed

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
local STANDING = {'status', 'entry', 'difficulty', 'level', 'game_session_id', 'matched_users'}
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
  for first = 1, #changes, MOST_AT_ONCE do
    local last = math.min(first + MOST_AT_ONCE - 1, #changes)
    redis.call('XADD', feed, 'MINID', '~', whole(now_ms() - FEED_KEEP_MS), '*', unpack(changes, first, last))
  end
end

-- What the feed says since a cursor: {the next cursor, 1 when something was lost in between, changes by turns}.
local function news(feed, cursor)
  -- Whose cursor is no longer there may have missed more than that.
  if cursor == '' or #redis.call('XRANGE', feed, cursor, cursor) == 0 then
    local newest = redis.call('XREVRANGE', feed, '+', '-', 'COUNT', 1)[1]
    local upto = newest and newest[1] or NOTHING_YET
    return {upto, cursor == upto and 0 or 1, {}}
  end
  local upto, changes = cursor, {}
  for _, entry in ipairs(redis.call('XRANGE', feed, '(' .. cursor, '+')) do
    upto = entry[1]
    for _, part in ipairs(entry[2]) do changes[#changes + 1] = part end
  end
  return {upto, 0, changes}
end

-- Waiting and leaving.

-- Does to each queue at once what is to be done for its players: ZADD with their scores, or ZREM.
local function each_queue(names, command, players)
  local queues = {}
  for _, player in ipairs(players) do
    local queue = names.queue(player.difficulty, player.level)
    local members = queues[queue] or {}
    queues[queue] = members
    if command == 'ZADD' then members[#members + 1] = player.created_at end
    members[#members + 1] = player.uid
  end
  for queue, members in pairs(queues) do redis.call(command, queue, unpack(members)) end
end

-- Puts players into their queues, and notes it.
local function put(names, deadlines, players, feed)
  if #players == 0 then return end
  local due, changes = {}, {}
  for _, player in ipairs(players) do
    due[#due + 1], due[#due + 2] = player.deadline, player.uid
    changes[#changes + 1], changes[#changes + 2] = player.uid, row(player)
  end
  each_queue(names, 'ZADD', players)
  redis.call('ZADD', deadlines, unpack(due))
  note(feed, changes)
end

-- Takes players out of their queues, and notes it.
local function take(names, deadlines, players, feed)
  if #players == 0 then return end
  local uids, changes = {}, {}
  for i, player in ipairs(players) do
    uids[i] = player.uid
    changes[#changes + 1], changes[#changes + 2] = player.uid, player.entry
  end
  each_queue(names, 'ZREM', players)
  redis.call('ZREM', deadlines, unpack(uids))
  note(feed, changes)
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

-- Which of the requests to wait, by their records, had an effect before: the entries that they got.
local function records(args)
  local names, found = {}, {}
  for at = PREFIXES + 9, #args, 9 do names[#names + 1] = args[at] end
  for i, entry in ipairs(#names > 0 and redis.call('MGET', unpack(names)) or {}) do
    found[names[i]] = entry or nil
  end
  return found
end

-- Says in the answers to those who enter how long others waited there lately.
local function expect(names, entered)
  local players, levels = {}, {}
  for _, player in ipairs(entered) do
    local stats = names.stats(player.difficulty)
    players[stats], levels[stats] = players[stats] or {}, levels[stats] or {}
    table.insert(players[stats], player)
    table.insert(levels[stats], player.level .. ':wait')
  end
  for stats, fields in pairs(levels) do
    for i, wait in ipairs(redis.call('HMGET', stats, unpack(fields))) do players[stats][i].answer[3] = wait or '' end
  end
end

-- Lets players wait. KEYS: feed, deadlines, entries. ARGV: prefixes, cursor, then for each player: uid, difficulty,
-- level, region or '', players of a match, longest wait in ms, skill, record, its ttl in ms.
-- Answers {news, {for each: {what, entry, ...}}}: 'entered' with the ms that they can expect to wait or '',
-- 'waiting', 'matched' and 'left' for a repeat, 'already matching' or 'already matched'; both kinds of matched have
-- the session and the others.
local function enter(keys, args)
  need(keys[1], 'stream')
  need(keys[2], 'zset')
  local names, now, answers, entered, coming = naming(args), now_ms(), {}, {}, {}
  local entry, recorded = math.max(tonumber(redis.call('GET', keys[3]) or 0), now_us()), records(args)
  for at = PREFIXES + 2, #args, 9 do
    local uid, record = args[at], args[at + 7]
    local was = coming[uid] or look(names, uid, STANDING)
    local answer = standing(was, recorded[record])
    if not answer then
      local player = {uid = uid, status = 'waiting', difficulty = args[at + 1], level = args[at + 2],
        region = args[at + 3], players = args[at + 4], skill = args[at + 6], entry = whole(entry),
        created_at = whole(now), deadline = whole(now + args[at + 5]), record = record, ttl = args[at + 8]}
      need(names.queue(player.difficulty, player.level), 'zset', names.seen)
      answer = {'entered', player.entry, ''}
      player.answer = answer
      coming[uid], recorded[record], entered[#entered + 1] = player, player.entry, player
      entry = entry + 1
    end
    answers[#answers + 1] = answer
  end
  expect(names, entered)
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

redis.register_function('game_enter_@VERSION@', enter)
redis.register_function('game_cancel_@VERSION@', cancel)
redis.register_function('game_expire_@VERSION@', expire)
