-- What an operator does about what waits in a queue, told to the audit log.
-- The second file of its library: audit.lua begins it.

-- Removes what nobody has read: what consumers hold stays theirs. For queues of one group.
-- KEYS: queue, stats, audit log, pending. ARGV: queueId, at most, operator.
-- Answers how many, -1 where there is no such queue.
local function purge(keys, args)
  redis.call('HLEN', keys[2])
  redis.call('LLEN', keys[3])
  redis.call('XLEN', keys[4])
  local before, read_up_to = redis.call('XLEN', keys[1]), nil
  if before == 0 then return redis.call('EXISTS', keys[1]) - 1 end
  local groups = redis.call('XINFO', 'GROUPS', keys[1])
  if #groups > 1 then return redis.error_reply('ERR a queue of several groups') end
  for i = 1, #(groups[1] or {}), 2 do
    if groups[1][i] == 'last-delivered-id' then read_up_to = groups[1][i + 1] end
  end
  if not read_up_to then return -1 end
  local entries = redis.call('XRANGE', keys[1], '(' .. read_up_to, '+', 'COUNT', args[2])
  for _, entry in ipairs(entries) do redis.call('XDEL', keys[1], entry[1]) end
  if #entries > 0 then
    redis.call('HINCRBY', keys[2], 'purged', #entries)
    local resource = string.format('queue:%s:%d->%d', args[1], before, before - #entries)
    audit(keys[3], keys[4], iso_time() .. 'Z', {args[3], 'queue:purge', resource, 'ALLOWED', 'lobbyctl', ''})
  end
  return #entries
end

-- Who makes room must be able to when Redis is out of memory.
redis.register_function{function_name = 'backlog_purge_@VERSION@', callback = purge, flags = {'allow-oom'}}
