-- The cached policies and groups. Their version is the time of the last change, and what was cached under another one
-- is not read. A reader takes the version, reads SQL, and fills the cache only if the version is still the same; who
-- changes a policy or a group sets a new one after the commit: so nothing that was read before a change is ever
-- cached after it. The index, {version, defaults, policies, groups} as JSON, says whose hashes are in the cache;
-- defaults is the migration that last brought some, which changes no version.

local POLICY_FIELDS = {'policyName', 'description', 'rules'}
local GROUP_FIELDS = {'groupName', 'description', 'permissions'}

local function set_version(key)
  local at, us = iso_time()
  local version = at .. string.format('.%06dZ', us)
  redis.call('SET', key, version)
  return version
end

-- The id and the fields of each, or false where one is missing.
local function cached(prefix, ids, fields)
  local found = {}
  for i, id in ipairs(ids) do
    local values = redis.call('HMGET', prefix .. id, unpack(fields))
    if not (values[1] and values[2] and values[3]) then return false end
    found[i] = {id, unpack(values)}
  end
  return found
end

local function forget(prefix, ids, kept)
  for _, id in ipairs(ids) do
    if not kept[id] then redis.call('DEL', prefix .. id) end
  end
end

local function fill(prefix, rows, fields, life_ms)
  local ids, kept = {}, {}
  for i, row in ipairs(rows) do
    local key = prefix .. row[1]
    redis.call('HSET', key, fields[1], row[2], fields[2], row[3], fields[3], row[4])
    redis.call('PEXPIRE', key, life_ms)
    ids[i] = row[1]
    kept[row[1]] = true
  end
  return ids, kept
end

-- KEYS: version. Answers it, and makes one where there is none.
redis.register_function('policies_version_@VERSION@', function(keys)
  return redis.call('GET', keys[1]) or set_version(keys[1])
end)

-- KEYS: version. A policy or a group was changed.
redis.register_function('policies_changed_@VERSION@', function(keys)
  return set_version(keys[1])
end)

-- KEYS: version, index. ARGV: prefixes of policies and of groups, defaults. Answers the version, and where all is in the cache
-- the policies and the groups, each as its id and its fields.
redis.register_function('policies_read_@VERSION@', function(keys, args)
  local version = redis.call('GET', keys[1]) or set_version(keys[1])
  local index = cjson.decode(redis.call('GET', keys[2]) or '{}')
  if index.version ~= version or index.defaults ~= args[3] then return {version} end
  local policies = cached(args[1], index.policies, POLICY_FIELDS)
  local groups = cached(args[2], index.groups, GROUP_FIELDS)
  if not (policies and groups) then return {version} end
  return {version, policies, groups}
end)

-- KEYS: version, index. ARGV: the version that was read before SQL was, ms for which the cache is good, prefixes of
-- policies and of groups, {policies, groups} as JSON: of each its id and its fields, and defaults.
redis.register_function('policies_fill_@VERSION@', function(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then return end
  local old = cjson.decode(redis.call('GET', keys[2]) or '{"policies":[],"groups":[]}')
  local read = cjson.decode(args[5])
  local policies, kept_policies = fill(args[3], read.policies, POLICY_FIELDS, args[2])
  local groups, kept_groups = fill(args[4], read.groups, GROUP_FIELDS, args[2])
  forget(args[3], old.policies, kept_policies)
  forget(args[4], old.groups, kept_groups)
  local index = {version = args[1], defaults = args[6], policies = policies, groups = groups}
  redis.call('SET', keys[2], cjson.encode(index), 'PX', args[2])
end)

-- Somebody joined or left a group: its count is to be read anew.
-- KEYS: the group. ARGV: ms for which the cache is good.
redis.register_function('group_joined_@VERSION@', function(keys, args)
  redis.call('HDEL', keys[1], 'memberCount')
  redis.call('HINCRBY', keys[1], 'changes', 1)
  redis.call('PEXPIRE', keys[1], args[1])
end)

-- KEYS: the group. ARGV: the changes that were read before SQL was ('' for none), members.
redis.register_function('group_counted_@VERSION@', function(keys, args)
  if (redis.call('HGET', keys[1], 'changes') or '') ~= args[1] then return end
  if redis.call('EXISTS', keys[1]) == 1 then redis.call('HSET', keys[1], 'memberCount', args[2]) end
end)
