-- An operator asks one process to end. What is asked names the very life of the process that bears the id now, so that
-- it says nothing to the next one. The second file of its library: audit.lua begins it.

-- KEYS: lease, dismissal, audit log, pending. ARGV: ms for which the word holds, operator, server id.
-- Answers the holder of the lease who is to end, or nothing where nobody bears the id.
local function dismiss(keys, args)
  redis.call('LLEN', keys[3])
  redis.call('XLEN', keys[4])
  local holder = redis.call('GET', keys[1])
  if not holder then return nil end
  redis.call('SET', keys[2], holder, 'PX', args[1])
  audit(keys[3], keys[4], iso_time() .. 'Z',
    {args[2], 'server:drain', 'server:' .. args[3], 'ALLOWED', 'lobbyctl', ''})
  return holder
end

redis.register_function('server_dismiss_@VERSION@', dismiss)
