-- How many are let in a minute: what configuration says, what operators said over it, and what follows. The hash
-- of the settings holds
--   admitRate, podCount   as configured, players a minute and pod
--   opensAt               as configured, the ms before which nobody is let in, if any
--   waitFactor            as configured, see order.lua
--   operatorRate          players a minute for all pods together, once an operator has set that
--   paused                '1' while an operator lets nobody in
--   opening, openingAt    the share of the rate while what lies behind the door cannot keep up, and the ms of saying so
--   whyOpening            where that is
--   setBy, setAt          the operator who changed something last, and when
--   totalRate             what follows from these, and with opensAt all that the admission reads: 0 while paused
-- Every function reads all that it needs before its first write. The second file of its library: audit.lua begins it.

-- Refuse a key of another type, as Redis does when asked for a length. Called before the first write, since Lua
-- never rolls back.
local LENGTH = {string = 'STRLEN', hash = 'HLEN', list = 'LLEN', zset = 'ZCARD', stream = 'XLEN'}
local function register(name, kinds, f)
  redis.register_function(name .. '_@VERSION@', function(keys, args)
    for i, kind in ipairs(kinds) do redis.call(LENGTH[kind], keys[i]) end
    return f(keys, args)
  end)
end

local function whole(number)
  return string.format('%.0f', number)
end

-- The rate in force.
local function in_force(rate, paused, opening)
  return paused and '0' or whole(rate * tonumber(opening or 1))
end

-- Writes down what configuration says. It holds unless an operator said something else.
-- KEYS: settings. ARGV: players a minute and pod, pods, wait factor, ms of the opening or 0.
local function configure(keys, args)
  local was = redis.call('HMGET', keys[1], 'operatorRate', 'paused', 'opening')
  local rate = tonumber(was[1] or args[1] * args[2])
  redis.call('HSET', keys[1], 'admitRate', args[1], 'podCount', args[2], 'waitFactor', args[3],
    'totalRate', in_force(rate, was[2] == '1', was[3]))
  if args[4] == '0' then
    redis.call('HDEL', keys[1], 'opensAt')
  else
    redis.call('HSET', keys[1], 'opensAt', args[4])
  end
end

-- Does what an operator says, and tells the audit log. To pause what is paused, or to resume what is not,
-- changes nothing.
-- KEYS: settings, audit log, pending. ARGV: 'rate', 'pause' or 'resume', operator, for 'rate' players a minute or ''
-- for what is configured.
-- Answers 1 or 0 for changed or not, and the rates before and after: for 'rate' those that hold but for a pause, else
-- those in force.
local function change(keys, args)
  local action, operator, at = args[1], args[2], iso_time() .. 'Z'
  local was = redis.call('HMGET', keys[1], 'operatorRate', 'admitRate', 'podCount', 'paused', 'opening')
  local rate, paused = tonumber(was[1] or (was[2] or 0) * (was[3] or 0)), was[4] == '1'
  local before, after = paused and 0 or rate, 0
  if action == 'rate' then
    before, after = rate, tonumber(args[3]) or (was[2] or 0) * (was[3] or 0)
    if args[3] == '' then
      redis.call('HDEL', keys[1], 'operatorRate')
    else
      redis.call('HSET', keys[1], 'operatorRate', args[3])
    end
  elseif (action == 'pause') == paused then
    return {0, whole(before), whole(before)}
  else
    paused = action == 'pause'
    after = paused and 0 or rate
    redis.call('HSET', keys[1], 'paused', paused and '1' or '0')
  end
  redis.call('HSET', keys[1], 'totalRate', in_force(after, paused, was[5]), 'setBy', operator, 'setAt', at)
  local resource = 'queue:portal:' .. whole(before) .. '->' .. whole(after)
  audit(keys[2], keys[3], at, {operator, 'admission:' .. action, resource, 'ALLOWED', 'lobbyctl', ''})
  return {1, whole(before), whole(after)}
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function set_opening(settings, share, why)
  local was = redis.call('HMGET', settings, 'operatorRate', 'admitRate', 'podCount', 'paused')
  local rate = tonumber(was[1] or (was[2] or 0) * (was[3] or 0))
  local total = in_force(rate, was[4] == '1', share)
  redis.call('HSET', settings, 'opening', share, 'openingAt', whole(now_ms()), 'whyOpening', why, 'totalRate', total)
  return total
end

-- Lets in a share of the rate, 1 for all of it. KEYS: settings. ARGV: share, why. Answers the rate in force.
local function open(keys, args)
  return set_opening(keys[1], args[1], args[2])
end

-- The rate in force. A door that was not open opens when nobody has said so again for a time.
-- KEYS: settings. ARGV: that time in ms. Answers the rate, nothing where none is set.
local function current(keys, args)
  local was = redis.call('HMGET', keys[1], 'totalRate', 'opening', 'openingAt')
  if was[1] and tonumber(was[2] or 1) < 1 and tonumber(was[3]) < now_ms() - args[1] then
    return set_opening(keys[1], '1', '')
  end
  return was[1]
end

register('admission_configure', {'hash'}, configure)
register('admission_change', {'hash', 'list', 'stream'}, change)
register('admission_open', {'hash'}, open)
register('admission_current', {'hash'}, current)
