#!lua name=lobbyd_logins_@VERSION@
-- Failed logins, counted by account and address, by address and by account, each in a period that begins with the
-- first; and where accounts have logged in from before. Addresses and devices come as keyed hashes. Every function
-- reads all that it needs before its first write.

-- Refuse a key of another type, as Redis does when asked for a length. Called before the first write, since Lua
-- never rolls back.
local LENGTH = {string = 'STRLEN', hash = 'HLEN'}
local function register(name, kinds, f)
  redis.register_function(name .. '_@VERSION@', function(keys, args)
    for i, kind in ipairs(kinds) do redis.call(LENGTH[kind], keys[i]) end
    return f(keys, args)
  end)
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

-- What is known before a password is looked at.
-- KEYS: failures of the account from this address, of this address, of the account; places of the account.
-- ARGV: how many of the first may be, how many of the second, the fields of the address and of the device.
-- Answers ms to wait or 0, failures of the account, ms until these are forgotten, and the ms since the address and
-- the device were seen, -1 for never.
local function look(keys, args)
  local now, wait = now_ms(), 0
  for i = 1, 2 do
    if tonumber(redis.call('GET', keys[i]) or 0) >= tonumber(args[i]) then
      wait = math.max(wait, 1, redis.call('PTTL', keys[i]))
    end
  end
  local seen = redis.call('HMGET', keys[4], args[3], args[4])
  return {wait, tonumber(redis.call('GET', keys[3]) or 0), math.max(0, redis.call('PTTL', keys[3])),
    seen[1] and math.max(0, now - seen[1]) or -1, seen[2] and math.max(0, now - seen[2]) or -1}
end

local function count(key, period_ms)
  local number = redis.call('INCR', key)
  if number == 1 then redis.call('PEXPIRE', key, period_ms) end
  return number
end

-- Counts one failure; on the account only one that was let through, since no other has told its sender anything.
-- KEYS: failures of the account from this address, of this address, of the account. ARGV: how many of the first may
-- be, how many of the second, then the three periods in ms.
-- Answers 0, or the ms to wait when it was one too many: of any number at once no more than may be get 0.
local function fail(keys, args)
  local wait = 0
  for i = 1, 2 do
    if count(keys[i], args[i + 2]) > tonumber(args[i]) then wait = math.max(wait, 1, redis.call('PTTL', keys[i])) end
  end
  if wait == 0 then count(keys[3], args[5]) end
  return wait
end

-- Notes where an account has logged in from, and forgets the longest unseen of a kind where there are too many.
-- KEYS: places of the account. ARGV: ms to keep them, how many of a kind, the kinds' prefixes by commas, the fields.
local function remember(keys, args)
  local now = whole(now_ms())
  for i = 4, #args do redis.call('HSET', keys[1], args[i], now) end
  local all = redis.call('HGETALL', keys[1])
  for prefix in string.gmatch(args[3], '[^,]+') do
    local seen = {}
    for i = 1, #all, 2 do
      if string.sub(all[i], 1, #prefix) == prefix then seen[#seen + 1] = {all[i], tonumber(all[i + 1])} end
    end
    table.sort(seen, function(a, b) return a[2] > b[2] end)
    for i = tonumber(args[2]) + 1, #seen do redis.call('HDEL', keys[1], seen[i][1]) end
  end
  redis.call('PEXPIRE', keys[1], args[1])
end

register('login_look', {'string', 'string', 'string', 'hash'}, look)
register('login_fail', {'string', 'string', 'string'}, fail)
register('login_remember', {'hash'}, remember)
