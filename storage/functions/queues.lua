#!lua name=lobbyd_queues_@VERSION@
-- The queue server's changes, each atomic. An entry is one field `m`: a message.
-- Every function names its KEYS, ARGV and answer; each validates before its first write, also by
-- asking for a length (HLEN, XLEN), which a key of another type refuses.

local HISTORY_END = '18446744073709551615-0'

-- The answer of XINFO GROUPS or STREAM as a table by field name.
local function fields(list)
  local named = {}
  for i = 1, #list, 2 do named[list[i]] = list[i + 1] end
  return named
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The groups of a queue but one. There is no other, unless it is the event bus.
local function other_groups(queue, group)
  local others = {}
  for _, each in ipairs(redis.call('XINFO', 'GROUPS', queue)) do
    local named = fields(each)
    if named['name'] ~= group then others[#others + 1] = named end
  end
  return others
end

-- Whether an entry's id is behind another.
local function is_after(id, other)
  local ms, number = string.match(id, '^(%d+)-(%d+)$')
  local other_ms, other_number = string.match(other, '^(%d+)-(%d+)$')
  ms, number, other_ms, other_number = tonumber(ms), tonumber(number), tonumber(other_ms), tonumber(other_number)
  return ms > other_ms or ms == other_ms and number > other_number
end

-- Removes the entries, which this group has done with, as soon as every group has. Answers how many are removed.
local function drop(queue, group, ids)
  local others, done = other_groups(queue, group), ids
  if #others > 0 then
    done = {}
    for _, id in ipairs(ids) do
      local wanted = false
      for _, other in ipairs(others) do
        wanted = wanted or is_after(id, other['last-delivered-id'])
          or #redis.call('XPENDING', queue, other['name'], id, id, 1) > 0
      end
      if not wanted then done[#done + 1] = id end
    end
  end
  return #done > 0 and redis.call('XDEL', queue, unpack(done)) or 0
end

-- Creates a queue and a group of it, or sets an existing queue's meta anew and keeps its entries. Who only publishes
-- has no group.
-- KEYS: queue, meta, index. ARGV: queueId, group or '', then meta field and value by turns.
-- Answers 1 when the stream was made, 0 when it was there.
local function create(keys, args)
  local made = redis.call('EXISTS', keys[1]) == 0
  redis.call('XLEN', keys[1])
  redis.call('SADD', keys[3], args[1])
  if args[2] ~= '' then
    local group = redis.pcall('XGROUP', 'CREATE', keys[1], args[2], '0', 'MKSTREAM')
    if type(group) == 'table' and group.err and not string.find(group.err, 'BUSYGROUP', 1, true) then
      return group
    end
  end
  redis.call('DEL', keys[2])
  for i = 3, #args, 2 do redis.call('HSET', keys[2], args[i], args[i + 1]) end
  return made and 1 or 0
end

-- KEYS: queue, meta, stats, index. ARGV: queueId. Answers how many entries went with it.
local function delete(keys, args)
  local length = redis.call('XLEN', keys[1])
  redis.call('SREM', keys[4], args[1])
  redis.call('DEL', keys[1], keys[2], keys[3])
  return length
end

-- Appends as many messages as there is room for, in order. Where nobody has ever listened, events are only counted.
-- KEYS: queue, meta, stats. ARGV: messages. Answers how many were taken, -1 when there is no such queue.
local function publish(keys, args)
  local meta = redis.call('HMGET', keys[2], 'maxSize', 'queueType')
  local max = tonumber(meta[1])
  if not max then return -1 end
  if meta[2] == 'event' and (redis.call('EXISTS', keys[1]) == 0 or #redis.call('XINFO', 'GROUPS', keys[1]) == 0) then
    redis.call('HINCRBY', keys[3], 'unheard', #args)
    return #args
  end
  local taken = math.max(0, math.min(#args, max - redis.call('XLEN', keys[1])))
  if taken > 0 then redis.call('HINCRBY', keys[3], 'published', taken) end
  for i = 1, taken do redis.call('XADD', keys[1], '*', 'm', args[i]) end
  if taken < #args then redis.call('HINCRBY', keys[3], 'refused', #args - taken) end
  return taken
end

-- Reads new entries from several queues: each gets its share, and what one leaves goes to the others
-- in their order. Never blocks. Refuses before anything is read when one of the queues is lost.
-- KEYS: queues. ARGV: group, consumer, then how many at most for each queue.
-- Answers {{queue number, {{id, {field, value}}, ...}}, ...}.
local function read(keys, args)
  local left, answer, empty = 0, {}, {}
  for i = 1, #keys do
    redis.call('XPENDING', keys[i], args[1], '-', '+', 0)
    left = left + tonumber(args[2 + i])
  end
  for pass = 1, 2 do
    for i = 1, #keys do
      local count = pass == 1 and tonumber(args[2 + i]) or left
      if count > 0 and not empty[i] then
        local got = redis.call('XREADGROUP', 'GROUP', args[1], args[2], 'COUNT', count, 'STREAMS', keys[i], '>')
        local entries = got and got[1] and got[1][2] or {}
        empty[i] = #entries < count
        if #entries > 0 then
          left = left - #entries
          answer[#answer + 1] = {i, entries}
        end
      end
    end
  end
  return answer
end

-- KEYS: queue, stats. ARGV: group, entry ids. Answers how many were removed: still there, and wanted by no other group.
local function acknowledge(keys, args)
  redis.call('HLEN', keys[2])
  redis.call('XACK', keys[1], unpack(args))
  local removed = drop(keys[1], args[1], {unpack(args, 2)})
  if removed > 0 then redis.call('HINCRBY', keys[2], 'acknowledged', removed) end
  return removed
end

-- Keeps this consumer's entries from being claimed, those that are still its own.
-- KEYS: queue. ARGV: group, consumer, entry ids. Answers how many were.
local function renew(keys, args)
  local kept = 0
  for i = 3, #args do
    if #redis.call('XPENDING', keys[1], args[1], args[i], args[i], 1, args[2]) > 0 then
      kept = kept + #redis.call('XCLAIM', keys[1], args[1], args[2], 0, args[i], 'JUSTID')
    end
  end
  return kept
end

-- Takes over the oldest entry whose consumer has not renewed it for the lease, one at a time, so
-- that an entry which kills its consumer is retried alone. Who asks shows that it lives (see forget).
-- KEYS: queue, stats. ARGV: group, consumer, lease in ms. Answers {id, {field, value}, deliveries} or nothing.
local function claim(keys, args)
  redis.call('HLEN', keys[2])
  while true do
    local pending = redis.call('XPENDING', keys[1], args[1], 'IDLE', args[3], '-', '+', 1)
    if #pending == 0 then
      -- Redis 7.0 notices a consumer only when it gets an entry or asks for its own history.
      redis.call('XREADGROUP', 'GROUP', args[1], args[2], 'COUNT', 1, 'STREAMS', keys[1], HISTORY_END)
      return nil
    end
    local id, deliveries = pending[1][1], pending[1][4]
    local entries = redis.call('XCLAIM', keys[1], args[1], args[2], 0, id)
    if #entries > 0 and entries[1] then
      redis.call('HINCRBY', keys[2], 'claimed', 1)
      return {id, entries[1][2], deliveries + 1}
    end
    redis.call('XACK', keys[1], args[1], id) -- deleted while pending: nothing is left to do for it
  end
end

-- KEYS: queue, stats, dead letters. ARGV: queueId, group, entry id, cause, deliveries.
-- Answers the dead letter's id, or nothing when the entry was gone.
local function dead_letter(keys, args)
  redis.call('HLEN', keys[2])
  local entries = redis.call('XRANGE', keys[1], args[3], args[3])
  if #entries == 0 then return nil end
  local letter = redis.call('XADD', keys[3], '*', 'm', entries[1][2][2], 'queueId', args[1],
    'entryId', args[3], 'cause', args[4], 'deliveries', args[5], 'group', args[2])
  redis.call('XACK', keys[1], args[2], args[3])
  drop(keys[1], args[2], {args[3]})
  redis.call('HINCRBY', keys[2], 'deadLettered', 1)
  return letter
end

-- Appends a dead letter's message to its queue again. KEYS: queue, meta, stats, dead letters. ARGV: letter id.
-- Answers as publish, or nothing when there is no such letter.
local function requeue(keys, args)
  redis.call('XLEN', keys[1])
  redis.call('HLEN', keys[3])
  local letter = redis.call('XRANGE', keys[4], args[1], args[1])[1]
  if not letter then return nil end
  local taken = publish(keys, {letter[2][2]})
  if taken == 1 then redis.call('XDEL', keys[4], args[1]) end
  return taken
end

-- Removes entries that nobody read within the queue's expireTime; a job becomes a dead letter.
-- KEYS: queue, meta, stats, dead letters. ARGV: queueId, group, keep (1 or 0), at most.
-- Answers how many; none where Redis has lost the queue.
local function expire(keys, args)
  redis.call('HLEN', keys[3])
  local seconds = tonumber(redis.call('HGET', keys[2], 'expireTime'))
  if not seconds then return 0 end
  local read_up_to
  for _, group in ipairs(redis.pcall('XINFO', 'GROUPS', keys[1])) do
    local named = fields(group)
    if named['name'] == args[2] then read_up_to = named['last-delivered-id'] end
  end
  if not read_up_to then return 0 end
  local oldest_ms = string.format('%.0f', now_ms() - seconds * 1000)
  local entries = redis.call('XRANGE', keys[1], '(' .. read_up_to, oldest_ms, 'COUNT', args[4])
  local ids = {}
  for i, entry in ipairs(entries) do
    if args[3] == '1' then
      redis.call('XADD', keys[4], '*', 'm', entry[2][2], 'queueId', args[1], 'entryId', entry[1],
        'cause', 'EXPIRED', 'deliveries', 0, 'group', args[2])
    end
    ids[i] = entry[1]
  end
  if #ids > 0 then
    redis.call('XGROUP', 'SETID', keys[1], args[2], ids[#ids])
    drop(keys[1], args[2], ids)
    redis.call('HINCRBY', keys[3], 'expired', #ids)
  end
  return #entries
end

-- Forgets a consumer that has nothing pending. KEYS: queue. ARGV: group, consumer.
-- Answers 1 when it is forgotten, 0 while it still holds entries.
local function leave(keys, args)
  if #redis.call('XPENDING', keys[1], args[1], '-', '+', 1, args[2]) > 0 then return 0 end
  redis.call('XGROUP', 'DELCONSUMER', keys[1], args[1], args[2])
  return 1
end

-- Forgets the consumers that asked for nothing in a time and hold nothing: the dead, once claimed from.
-- KEYS: queue. ARGV: group, ms. Answers how many; none where Redis has lost the queue.
local function forget(keys, args)
  local gone = 0
  for _, consumer in ipairs(redis.pcall('XINFO', 'CONSUMERS', keys[1], args[1])) do
    local named = fields(consumer)
    if named['pending'] == 0 and named['idle'] > tonumber(args[2]) then
      redis.call('XGROUP', 'DELCONSUMER', keys[1], args[1], named['name'])
      gone = gone + 1
    end
  end
  return gone
end

redis.register_function('queue_create_@VERSION@', create)
redis.register_function('queue_publish_@VERSION@', publish)
redis.register_function('queue_requeue_@VERSION@', requeue)

-- What empties a queue must go on when Redis is out of memory: nothing else makes room again.
local function register_emptying(name, callback)
  redis.register_function{
    function_name = name .. '_@VERSION@', callback = callback, flags = {'allow-oom'},
  }
end

register_emptying('queue_delete', delete)
register_emptying('queue_read', read)
register_emptying('queue_acknowledge', acknowledge)
register_emptying('queue_renew', renew)
register_emptying('queue_claim', claim)
register_emptying('queue_dead_letter', dead_letter)
register_emptying('queue_expire', expire)
register_emptying('queue_leave', leave)
register_emptying('queue_forget', forget)
