#!lua name=lobbyd_tickets_@VERSION@
-- The order of the waiting room, and the beginning of the library that opening.lua, pace.lua, estimates.lua, away.lua,
-- tickets.lua, admitting.lua, standing.lua, announcing.lua, raising.lua and sessions.lua go on with.
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

-- Counts bands for the positions of many tickets, of which each comes later than the one before or is of another
-- band: what is the same for many of them is asked for once, as nothing changes in between.
local function counting(waiting)
  local whole_bands, older = {}, {}
  local function of(band)
    whole_bands[band] = whole_bands[band] or count_band(waiting, band)
    return whole_bands[band]
  end
  local function before(band, arrival)
    local known = older[band]
    if not known or arrival < known.from or arrival > known.to then
      local next = redis.call('ZRANGEBYSCORE', waiting, whole(band * BAND + arrival), '(' .. whole((band + 1) * BAND),
        'WITHSCORES', 'LIMIT', 0, 1)[2]
      known = {from = arrival, to = next and next - band * BAND or BAND, count = count_band(waiting, band, arrival)}
      older[band] = known
    end
    return known.count
  end
  return {of = of, before = before}
end

-- At most how many admissions the ticket is away, its own included, while nobody of a higher tier comes.
local function position_of(counts, score, rank, factor)
  local band = band_of(score)
  local arrival, ahead, older_behind, same = score - band * BAND, 0, 0, rank
  for other = 0, #TIERS - 1 do
    if other < band then
      same = same - counts.of(other)
      ahead = ahead + counts.before(other, arrival)
    elseif other > band then
      older_behind = older_behind + counts.before(other, arrival)
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

-- Whether more than one tier waits; if not, a position is a rank and one.
local function is_mixed(waiting)
  local tiers = 0
  for band = 0, #TIERS - 1 do
    if count_band(waiting, band) > 0 then tiers = tiers + 1 end
  end
  return tiers > 1
end

-- How many of higher tiers, and who were raised, have come so far: only they can make a place worse.
local function higher_arrivals(stats, band)
  local count = band > 0 and tonumber(redis.call('HGET', stats, 'raised') or 0) or 0
  for higher = 1, band do count = count + tonumber(redis.call('HGET', stats, 'arrived' .. TIERS[higher]) or 0) end
  return count
end

-- What to tell of a position to whoever was told one before (0 for none). Only a higher tier makes it worse: a bound
-- that got looser by rounding, or by one who is back at a place of before, is kept from the player.
local function to_tell(position, told, higher, told_higher)
  if told == 0 or position <= told or higher > told_higher then return position end
  return told
end

-- The best position told so far (0 for none), one that is told now included. Whatever of it got lost on the way, what
-- a player knows is no better, so a position that is behind it has to say why.
local function best_told(best, told)
  return (told == 0 or best == 0) and told or math.min(best, told)
end

local function why_worse(position, best)
  return best > 0 and position > best and 'HIGHER_TIER' or ''
end

-- The tickets of a band from the head of the line on, read a page at a time.
local function line(waiting, band, page)
  local read, at, offset = {}, 1, 0
  -- Answers the next ticket and its score, nothing behind the last.
  local function head()
    if at > #read and offset then
      read, at = redis.call('ZRANGEBYSCORE', waiting, whole(band * BAND), '(' .. whole((band + 1) * BAND),
        'WITHSCORES', 'LIMIT', offset, page), 1
      offset = #read == 2 * page and offset + page or nil
    end
    return read[at], tonumber(read[at + 1])
  end
  local function go_on() at = at + 2 end
  return {head = head, go_on = go_on}
end

-- Offers tickets to `take`, with their scores and in order, until it has taken `count` or been offered `most`. One that
-- it does not take stands nowhere in the order. Answers the turn after them.
local function choose(waiting, count, most, factor, turn, take)
  local lines, taken, offered = {}, 0, 0
  for band = 0, #TIERS - 1 do lines[band] = line(waiting, band, count) end
  while taken < count and offered < most do
    local first, oldest, oldest_arrival = nil, nil, nil
    for band = 0, #TIERS - 1 do
      local _, score = lines[band].head()
      if score then
        local arrival = score - band * BAND
        first = first or band
        if not oldest_arrival or arrival < oldest_arrival then oldest, oldest_arrival = band, arrival end
      end
    end
    if not first then break end
    local band, after = first, turn + 1 / factor
    if after >= 1 - EPSILON then band, after = oldest, after - 1 end
    if take(lines[band].head()) then taken, turn = taken + 1, after end
    lines[band].go_on()
    offered = offered + 1
  end
  return turn
end

