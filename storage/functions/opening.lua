-- The opening hour: it goes on where order.lua, in the same library, ends. Nobody is let in before it, and who comes
-- before it is drawn: stands in line as if come at a chance moment of the last minute before the opening. The
-- number that is drawn is the caller's and the same for a user each time, so that to come again draws nothing new. Who
-- comes after the opening stands behind.

local DRAW_US = 60000000
local SLOTS = DRAW_US / #TIERS -- one for each tier beside the other, so that no two of them come at the same moment
local DRAWN_OF = 4294967296

-- The rate in players a ms, the name of it, and the ms of an opening that is still to come.
local function rate_now(config, now)
  local was = redis.call('HMGET', config, 'totalRate', 'opensAt')
  if was[2] and now < tonumber(was[2]) then return 0, 'closed', tonumber(was[2]) end
  return tonumber(was[1] or 0) / 60000, was[1] or '0', nil
end

-- The µs at which a new ticket of a tier's band counts as come. When an opening is put off, all are still drawn
-- for the same minute, which is after everybody who came before the first of them.
local function arrive(stats, now_us, opens_at, band, drawn)
  local was = redis.call('HMGET', stats, 'lastArrival', 'drawnBefore')
  local last = tonumber(was[1] or 0)
  if not opens_at then
    local arrival = math.max(now_us, last + 1)
    redis.call('HSET', stats, 'lastArrival', whole(arrival))
    return arrival
  end
  local before = tonumber(was[2] or math.max(opens_at * 1000, last + 1 + DRAW_US))
  redis.call('HSET', stats, 'lastArrival', whole(before), 'drawnBefore', whole(before))
  return before - DRAW_US + math.floor(drawn / DRAWN_OF * SLOTS) * #TIERS + band
end

-- Before the opening a place is not given out yet: it is told as the last one of its tier.
local function last_place(waiting, score)
  local count = 0
  for band = 0, band_of(score) do count = count + count_band(waiting, band) end
  return count
end
