#!lua name=lobbyd_scores_@VERSION@
-- Accepting scores: what gathered is appended to the queue of accepted scores in one call, each with the record of
-- its request, so that a repeat finds the first task and appends nothing.

-- KEYS: queue, meta, stats, then for each score: record, last score of the user, result of the game session (or
-- the record again for a score without one).
-- ARGV: ms to keep the last score, ms to keep a result, then for each score: task, message, ms to keep the record,
-- score, game type, difficulty, ms of submission.
-- Answers nothing where there is no such queue, else for each score its task, '' where the queue is full or '!'
-- where the session has a result of this user already.
local function accept(keys, args)
  local max = tonumber(redis.call('HGET', keys[2], 'maxSize'))
  if not max then return nil end
  redis.call('HLEN', keys[3])
  local room, names, first, answers = max - redis.call('XLEN', keys[1]), {}, {}, {}
  for i = 4, #keys, 3 do
    names[#names + 1] = keys[i]
    if keys[i + 2] ~= keys[i] then names[#names + 1] = keys[i + 2] end
    redis.call('HLEN', keys[i + 1])
  end
  for i, task in ipairs(redis.call('MGET', unpack(names))) do first[names[i]] = task end
  local published, refused = 0, 0
  for i = 4, #keys, 3 do
    local at = 3 + (i - 4) / 3 * 7
    local record, last, session = keys[i], keys[i + 1], keys[i + 2]
    local answer = first[record]
    if not answer then
      if first[session] then
        answer = '!'
      elseif published >= room then
        answer, refused = '', refused + 1
      else
        answer, published = args[at], published + 1
        redis.call('XADD', keys[1], '*', 'm', args[at + 1])
        redis.call('SET', record, answer, 'PX', args[at + 2])
        redis.call('HSET', last, 'score', args[at + 3], 'game_type', args[at + 4], 'difficulty', args[at + 5],
          'timestamp', args[at + 6])
        redis.call('PEXPIRE', last, args[1])
        first[record] = answer
        if session ~= record then
          redis.call('SET', session, answer, 'PX', args[2])
          first[session] = answer
        end
      end
    end
    answers[#answers + 1] = answer
  end
  if published > 0 then redis.call('HINCRBY', keys[3], 'published', published) end
  if refused > 0 then redis.call('HINCRBY', keys[3], 'refused', refused) end
  return answers
end

redis.register_function('score_accept_@VERSION@', accept)
