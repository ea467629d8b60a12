-- Facts that are announced in the very step that makes them true. It goes on where standing.lua, in the same library,
-- ends. Who has listened to the bus, and what is kept for whom, is as queues.lua says of it.

-- Whether the bus takes one more. Answers nothing, or {'no bus'} or {'full'}.
local function refusing(bus, meta)
  local most = tonumber(redis.call('HGET', meta, 'maxSize'))
  if not most then return {'no bus'} end
  if redis.call('XLEN', bus) >= most then return {'full'} end
  return nil
end

-- Announces a fact. Where nobody has ever listened it is only counted.
local function announce(bus, stats, message)
  local is_heard = redis.call('EXISTS', bus) == 1 and #redis.call('XINFO', 'GROUPS', bus) > 0
  redis.call('HINCRBY', stats, is_heard and 'published' or 'unheard', 1)
  if is_heard then redis.call('XADD', bus, '*', 'm', message) end
end
