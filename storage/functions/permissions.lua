-- Decisions that were made, and are good for as long as all that they rest on is what it was: the version of the
-- policies, the user's role and groups, and that the account may be used. So a change of any of them ends them at once, wherever it is made.

local NO_GROUPS = ''

-- The ids of the user's groups, in order and joined, or false while they are not in the cache (see groups.lua).
local function joined_groups(key)
  local members = redis.call('SMEMBERS', key)
  if #members == 0 then return false end
  for _, member in ipairs(members) do
    if string.sub(member, 1, 1) == '?' then return false end
  end
  table.sort(members)
  return table.concat(members, ',')
end

-- Answers a decision that is still good, and writes down that it was given.
-- KEYS: decision, version of the policies, account, groups, audit log, pending, lost. ARGV: entries that may be pending,
-- 'refuse' or 'count' for what becomes of more, then who, action and resource as the audit log has them. Answers the
-- version ('' for none), and after it allowed (1 or 0), reason and policy where there is a decision; or 'full'.
redis.register_function('permission_read_@VERSION@', function(keys, args)
  local version = redis.call('GET', keys[2]) or ''
  local was = redis.call('HMGET', keys[1], 'version', 'role', 'groups', 'allowed', 'reason', 'policyMatched',
    'auditedPolicy', 'auditedReason')
  local account = redis.call('HMGET', keys[3], 'role', 'status')
  local groups = joined_groups(keys[4])
  redis.call('LLEN', keys[5])
  local most = tonumber(args[1])
  if redis.call('XLEN', keys[6]) >= most and args[2] == 'refuse' then return {'full'} end
  redis.call('STRLEN', keys[7])
  local is_good = was[1] == version and was[2] == account[1] and account[2] == 'ACTIVE' and was[3] == groups
  if version == '' or not is_good then return {version} end
  local allowed = was[4] == 'true'
  audit_within(most, keys[7], keys[5], keys[6], iso_time() .. 'Z',
    {args[3], args[4], args[5], allowed and 'ALLOWED' or 'DENIED', was[7], was[8]})
  return {version, allowed and 1 or 0, was[5], was[6]}
end)

-- Writes down a decision, and keeps it unless the user has had too many kept in this minute: whoever asks about
-- ever new resources must not fill the memory.
-- KEYS: decision, count of the user's, audit log, pending, lost. ARGV: version, role, groups joined by ',', 'true' or
-- 'false', reason, policy, ISO time of its end, ms until then, decisions kept a minute at most, the six texts of
-- the audit log, entries that may be pending.
redis.register_function('permission_keep_@VERSION@', function(keys, args)
  redis.call('HLEN', keys[1])
  redis.call('STRLEN', keys[2])
  redis.call('LLEN', keys[3])
  redis.call('XLEN', keys[4])
  redis.call('STRLEN', keys[5])
  audit_within(tonumber(args[16]), keys[5], keys[3], keys[4], iso_time() .. 'Z', {unpack(args, 10, 15)})
  local kept = redis.call('INCR', keys[2])
  redis.call('PEXPIRE', keys[2], 60000, 'NX')
  if kept > tonumber(args[9]) then return end
  redis.call('HSET', keys[1], 'version', args[1], 'role', args[2], 'groups', args[3], 'allowed', args[4],
    'reason', args[5], 'policyMatched', args[6], 'expiresAt', args[7],
    'auditedPolicy', args[14], 'auditedReason', args[15])
  redis.call('PEXPIRE', keys[1], args[8])
end)
