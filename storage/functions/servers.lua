#!lua name=lobbyd_servers_@VERSION@
-- The lease by which one live process at a time bears a server id.

-- KEYS: lease. ARGV: own value, ms, the value of a holder known to be dead or ''.
-- Answers nothing when the lease is the caller's now, else the value of the one who holds it.
local function claim(keys, args)
  local holder = redis.call('GET', keys[1])
  if holder and holder ~= args[1] and holder ~= args[3] then return holder end
  redis.call('SET', keys[1], args[1], 'PX', args[2])
  return nil
end

-- A lease that Redis has lost is taken again. KEYS: lease. ARGV: own value, ms. Answers 1, or 0 when another has it.
local function renew(keys, args)
  local holder = redis.call('GET', keys[1])
  if holder and holder ~= args[1] then return 0 end
  redis.call('SET', keys[1], args[1], 'PX', args[2])
  return 1
end

-- KEYS: lease. ARGV: own value. Answers 1 when it was the caller's.
local function release(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then return 0 end
  return redis.call('DEL', keys[1])
end

redis.register_function('server_claim_@VERSION@', claim)
redis.register_function('server_renew_@VERSION@', renew)
redis.register_function('server_release_@VERSION@', release)
