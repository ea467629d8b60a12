-- How fast players may be let in: the clock gives permission, admissions spend it. It goes on where opening.lua, in
-- the same library, ends. The hash of the bucket holds
--   tokens, at   permission at hand, and since when it has been so much: at most what BURST_MS bring, beyond one
--                whole admission
--   owed         permission that came while somebody waited and was not used in time. It is paid back at the rate,
--                beside what the clock gives, so that players come in at twice the rate until it is made good
--   rate         the rate a minute that these are for, '0' while nobody is let in, 'closed' before the opening
--   inWindow     how many were let in within the window, but for those in a place that was given back
--   refunds      places that were given back and are not given on yet
--   turn         see order.lua
-- and what estimates.lua tells waits from.

local WINDOW_MS = 10000           -- in any window of this length no more are admitted than the rate allows
local BURST_MS = 100              -- what a worker that is a little late uses at once
local CATCH_UP_MS = WINDOW_MS / 2 -- at twice the rate a window has no room for more to be made good
local LATE = 1.25                 -- see estimates.lua: taken for true until something is known

-- The state of a bucket at `rate` players a ms, which operators and configuration call `name`; `waited` says
-- whether somebody has waited since it was looked at last. Permission for another rate is not owed.
local function refill(bucket, rate, name, now, waited)
  local was = redis.call('HMGET', bucket, 'tokens', 'at', 'owed', 'rate', 'inWindow', 'refunds', 'turn', 'gone',
    'spent', 'late90', 'rateAt')
  local capacity, came = 1 + rate * BURST_MS, math.max(0, now - (was[2] or now)) * rate
  local tokens, owed, lost = tonumber(was[1] or capacity) + came, 0, 0
  if waited and was[4] == name then
    local paid = math.min(tonumber(was[3]), came)
    tokens = tokens + paid
    owed = was[3] - paid + math.max(0, tokens - capacity)
    lost = math.max(0, owed - rate * CATCH_UP_MS)
  end
  local opened = was[4] == 'closed' and name ~= 'closed'
  return {
    opened = opened, tokens = math.min(capacity, tokens), owed = owed - lost, lost = lost,
    in_window = tonumber(was[5] or 0), refunds = tonumber(was[6] or 0), turn = tonumber(was[7] or 0),
    gone = opened and 0 or tonumber(was[8] or 0), spent = opened and 0 or tonumber(was[9] or 0),
    late = tonumber(was[10] or LATE), rate_at = was[4] == name and tonumber(was[11]) or now,
  }
end

-- How many of the oldest entries have left the window, the admissions that are still in it, and the ms after which the
-- next of them leave.
local function slide(window, in_window, now)
  local left = 0
  while true do
    local ms, count = string.match(redis.call('LINDEX', window, left) or '', '^(%d+):(%d+)$')
    local leaves = tonumber(ms or now) + WINDOW_MS
    if leaves >= now then return left, in_window, leaves - now + 1 end
    left, in_window = left + 1, in_window - tonumber(count)
  end
end

-- How many more the window takes. Where the rate gives it no whole number of players, the last one is let in
-- whole: the bucket holds the rate in the long run.
local function room_for(rate, in_window)
  return math.max(1, math.ceil(rate * WINDOW_MS - EPSILON)) - in_window
end

-- The ms until there is permission and room for one more; the oldest in the window leave it after `leaving`. Who waited
-- for permission alone would look by chance, and a full window hands on to the next 10 s how late that was.
local function pause_ms(bucket, rate, leaving)
  if bucket.refunds > 0 then return 0 end
  local pause = math.max(0, math.ceil((1 - bucket.tokens) / rate / (bucket.owed > 0 and 2 or 1)))
  return room_for(rate, bucket.in_window) > 0 and pause or math.max(pause, leaving)
end

-- Writes down what is left. `fresh` of those let in just now spent permission.
local function spend(key, bucket, name, now, window, out, fresh)
  redis.call('LTRIM', window, out, -1)
  if fresh > 0 then redis.call('RPUSH', window, whole(now) .. ':' .. fresh) end
  redis.call('HSET', key, 'tokens', string.format('%.9f', bucket.tokens), 'at', now, 'rate', name,
    'owed', string.format('%.9f', bucket.owed), 'inWindow', bucket.in_window, 'refunds', bucket.refunds,
    'turn', string.format('%.17g', bucket.turn), 'gone', string.format('%.6f', bucket.gone),
    'spent', string.format('%.6f', bucket.spent), 'late90', string.format('%.6f', bucket.late),
    'rateAt', whole(bucket.rate_at))
end
