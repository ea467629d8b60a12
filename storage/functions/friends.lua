#!lua name=lobbyd_friends_@VERSION@
-- Cached friends: a sorted set of a user and their friends, by their numbers on the all-time board when it was filled,
-- -1 without a score.
-- As with cached groups, a reader who finds nothing leaves a mark of its own, a member that begins with '?', reads SQL
-- and fills the set only if the mark is still there. Who changes a friendship deletes both sets after the commit.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function cached(key)
  local members = redis.call('ZRANGE', key, 0, -1)
  for _, member in ipairs(members) do
    if string.sub(member, 1, 1) == '?' then return false end
  end
  return #members > 0 and members
end

-- Friends and their numbers as they are now. KEYS: board, sets. ARGV: the reader's mark, how long marks are kept in ms.
-- Answers for each set users and numbers or '' by turns, nothing for those that the reader is to fill.
local function read(keys, args)
  redis.call('ZCARD', keys[1])
  local members, answers = {}, {}
  for i = 2, #keys do members[i] = cached(keys[i]) end
  for i = 2, #keys do
    answers[i - 1] = false
    if members[i] then
      local rows = {}
      for j, number in ipairs(redis.call('ZMSCORE', keys[1], unpack(members[i]))) do
        rows[#rows + 1], rows[#rows + 2] = members[i][j], number or ''
      end
      answers[i - 1] = rows
    end
  end
  for i = 2, #keys do
    if not members[i] then
      redis.call('ZADD', keys[i], 0, args[1])
      redis.call('PEXPIRE', keys[i], args[2], 'NX') -- marks of readers that failed must not keep one another alive
    end
  end
  return answers
end

-- KEYS: board, sets. ARGV: the reader's mark, how long sets are kept in ms, the members of each as JSON.
local function fill(keys, args)
  redis.call('ZCARD', keys[1])
  for i = 2, #keys do
    if redis.call('ZSCORE', keys[i], args[1]) then
      local members, list = cjson.decode(args[i + 1]), {}
      for j, number in ipairs(redis.call('ZMSCORE', keys[1], unpack(members))) do
        list[#list + 1], list[#list + 2] = number or '-1', members[j]
      end
      redis.call('DEL', keys[i])
      redis.call('ZADD', keys[i], unpack(list))
      redis.call('PEXPIRE', keys[i], args[2])
    end
  end
end

-- Notes whom players have overtaken: friends whose score was at least theirs before and is less than theirs now.
-- KEYS: board, overtaken, due. ARGV: for each player user, score before or -1, score now and their friends as JSON.
local function overtake(keys, args)
  redis.call('ZCARD', keys[1])
  redis.call('HLEN', keys[2])
  redis.call('ZCARD', keys[3])
  local now = string.format('%.0f', now_ms())
  for at = 1, #args, 4 do
    local user, before, after, rank = args[at], tonumber(args[at + 1]), tonumber(args[at + 2]), nil
    local friends = cjson.decode(args[at + 3])
    for j, number in ipairs(redis.call('ZMSCORE', keys[1], unpack(friends))) do
      local score = number and math.floor(tonumber(number))
      if score and score >= before and score < after then
        rank = rank or redis.call('ZCOUNT', keys[1], string.format('%.0f', after + 1), '+inf') + 1
        redis.call('HSET', keys[2], friends[j], user .. '|' .. args[at + 2] .. '|' .. rank)
        redis.call('ZADD', keys[3], 'NX', now, friends[j])
      end
    end
  end
end

-- Who is to hear now that a friend overtook them; they hear of nothing more for `gap` ms.
-- KEYS: overtaken, due. ARGV: most, gap. Answers user and `friendId|score|rank` by turns.
local function take_overtaken(keys, args)
  redis.call('HLEN', keys[1])
  local now, taken = now_ms(), {}
  for _, user in ipairs(redis.call('ZRANGEBYSCORE', keys[2], '-inf', now, 'LIMIT', 0, args[1])) do
    local by = redis.call('HGET', keys[1], user)
    if by then
      redis.call('HDEL', keys[1], user)
      redis.call('ZADD', keys[2], string.format('%.0f', now + args[2]), user)
      taken[#taken + 1], taken[#taken + 2] = user, by
    else
      redis.call('ZREM', keys[2], user)
    end
  end
  return taken
end

redis.register_function('friends_read_@VERSION@', read)
redis.register_function('friends_fill_@VERSION@', fill)
redis.register_function('friends_overtake_@VERSION@', overtake)
redis.register_function('friends_overtaken_@VERSION@', take_overtaken)
