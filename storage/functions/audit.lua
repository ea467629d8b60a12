#!lua name=lobbyd_audit_@VERSION@
-- The beginning of every library that writes down who did what: the bounded list that people look at, and the stream
-- of what is still to be written to SQL. Texts come escaped from storage/audit.py: a field holds no '|', and nothing
-- that does not print.

local MOST_AUDITED = 10000

-- The ISO time of Redis' clock, to the second, and the µs beyond it. The calendar is "days_from_civil" reversed
-- (https://howardhinnant.github.io/date_algorithms.html#civil_from_days).
local function iso_time()
  local time = redis.call('TIME')
  local seconds = tonumber(time[1])
  local days = math.floor(seconds / 86400) + 719468
  local era = math.floor(days / 146097)
  local of_era = days - era * 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524)
    - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * of_year + 2) / 153)
  local day = of_year - math.floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  year = year + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d', year, month, day,
    math.floor(seconds / 3600) % 24, math.floor(seconds / 60) % 60, seconds % 60), tonumber(time[2])
end

local AUDIT_FIELDS = {'who', 'action', 'resource', 'result', 'policy', 'reason'}

local function show(logs, at, entry)
  redis.call('LPUSH', logs, at .. '|' .. table.concat(entry, '|', 1, 5))
  redis.call('LTRIM', logs, 0, MOST_AUDITED - 1)
end

-- Writes down what was decided, done or refused. `entry` has the texts of AUDIT_FIELDS, in that order.
local function audit(logs, pending, at, entry)
  show(logs, at, entry)
  local fields = {}
  for i, name in ipairs(AUDIT_FIELDS) do
    fields[#fields + 1] = name
    fields[#fields + 1] = entry[i]
  end
  redis.call('XADD', pending, '*', unpack(fields))
end

-- The same for what is decided of players, which must not fill the memory while SQL is away: where as many are pending
-- as may be, it is shown and counted as lost to SQL.
local function audit_within(most, lost, logs, pending, at, entry)
  if redis.call('XLEN', pending) < most then return audit(logs, pending, at, entry) end
  show(logs, at, entry)
  redis.call('INCR', lost)
end

-- KEYS: log, pending, lost. ARGV: entries that may be pending, 'write', 'refuse' or 'count' for what becomes of more,
-- then six texts for each entry. Answers 1, or 0 where they are refused.
redis.register_function('audit_append_@VERSION@', function(keys, args)
  redis.call('LLEN', keys[1]) -- of another type, they refuse before anything is written
  local pending, most = redis.call('XLEN', keys[2]), tonumber(args[1])
  redis.call('STRLEN', keys[3])
  if args[2] == 'refuse' and pending >= most then return 0 end
  if args[2] ~= 'count' then most = math.huge end
  local at = iso_time() .. 'Z'
  for first = 3, #args, 6 do
    audit_within(most, keys[3], keys[1], keys[2], at, {unpack(args, first, first + 5)})
  end
  return 1
end)

-- KEYS: pending. ARGV: entries at most. Answers the oldest: of each its id and its fields, names and texts in turn.
redis.register_function('audit_read_@VERSION@', function(keys, args)
  return redis.call('XRANGE', keys[1], '-', '+', 'COUNT', args[1])
end)
