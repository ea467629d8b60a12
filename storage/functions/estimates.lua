-- How long players wait yet, told from what the line has really given out: it goes on where pace.lua, in the same
-- library, ends. The hash of the bucket also holds
--   gone, spent   how many left the head of the line, and the permission that was used up or lost meanwhile, both of
--                 about the last half minute in which somebody was let in. A place that a no-show gives back, or that
--                 is passed over, lets one more go without spending any; a system that cannot keep up loses some
--   late90        how many times as long as they were first told one player in ten waits, and longer
--   consumed      how many had come in, ever, when the doors opened
--   rateAt        since when, in ms, the rate is what it is: what was told before is neither kept nor measured

local SPAN_MS = 30000 -- and not less than
local SPAN = 20       -- players, of which
local EXPECTED = 10   -- are taken to go by the rate, until there are more
local MOST_LATE = 4
local SHORTEST_MS = 1000 -- players are told seconds
local STEP = 0.02

-- Notes that so many left the head of the line for so much permission.
local function note_outflow(bucket, rate, gone, spent)
  local fading = math.exp(-spent / math.max(rate * SPAN_MS, SPAN))
  bucket.gone, bucket.spent = bucket.gone * fading + gone, bucket.spent * fading + spent
end

-- How many leave the head of the line for each that the rate lets in.
local function outflow(gone, spent)
  return ((gone or 0) + EXPECTED) / ((spent or 0) + EXPECTED)
end

-- What waits can be told from now. Without `flow`, in places a ms, they are unknown: while nobody is let in, and until
-- somebody has really come in. `opens_at` is the ms of an opening that is still to come.
local function forecast(config, bucket, stats, now)
  local rate, name, opens_at = rate_now(config, now)
  local consumed = tonumber(redis.call('HGET', stats, 'consumed') or 0)
  local was = redis.call('HMGET', bucket, 'tokens', 'at', 'owed', 'rate', 'refunds', 'gone', 'spent', 'late90',
    'rateAt', 'consumed')
  local is_same = was[4] == name
  local seen = {
    opens_at = opens_at, late = tonumber(was[8] or LATE), since = is_same and tonumber(was[9]) or now, at_hand = 0,
    owed = 0,
  }
  if rate == 0 or consumed <= tonumber(was[10] or 0) then return seen end
  seen.flow = rate * outflow(was[6], was[7])
  if is_same then
    local tokens = was[1] + math.max(0, now - was[2]) * rate
    seen.at_hand, seen.owed = math.min(1 + rate * BURST_MS, tokens) + was[5], tonumber(was[3])
  end
  return seen
end

-- The ms that a position takes, and those within which nine of ten are let in; -1 while unknown.
local function wait_ms(seen, position)
  if position == 0 then return 0, 0 end
  if not seen.flow then return -1, -1 end
  local places = math.max(0, position - seen.at_hand)
  local wait = math.max(places - seen.owed, places / 2) / seen.flow
  return math.ceil(wait), math.ceil(wait * seen.late)
end

-- Keeps with a ticket what its player is told first at this rate, to measure it when the turn comes.
local function keep_told(ticket, told_at, seen, wait, now)
  if wait < 0 or told_at and tonumber(told_at) >= seen.since then return end
  redis.call('HSET', ticket, 'estimatedAt', now, 'due', whole(now + wait))
end

-- How many ms after the time that was told first a ticket's turn has come, nil where none was told at this rate.
local function judge(bucket, each, now)
  if not each.due or tonumber(each.estimated_at) < bucket.rate_at then return nil end
  local told, took = math.max(SHORTEST_MS, each.due - each.estimated_at), now - each.estimated_at
  -- Finds the ninth of ten: it goes up nine times as far as down.
  local late = bucket.late * (took > told * bucket.late and 1 + 0.9 * STEP or 1 - 0.1 * STEP)
  bucket.late = math.max(1, math.min(MOST_LATE, late))
  return now - each.due
end
