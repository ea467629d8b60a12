#!lua name=lobbyd_boards_@VERSION@
-- Boards: sorted sets of users by a number whose whole part is their score and whose fraction says how early they
-- reached it (storage/placing.py). All that writes a board uses ZADD GT, so it comes out the same in whatever order
-- and however often it is written. Whoever is in the set of the removed is on no board.

local TYPES = {'total', 'daily', 'weekly', 'monthly'}
local TOP = 100

local function whole(number)
  return string.format('%.0f', number)
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The rank of a number: equal scores share one.
local function rank_of(board, number)
  return redis.call('ZCOUNT', board, whole(math.floor(tonumber(number)) + 1), '+inf') + 1
end

-- Notes that the top of a board of all games has changed; a past period gives way to a newer one that is noted.
-- Answers whether nothing was noted before, so that of all who change a top one sees to it that it is told.
local function note(changed, board_type, period)
  local noted = redis.call('HGET', changed, board_type)
  if not noted or noted < period then redis.call('HSET', changed, board_type, period) end
  return not noted
end

-- Whether a number is in the top of a board.
local function is_top(board, number)
  local last = redis.call('ZRANGE', board, TOP - 1, TOP - 1, 'REV', 'WITHSCORES')
  return not last[2] or number >= tonumber(last[2])
end

-- Writes the numbers of a kind of period to its two boards, `expires` ms or 0.
local function write(all_games, one_game, expires, list)
  for _, board in ipairs({one_game, all_games}) do
    local is_new = expires ~= '0' and redis.call('EXISTS', board) == 0
    local changed = redis.call('ZADD', board, 'GT', 'CH', unpack(list))
    if is_new then redis.call('PEXPIREAT', board, expires) end
    if board == all_games then return changed end
  end
end

-- Writes scores of one game and day to its boards. No user may come twice. Who is no better than before on the game's
-- daily board is so on none: each of the others holds what that one does.
-- KEYS: removed, changed, the total, daily, weekly and monthly board of all games, and the same of the game.
-- ARGV: names of day, week and month, ms at which their boards expire, then for each score user and numbers for total,
-- daily, weekly and monthly.
-- Answers nothing when the set of the removed is lost, else 1 if this is the first to note that a top has changed, else 0,
-- and for each score 0 where nothing was written, or the numbers on the total, daily, weekly and monthly board of all games
-- before, '' for none.
local function raise(keys, args)
  redis.call('HLEN', keys[2])
  if redis.call('SCARD', keys[1]) == 0 then return nil end
  for i = 3, #keys do redis.call('ZCARD', keys[i]) end
  local users, rising, at, answers = {}, {}, {}, {}
  for i = 7, #args, 5 do users[#users + 1] = args[i] end
  local gone, today = redis.call('SMISMEMBER', keys[1], unpack(users)), redis.call('ZMSCORE', keys[8], unpack(users))
  for i, user in ipairs(users) do
    answers[i] = 0
    if gone[i] == 0 and not (today[i] and tonumber(today[i]) >= tonumber(args[i * 5 + 4])) then
      answers[i], rising[#rising + 1], at[#at + 1] = {}, user, i
    end
  end
  if #rising == 0 then return {0, answers} end
  local periods, expiries, first = {'all', args[1], args[2], args[3]}, {'0', args[4], args[5], args[6]}, 0
  for kind = 1, 4 do
    local before, list, highest = redis.call('ZMSCORE', keys[2 + kind], unpack(rising)), {}, -1
    for j, user in ipairs(rising) do
      local number = args[at[j] * 5 + 2 + kind]
      answers[at[j]][kind] = before[j] or ''
      list[2 * j - 1], list[2 * j] = number, user
      highest = math.max(highest, tonumber(number))
    end
    if write(keys[2 + kind], keys[6 + kind], expiries[kind], list) > 0 and is_top(keys[2 + kind], highest) then
      if note(keys[2], TYPES[kind], periods[kind]) then first = 1 end
    end
  end
  return {first, answers}
end

-- Writes the same numbers to some boards, as a rebuild does. KEYS: removed, boards. ARGV: ms at which the boards expire or
-- 0, then number and user by turns. Answers how many users are not removed, nothing when the set of the removed is lost.
local function fill(keys, args)
  if redis.call('SCARD', keys[1]) == 0 then return nil end
  for i = 2, #keys do redis.call('ZCARD', keys[i]) end
  local users, list = {}, {}
  for i = 3, #args, 2 do users[#users + 1] = args[i] end
  local gone = redis.call('SMISMEMBER', keys[1], unpack(users))
  for i = 1, #users do
    if gone[i] == 0 then list[#list + 1], list[#list + 2] = args[i * 2], users[i] end
  end
  for i = 2, #list > 0 and #keys or 0 do
    redis.call('ZADD', keys[i], 'GT', unpack(list))
    if args[1] ~= '0' then redis.call('PEXPIREAT', keys[i], args[1]) end
  end
  return #list / 2
end

-- Corrects what is wrong on a board, where it is still what was seen. KEYS: board. ARGV: user, number seen or '',
-- number wanted or '' by turns. Answers how many were corrected.
local function correct(keys, args)
  redis.call('ZCARD', keys[1])
  local corrected = 0
  for i = 1, #args, 3 do
    if tonumber(redis.call('ZSCORE', keys[1], args[i]) or '') == tonumber(args[i + 1]) then
      corrected = corrected + 1
      if args[i + 2] == '' then
        redis.call('ZREM', keys[1], args[i])
      else
        redis.call('ZADD', keys[1], args[i + 2], args[i])
      end
    end
  end
  return corrected
end

-- Takes a user off boards, for as long as they are in the set of the removed. KEYS: removed, boards. ARGV: user.
-- Answers nothing when the set is lost, else from how many boards.
local function remove(keys, args)
  if redis.call('SCARD', keys[1]) == 0 then return nil end
  for i = 2, #keys do redis.call('ZCARD', keys[i]) end
  redis.call('SADD', keys[1], args[1])
  local count = 0
  for i = 2, #keys do count = count + redis.call('ZREM', keys[i], args[1]) end
  return count
end

-- Parts of boards, best first. KEYS: boards, which may come again. ARGV: offset and limit of each.
-- Answers for each the rank of its first user, and users and numbers by turns.
local function pages(keys, args)
  local answers = {}
  for i, board in ipairs(keys) do
    local offset, limit = tonumber(args[i * 2 - 1]), tonumber(args[i * 2])
    local rows = redis.call('ZRANGE', board, whole(offset), whole(offset + limit - 1), 'REV', 'WITHSCORES')
    answers[i] = {rows[2] and rank_of(board, rows[2]) or 0, rows}
  end
  return answers
end

-- The ranks that scores have on boards, or would have. KEYS: boards. ARGV: for each how many scores, and for each of
-- these the next one above it. Answers the ranks in the order of the scores.
local function ranks(keys, args)
  local answers, at = {}, 1
  for _, board in ipairs(keys) do
    local last = at + args[at]
    for i = at + 1, last do answers[#answers + 1] = redis.call('ZCOUNT', board, args[i], '+inf') + 1 end
    at = last + 1
  end
  return answers
end

-- Where users stand. KEYS: boards, which may come again. ARGV: a user for each.
-- Answers for each how many players its board has, and, if the user is one, number, rank and place from 0.
local function standings(keys, args)
  local answers = {}
  for i, board in ipairs(keys) do
    local total, number = redis.call('ZCARD', board), redis.call('ZSCORE', board, args[i])
    if number then
      answers[i] = {total, number, rank_of(board, number), redis.call('ZREVRANK', board, args[i])}
    else
      answers[i] = {total}
    end
  end
  return answers
end

-- Notes that tops have changed by other ways than scores. KEYS: changed. ARGV: type and period by turns.
local function note_changed(keys, args)
  redis.call('HLEN', keys[1])
  for i = 1, #args, 2 do note(keys[1], args[i], args[i + 1]) end
end

-- The boards whose top is to be told now: those that changed and were not told within so many ms.
-- KEYS: changed. ARGV: ms. Answers in how many ms the next is due, -1 where none changed, then type and period by turns.
local function take_changed(keys, args)
  local now, least, due, answer = now_ms(), tonumber(args[1]), -1, {-1}
  local was = redis.call('HGETALL', keys[1])
  local fields = {}
  for i = 1, #was, 2 do fields[was[i]] = was[i + 1] end
  for _, board_type in ipairs(TYPES) do
    local told = tonumber(fields[board_type .. ':told'] or 0)
    if fields[board_type] and (now - told >= least or now < told) then
      redis.call('HDEL', keys[1], board_type)
      redis.call('HSET', keys[1], board_type .. ':told', whole(now))
      answer[#answer + 1], answer[#answer + 2] = board_type, fields[board_type]
    elseif fields[board_type] then
      local left = told + least - now
      due = due < 0 and left or math.min(due, left)
    end
  end
  answer[1] = due
  return answer
end

local function register_reading(name, callback)
  redis.register_function{function_name = name .. '_@VERSION@', callback = callback, flags = {'no-writes'}}
end

redis.register_function('board_raise_@VERSION@', raise)
redis.register_function('board_fill_@VERSION@', fill)
redis.register_function('board_correct_@VERSION@', correct)
redis.register_function('board_remove_@VERSION@', remove)
redis.register_function('board_note_@VERSION@', note_changed)
redis.register_function('board_changed_@VERSION@', take_changed)
register_reading('board_pages', pages)
register_reading('board_ranks', ranks)
register_reading('board_standings', standings)
