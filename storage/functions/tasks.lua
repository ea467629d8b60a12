#!lua name=lobbyd_tasks_@VERSION@
-- Slow work: every change of a task's life is one function here, for many tasks at once where there can be many.
--
-- An accepted task is an entry of its kind's queue (a stream: fields m message, t task id, u user id) from its
-- submission to its end, so the queue's length is its backlog. The order in which tasks are taken is a sorted set of
-- entry ids beside it. Who works on a task has it pending in the queue's group, and that is its lease.
--
-- The order is weighted fair queueing (Demers, Keshav, Shenker 1989): each user has a share in each lane. A task's turn
-- is the share's last turn, or the clock where that has gone on, plus 1 / the lane's weight; the clock is the turn of
-- the task taken last. So a user's first task is never behind another's thousandth, and no lane starves.

local GROUP = 'lobbyd'
local MEAN_SHARE = 0.1 -- of the newest durations in the mean, a call

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function whole(number)
  return string.format('%.0f', number)
end

local function exact(number)
  return string.format('%.17g', number)
end

-- Refuses a key of another type, as Redis does when asked for a length. Called before the first write, since Lua
-- never rolls back.
local LENGTH = {string = 'STRLEN', hash = 'HLEN', list = 'LLEN', set = 'SCARD', zset = 'ZCARD', stream = 'XLEN'}

-- Registers a function whose KEYS have these types. What ends tasks must go on when Redis is out of memory.
local function register(name, kinds, f, flags)
  redis.register_function{
    function_name = name .. '_@VERSION@', flags = flags or {},
    callback = function(keys, args)
      for i, kind in ipairs(kinds) do redis.call(LENGTH[kind], keys[i]) end
      return f(keys, args)
    end,
  }
end

-- The clock of a kind's order, and the mean duration of its tasks in ms or nothing.
local function pace_of(pace)
  local was = redis.call('HMGET', pace, 'clock', 'meanMs')
  return tonumber(was[1] or 0), tonumber(was[2] or nil)
end

-- What is added to keys of many names, to be written with one command each.
local function gather(into, name, value)
  local list = into[name]
  if list then list[#list + 1] = value else into[name] = {value} end
end

-- The next turn of a user's share in a lane; `shares` are those that were read before in this call.
local function next_turn(shares, key, clock, task)
  local share = task.user .. '\n' .. task.lane
  local last = shares[share] or tonumber(redis.call('ZSCORE', key, share) or 0)
  local turn = math.max(clock, last) + task.cost
  shares[share] = turn
  return turn
end

-- Puts one task into the queue and the order. Answers its entry id.
local function enqueue(keys, task)
  local turn = exact(next_turn({}, keys.shares, pace_of(keys.pace), task))
  local entry = redis.call('XADD', keys.queue, '*', 'm', task.message, 't', task.id, 'u', task.user)
  redis.call('ZADD', keys.order, turn, entry)
  redis.call('ZADD', keys.shares, turn, task.user .. '\n' .. task.lane)
  redis.call('HSET', keys.pace, 'last', entry)
  return entry
end

-- Accepts tasks, as many as there is room for; a request whose record is known is answered as it was then.
-- KEYS: queue, meta, stats, order, shares, pace, unsaved. ARGV: task prefix, user's tasks prefix, most open tasks of a
-- user, mean ms where nothing is known, type, then for each task eight: id, user id, lane, cost, message, record or '',
-- record ttl ms, bytes to come or '' (then it is held back until they are there).
-- Answers for each {id, created ms, ms at which it should be completed}, {'full'} or {'many'}; {} without a queue.
local function submit(keys, args)
  local most_entries = tonumber(redis.call('HGET', keys[2], 'maxSize'))
  if not most_entries then return {} end
  local now_ms, length, taken, refused = math.floor(now_us() / 1000), redis.call('XLEN', keys[1]), 0, 0
  local clock, mean = pace_of(keys[6])
  mean = mean or tonumber(args[4])
  local slots = math.max(1, redis.call('XPENDING', keys[1], GROUP)[1])
  local created, most_open, shares, order, changed = whole(now_ms), tonumber(args[3]), {}, {}, {}
  local answers, of_users, open, earlier, last = {}, {}, {}, {}, nil
  for i = 6, #args, 8 do
    local task = {id = args[i], user = args[i + 1], lane = args[i + 2], cost = tonumber(args[i + 3])}
    local record, of_user = args[i + 5], args[2] .. task.user
    open[of_user] = open[of_user] or redis.call('SCARD', of_user)
    local known = record ~= '' and redis.call('GET', record)
    if known then
      answers[#answers + 1] = cjson.decode(known)
    elseif open[of_user] >= most_open then
      answers[#answers + 1] = {'many'}
    elseif length + taken >= most_entries then
      answers[#answers + 1], refused = {'full'}, refused + 1
    else
      local ahead, name = 0, args[1] .. task.id
      if args[i + 7] == '' then
        local turn = exact(next_turn(shares, keys[5], clock, task))
        earlier[turn] = earlier[turn] or redis.call('ZCOUNT', keys[4], '-inf', '(' .. turn)
        ahead, taken = earlier[turn], taken + 1
        last = redis.call('XADD', keys[1], '*', 'm', args[i + 4], 't', task.id, 'u', task.user)
        order[#order + 1], order[#order + 2] = turn, last
        redis.call('HSET', name, 'status', 'pending', 'user_id', task.user, 'task_type', args[5], 'priority', task.lane,
          'created_at', created, 'progress', 0, 'entry', last)
      else
        redis.call('HSET', name, 'status', 'pending', 'user_id', task.user, 'task_type', args[5], 'priority', task.lane,
          'created_at', created, 'progress', 0, 'held', args[i + 4], 'size', args[i + 7], 'offset', 0)
      end
      local answer = {task.id, now_ms, math.ceil(now_ms + mean * (1 + ahead / slots))}
      if record ~= '' then redis.call('SET', record, cjson.encode(answer), 'PX', args[i + 6]) end
      open[of_user] = open[of_user] + 1
      gather(of_users, of_user, task.id)
      answers[#answers + 1], changed[#changed + 1] = answer, task.id
    end
  end
  for of_user, ids in pairs(of_users) do redis.call('SADD', of_user, unpack(ids)) end
  if #changed > 0 then redis.call('RPUSH', keys[7], unpack(changed)) end
  if taken > 0 then
    redis.call('ZADD', keys[4], unpack(order))
    for share, turn in pairs(shares) do redis.call('ZADD', keys[5], exact(turn), share) end
    redis.call('HSET', keys[6], 'last', last)
    redis.call('HINCRBY', keys[3], 'published', taken)
  end
  if refused > 0 then redis.call('HINCRBY', keys[3], 'refused', refused) end
  return answers
end

-- Puts the tasks whose pause is over back into the order, next in line.
local function wake(delayed, order, clock, now_ms)
  local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now_ms, 'LIMIT', 0, 100)
  if #due == 0 then return end
  for _, entry in ipairs(due) do redis.call('ZADD', order, exact(clock), entry) end
  redis.call('ZREM', delayed, unpack(due))
end

-- Gives the next tasks in order to a consumer.
-- KEYS: queue, order, delayed, pace, shares. ARGV: consumer, most, task prefix.
-- Answers {{entry id, fields}...}, the ms until a pause is over or -1, and the newest entry id there has been.
local function take(keys, args)
  redis.call('XPENDING', keys[1], GROUP) -- where the group is lost, this refuses before anything is written
  local now_ms = math.floor(now_us() / 1000)
  local clock = pace_of(keys[4])
  wake(keys[3], keys[2], clock, now_ms)
  local popped, ids = redis.call('ZPOPMIN', keys[2], args[2]), {}
  for i = 1, #popped, 2 do ids[#ids + 1] = popped[i] end
  local entries = {}
  if #ids > 0 then
    redis.call('HSET', keys[4], 'clock', popped[#popped])
    redis.call('ZREMRANGEBYSCORE', keys[5], '-inf', popped[#popped])
    ids[#ids + 1], ids[#ids + 2], ids[#ids + 3] = 'FORCE', 'RETRYCOUNT', 1
    entries = redis.call('XCLAIM', keys[1], GROUP, args[1], 0, unpack(ids))
    for _, entry in ipairs(entries) do redis.call('HSET', args[3] .. entry[2][4], 'status', 'processing') end
  end
  local next_due, wait_ms = redis.call('ZRANGE', keys[3], 0, 0, 'WITHSCORES')[2], -1
  if next_due then wait_ms = math.max(0, tonumber(next_due) - now_ms) end
  return {entries, wait_ms, redis.call('HGET', keys[4], 'last') or '0-0'}
end

-- Removes entries of tasks that are over.
local function remove(queue, stats, entries)
  if #entries == 0 then return end
  redis.call('XACK', queue, GROUP, unpack(entries))
  redis.call('HINCRBY', stats, 'acknowledged', redis.call('XDEL', queue, unpack(entries)))
end

-- Notes the end of one task, for as long as results are kept.
local function end_task(name, of_user, id, keep_ms, unsaved)
  redis.call('PEXPIRE', name, keep_ms)
  redis.call('SREM', of_user, id)
  redis.call('RPUSH', unsaved, id)
end

-- Ends tasks with their results; the first end of a task is the one that counts.
-- KEYS: queue, stats, pace, unsaved. ARGV: task prefix, user's tasks prefix, keep ms, then for each task seven: entry
-- id, id, user id, status, result, error, duration ms. Answers 1 for each that this call has ended, else 0.
local function finish(keys, args)
  local ended, answers, entries, changed = whole(now_us() / 1000), {}, {}, {}
  local total, count, of_users = 0, 0, {}
  for i = 4, #args, 7 do
    local id, name, status = args[i + 1], args[1] .. args[i + 1], args[i + 3]
    local counts = redis.call('HGET', name, 'status') == 'processing'
    if counts then
      if status == 'completed' then
        redis.call('HSET', name, 'status', status, 'result', args[i + 4], 'progress', 100, 'finished_at', ended)
        total, count = total + tonumber(args[i + 6]), count + 1
      else
        redis.call('HSET', name, 'status', status, 'error', args[i + 5], 'finished_at', ended)
      end
      redis.call('PEXPIRE', name, args[3])
      gather(of_users, args[2] .. args[i + 2], id)
      changed[#changed + 1] = id
    end
    entries[#entries + 1], answers[#answers + 1] = args[i], counts and 1 or 0
  end
  for of_user, ids in pairs(of_users) do redis.call('SREM', of_user, unpack(ids)) end
  if count > 0 then
    local _, mean = pace_of(keys[3])
    local newest = total / count
    redis.call('HSET', keys[3], 'meanMs', exact(mean and mean + (newest - mean) * MEAN_SHARE or newest))
  end
  remove(keys[1], keys[2], entries)
  if #changed > 0 then redis.call('RPUSH', keys[4], unpack(changed)) end
  return answers
end

-- Gives up on a task: it fails, and its entry becomes a dead letter.
local function bury(keys, args, name, entry)
  local letter = redis.call('XADD', keys[4], '*', 'm', entry[2][2], 'queueId', keys[1], 'entryId', entry[1],
    'cause', args[7], 'deliveries', args[8], 't', args[5], 'u', entry[2][6])
  redis.call('HSET', name, 'status', 'failed', 'error', args[7], 'finished_at', whole(now_us() / 1000), 'letter', letter)
  end_task(name, args[2] .. entry[2][6], args[5], args[3], keys[5])
  remove(keys[1], keys[2], {entry[1]})
  redis.call('HINCRBY', keys[2], 'deadLettered', 1)
end

-- Tries a task that failed again after a pause, or gives up on it.
-- KEYS: queue, stats, delayed, dead letters, unsaved. ARGV: task prefix, user's tasks prefix, keep ms, entry id, id,
-- tries that are left besides those made (counted from 0) or -1 to give up now, cause, deliveries, pause ms.
-- Answers 'again', 'dead', or 'gone' where the task is over.
local function fail(keys, args)
  local name = args[1] .. args[5]
  local entry = redis.call('XRANGE', keys[1], args[4], args[4])[1]
  local was = redis.call('HMGET', name, 'status', 'attempts')
  if not entry or was[1] ~= 'processing' then
    remove(keys[1], keys[2], {args[4]})
    return 'gone'
  end
  local attempts = tonumber(was[2] or 0)
  if attempts >= tonumber(args[6]) then
    bury(keys, args, name, entry)
    return 'dead'
  end
  redis.call('HSET', name, 'status', 'pending', 'progress', 0, 'error', args[7],
    'attempts', attempts + 1)
  redis.call('XACK', keys[1], GROUP, args[4])
  redis.call('ZADD', keys[3], whole(math.floor(now_us() / 1000) + args[9]), args[4])
  return 'again'
end

-- Keeps this consumer's tasks from being claimed. KEYS: queue. ARGV: consumer, entry ids.
-- Answers the ids of those that are not its own any more: cancelled, ended by another, claimed or lost with the group.
local function renew(keys, args)
  local lost = {}
  for i = 2, #args do
    local pending = redis.pcall('XPENDING', keys[1], GROUP, args[i], args[i], 1, args[1])
    if not pending.err and #pending > 0 then
      redis.call('XCLAIM', keys[1], GROUP, args[1], 0, args[i], 'JUSTID')
    else
      lost[#lost + 1] = args[i]
    end
  end
  return lost
end

-- Gives tasks that were begun back: they are the next in line. KEYS: queue, order, pace. ARGV: consumer, task prefix,
-- entry ids. Answers those that were this consumer's.
local function hand_back(keys, args)
  local clock, given = pace_of(keys[3]), {}
  for i = 3, #args do
    local entry = redis.call('XRANGE', keys[1], args[i], args[i])[1]
    if entry and #redis.call('XPENDING', keys[1], GROUP, args[i], args[i], 1, args[1]) > 0 then
      redis.call('XACK', keys[1], GROUP, args[i])
      redis.call('ZADD', keys[2], exact(clock), args[i])
      redis.call('HSET', args[2] .. entry[2][4], 'status', 'pending', 'progress', 0)
      given[#given + 1] = args[i]
    end
  end
  return given
end

-- KEYS: none. ARGV: task prefix, then id and percent by turns. Answers 1 for each that is news, else 0.
local function progress(_, args)
  local answers = {}
  for i = 2, #args, 2 do
    local was = redis.call('HMGET', args[1] .. args[i], 'status', 'progress')
    local is_news = was[1] == 'processing' and tonumber(args[i + 1]) ~= tonumber(was[2])
    if is_news then redis.call('HSET', args[1] .. args[i], 'progress', args[i + 1]) end
    answers[#answers + 1] = is_news and 1 or 0
  end
  return answers
end

-- Cancels a task that is not over; who works on it learns so with the next renewal.
-- KEYS: task, user's tasks, queue, stats, order, delayed, unsaved, record. ARGV: id, user id or '' for any, keep ms,
-- record ttl ms. Answers 'missing', 'finished' or 'cancelled'.
local function cancel(keys, args)
  local before = redis.call('GET', keys[8])
  if before then return before end
  local was = redis.call('HMGET', keys[1], 'status', 'user_id', 'entry')
  if not was[1] or (args[2] ~= '' and was[2] ~= args[2]) then return 'missing' end
  if was[1] ~= 'pending' and was[1] ~= 'processing' then return 'finished' end
  redis.call('HSET', keys[1], 'status', 'cancelled', 'finished_at', whole(now_us() / 1000))
  redis.call('HDEL', keys[1], 'held')
  if was[3] then
    redis.call('ZREM', keys[5], was[3])
    redis.call('ZREM', keys[6], was[3])
    remove(keys[3], keys[4], {was[3]})
  end
  end_task(keys[1], keys[2], args[1], args[3], keys[7])
  redis.call('SET', keys[8], 'cancelled', 'PX', args[4])
  return 'cancelled'
end

-- Notes that bytes of a held task have come; once all have, the task is accepted for work.
-- KEYS: task, queue, stats, order, shares, pace, unsaved. ARGV: id, user id or '' for any, offset, length, cost.
-- Answers {'missing'}, {'finished'}, {'offset', the right one} or {'taken', offset, 1 when complete}.
local function advance(keys, args)
  local was = redis.call('HMGET', keys[1], 'status', 'user_id', 'held', 'size', 'offset', 'priority', 'last')
  if not was[1] or not was[4] or (args[2] ~= '' and was[2] ~= args[2]) then return {'missing'} end
  local offset = tonumber(args[3]) + tonumber(args[4])
  if was[1] == 'cancelled' then return {'finished'} end
  -- Who asks again for what was taken last gets the same answer: the first may have been lost.
  if whole(offset) == was[5] and args[3] == was[7] then return {'taken', offset, was[3] and 0 or 1} end
  if not was[3] then return {'offset', tonumber(was[5])} end
  if args[3] ~= was[5] or offset > tonumber(was[4]) then return {'offset', tonumber(was[5])} end
  redis.call('HSET', keys[1], 'offset', whole(offset), 'last', args[3])
  if offset < tonumber(was[4]) then return {'taken', offset, 0} end
  local task = {id = args[1], user = was[2], lane = was[6], cost = tonumber(args[5]), message = was[3]}
  local line = {queue = keys[2], order = keys[4], shares = keys[5], pace = keys[6]}
  local entry = enqueue(line, task)
  redis.call('HSET', keys[1], 'entry', entry)
  redis.call('HDEL', keys[1], 'held')
  redis.call('HINCRBY', keys[3], 'published', 1)
  redis.call('RPUSH', keys[7], args[1])
  return {'taken', offset, 1}
end

-- Works on a dead letter again, as if its task had just been submitted.
-- KEYS: queue, stats, order, shares, pace, unsaved, dead letters. ARGV: task prefix, user's tasks prefix, letter id,
-- cost. Answers its task's id, or nothing when there is no such letter.
local function requeue(keys, args)
  local letter = redis.call('XRANGE', keys[7], args[3], args[3])[1]
  if not letter then return nil end
  local fields = {}
  for i = 1, #letter[2], 2 do fields[letter[2][i]] = letter[2][i + 1] end
  local name = args[1] .. fields.t
  local lane = redis.call('HGET', name, 'priority') or 'normal'
  local task = {id = fields.t, user = fields.u, lane = lane, cost = tonumber(args[4]), message = fields.m}
  local line = {queue = keys[1], order = keys[3], shares = keys[4], pace = keys[5]}
  local entry = enqueue(line, task)
  redis.call('HDEL', name, 'error', 'attempts', 'letter', 'finished_at')
  redis.call('HSET', name, 'status', 'pending', 'progress', 0, 'entry', entry, 'user_id', fields.u,
    'task_type', string.match(keys[1], ':([^:]+)$'), 'priority', lane)
  redis.call('HSETNX', name, 'created_at', whole(now_us() / 1000))
  redis.call('PERSIST', name)
  redis.call('SADD', args[2] .. fields.u, fields.t)
  redis.call('HINCRBY', keys[2], 'published', 1)
  redis.call('RPUSH', keys[6], fields.t)
  redis.call('XDEL', keys[7], args[3])
  return fields.t
end

local EMPTYING = {'allow-oom'}

register('task_submit', {'stream', 'hash', 'hash', 'zset', 'zset', 'hash', 'list'}, submit)
register('task_take', {'stream', 'zset', 'zset', 'hash', 'zset'}, take, EMPTYING)
register('task_finish', {'stream', 'hash', 'hash', 'list'}, finish, EMPTYING)
register('task_fail', {'stream', 'hash', 'zset', 'stream', 'list'}, fail, EMPTYING)
register('task_renew', {'stream'}, renew, EMPTYING)
register('task_hand_back', {'stream', 'zset', 'hash'}, hand_back, EMPTYING)
register('task_progress', {}, progress, EMPTYING)
register('task_cancel', {'hash', 'set', 'stream', 'hash', 'zset', 'zset', 'list', 'string'}, cancel, EMPTYING)
register('task_advance', {'hash', 'stream', 'hash', 'zset', 'zset', 'hash', 'list'}, advance)
register('task_requeue', {'stream', 'hash', 'zset', 'zset', 'hash', 'list', 'stream'}, requeue)
