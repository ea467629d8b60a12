#!lua name=lobbyd_tickets_@VERSION@
-- The order of the waiting room, and the beginning of the library that tickets.lua and sessions.lua go on with.
--
-- A ticket's score is its tier's band and in it the µs of its arrival: VIP, PREMIUM, NORMAL. Places are given out
-- by score, tier before tier, but of every `factor` places one goes to whoever has waited longest, whatever the
-- tier. So nobody needs more than factor * (1 + those who came before) admissions, which is `factor` times what
-- pure arrival order would have cost: of so many places enough are given out by arrival to reach everybody who
-- came before. What is owed to the longest waiting is kept as a `turn` from 0 to 1.

local BAND = 3000000000000000 -- µs: the year 2065, and three of them are whole numbers to a double
local TIERS = {'VIP', 'PREMIUM', 'NORMAL'}
local EPSILON = 0.000001

local function whole(number)
  return string.format('%.0f', number)
end

local function band_of(score)
  return math.floor(score / BAND)
end

-- How many wait in a band, or of them those who came before an arrival.
local function count_band(waiting, band, arrival)
  return redis.call('ZCOUNT', waiting, whole(band * BAND), '(' .. whole(band * BAND + (arrival or BAND)))
end

-- At most how many admissions the ticket is away, its own included, while nobody of a higher tier comes.
local function position_of(waiting, score, rank, factor)
  local band = band_of(score)
  local arrival, ahead, older_behind, same = score - band * BAND, 0, 0, rank
  for other = 0, #TIERS - 1 do
    if other < band then
      same = same - count_band(waiting, other)
      ahead = ahead + count_band(waiting, other, arrival)
    elseif other > band then
      older_behind = older_behind + count_band(waiting, other, arrival)
    end
  end
  local by_arrival = math.ceil(factor * (same + ahead + older_behind + 1) - EPSILON)
  local passing = older_behind
  if factor > 1 then
    -- Of so many places enough are given out by tier to reach this one, whoever the others go to.
    passing = math.min(passing, math.ceil((rank + 2) * factor / (factor - 1) - EPSILON) - rank - 1)
  end
  return math.min(by_arrival, rank + 1 + passing)
end

-- Position from 1 while waiting, 0 once READY.
local function place(waiting, tid, factor)
  local score = redis.call('ZSCORE', waiting, tid)
  return score and position_of(waiting, tonumber(score), redis.call('ZRANK', waiting, tid), factor) or 0
end

-- Whether more than one tier waits; if not, a position is a rank and one.
local function is_mixed(waiting)
  local tiers = 0
  for band = 0, #TIERS - 1 do
    if count_band(waiting, band) > 0 then tiers = tiers + 1 end
  end
  return tiers > 1
end

-- How many of higher tiers have come so far: only they can make a place worse.
local function higher_arrivals(stats, band)
  local count = 0
  for higher = 1, band do count = count + tonumber(redis.call('HGET', stats, 'arrived' .. TIERS[higher]) or 0) end
  return count
end

-- The next `count` tickets to be admitted, in order, and the turn after them.
local function choose(waiting, count, factor, turn)
  local lists, at, chosen = {}, {}, {}
  for band = 0, #TIERS - 1 do
    lists[band], at[band] = redis.call('ZRANGEBYSCORE', waiting, whole(band * BAND), '(' .. whole((band + 1) * BAND),
      'WITHSCORES', 'LIMIT', 0, count), 1
  end
  while #chosen < count do
    local first, oldest, oldest_arrival = nil, nil, nil
    for band = 0, #TIERS - 1 do
      local score = lists[band][at[band] + 1]
      if score then
        local arrival = tonumber(score) - band * BAND
        first = first or band
        if not oldest_arrival or arrival < oldest_arrival then oldest, oldest_arrival = band, arrival end
      end
    end
    if not first then break end
    turn = turn + 1 / factor
    local band = first
    if turn >= 1 - EPSILON then band, turn = oldest, turn - 1 end
    chosen[#chosen + 1] = lists[band][at[band]]
    at[band] = at[band] + 2
  end
  return chosen, turn
end

