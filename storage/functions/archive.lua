-- What the database knows of tasks, and gives back to a Redis that has lost some: it goes on where tasks.lua, in the same
-- library, ends.

-- KEYS: the run that has the open tasks. Answers the id of this run of Redis, or '' where it is that one.
local function run_without(keys)
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  return redis.call('GET', keys[1]) == run and '' or run
end

-- Gives tasks back that a Redis which lost them had accepted: no limit refuses them, and those that are here are left.
-- KEYS: queue, stats, order, shares, pace. ARGV: task prefix, user's tasks prefix, type, then for each task eight: id,
-- user id, lane, cost, message, created ms, its bytes or '' where all have come, and how many of them have.
-- Answers 1 for each that is back, else 0.
local function restore(keys, args)
  local line, answers = {queue = keys[1], order = keys[3], shares = keys[4], pace = keys[5]}, {}
  for i = 4, #args, 8 do
    local task = {id = args[i], user = args[i + 1], lane = args[i + 2], cost = tonumber(args[i + 3]), message = args[i + 4]}
    local name, is_lost = args[1] .. task.id, 0
    if redis.call('EXISTS', name) == 0 then
      is_lost = 1
      redis.call('HSET', name, 'status', 'pending', 'user_id', task.user, 'task_type', args[3], 'priority', task.lane,
        'created_at', args[i + 5], 'progress', 0)
      if args[i + 6] == '' then
        redis.call('HSET', name, 'entry', enqueue(line, task))
        redis.call('HINCRBY', keys[2], 'published', 1)
      else
        redis.call('HSET', name, 'held', task.message, 'size', args[i + 6], 'offset', args[i + 7])
      end
      redis.call('SADD', args[2] .. task.user, task.id)
    end
    answers[#answers + 1] = is_lost
  end
  return answers
end

-- Tasks that changed since they were written to the database, the oldest changes first.
-- KEYS: unsaved. ARGV: task prefix, queue prefix, most, most bytes of messages.
-- Answers {{id, fields, message or ''}...}, and how many changes these are.
local function unsaved(keys, args)
  local answers, seen, bytes, changes = {}, {}, 0, 0
  for _, id in ipairs(redis.call('LRANGE', keys[1], 0, args[3] - 1)) do
    changes = changes + 1
    if not seen[id] then
      seen[id] = true
      local fields, named, message = redis.call('HGETALL', args[1] .. id), {}, ''
      for at = 1, #fields, 2 do named[fields[at]] = fields[at + 1] end
      if named.held then
        message = named.held
      elseif named.entry and (named.status == 'pending' or named.status == 'processing') then
        local entry = redis.call('XRANGE', args[2] .. named.task_type, named.entry, named.entry)[1]
        message = entry and entry[2][2] or ''
      end
      bytes = bytes + #message
      answers[#answers + 1] = {id, fields, message}
      if bytes > tonumber(args[4]) then break end
    end
  end
  return {answers, changes}
end

-- Forgets the oldest changes, which are written: for who has the lease still. Else another is at the same ones.
-- KEYS: unsaved, lease. ARGV: who asks, how many changes.
local function saved(keys, args)
  if redis.call('GET', keys[2]) == args[1] then redis.call('LTRIM', keys[1], args[2], -1) end
end

register('task_run_without', {'string'}, run_without)
register('task_restore', {'stream', 'hash', 'zset', 'zset', 'hash'}, restore)
register('task_unsaved', {'list'}, unsaved)
register('task_saved', {'list', 'string'}, saved, EMPTYING)
