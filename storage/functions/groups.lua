#!lua name=lobbyd_groups_@VERSION@
-- The cached groups of users: sets of group ids, as SQL had them. Redis knows no empty set, so a user
-- without groups has the one member ''.
-- A reader who finds nothing leaves a mark of its own in the set, a member that begins with '?', reads SQL and
-- fills the set only if the mark is still there. Who changes a membership deletes the set after the commit,
-- marks and all: so nothing that was read before a change is ever cached after it.

local function cached(key)
  local members = redis.call('SMEMBERS', key)
  for _, member in ipairs(members) do
    if string.sub(member, 1, 1) == '?' then return false end
  end
  return #members > 0 and members
end

-- KEYS: the sets. ARGV: the reader's mark, and how long marks are kept in ms. Answers each set's members, nil
-- for those that the reader is to fill.
redis.register_function('groups_read_@VERSION@', function(keys, args)
  local mark, mark_ms = args[1], args[2]
  local answers = {}
  for i, key in ipairs(keys) do answers[i] = cached(key) end
  for i, key in ipairs(keys) do
    if not answers[i] then
      redis.call('SADD', key, mark)
      redis.call('PEXPIRE', key, mark_ms, 'NX') -- marks of readers that failed must not keep one another alive
    end
  end
  return answers
end)

-- KEYS: the sets. ARGV: the reader's mark, how long the sets are kept in ms, the members of each as JSON.
redis.register_function('groups_fill_@VERSION@', function(keys, args)
  local mark, life_ms = args[1], args[2]
  for i, key in ipairs(keys) do
    local members = cjson.decode(args[i + 2])
    if redis.call('SISMEMBER', key, mark) == 1 then
      redis.call('DEL', key)
      redis.call('SADD', key, unpack(members))
      redis.call('PEXPIRE', key, life_ms)
    end
  end
end)
