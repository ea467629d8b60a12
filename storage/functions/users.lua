#!lua name=lobbyd_users_@VERSION@
-- The cached accounts: hashes, as SQL had them.
-- A reader who finds nothing leaves a mark of its own in the hash, a field that begins with '?', reads SQL and fills
-- the hash only if the mark is still there. Who changes an account deletes the hash after the commit, marks and all:
-- so nothing that was read before a change is ever cached after it.

-- KEYS: the hashes. ARGV: the reader's mark, how long marks are kept in ms, the fields. Answers the values of each
-- hash, nil for those that the reader is to fill.
redis.register_function('users_read_@VERSION@', function(keys, args)
  local mark, mark_ms, answers = args[1], args[2], {}
  for i, key in ipairs(keys) do
    local values = redis.call('HMGET', key, unpack(args, 3))
    answers[i] = values
    for j = 1, #args - 2 do
      if not values[j] then answers[i] = false end
    end
  end
  for i, key in ipairs(keys) do
    if not answers[i] then
      redis.call('HSET', key, '?' .. mark, '')
      redis.call('PEXPIRE', key, mark_ms, 'NX') -- marks of readers that failed must not keep one another alive
    end
  end
  return answers
end)

-- KEYS: the hashes. ARGV: the reader's mark, how long the hashes are kept in ms, the fields and values of each as JSON.
redis.register_function('users_fill_@VERSION@', function(keys, args)
  local mark, life_ms = args[1], args[2]
  for i, key in ipairs(keys) do
    local fields = cjson.decode(args[i + 2])
    if redis.call('HEXISTS', key, '?' .. mark) == 1 then
      redis.call('DEL', key)
      redis.call('HSET', key, unpack(fields))
      redis.call('PEXPIRE', key, life_ms)
    end
  end
end)
