-- Store results of tasks and tell who waits for them, unless the one that is there may not be replaced.
-- KEYS  the results' keys        ARGV  1 how a success looks, '' where one cannot tell; then for each key: the result, seconds until it expires (0: never)
-- Gives how many were stored: the others may not be replaced, or nobody here can tell.
local look, stored = ARGV[1], 0
for i, key in ipairs(KEYS) do
  local result, seconds = ARGV[2 * i], ARGV[2 * i + 1]
  local known = redis.call('GET', key)
  if not (known and (look == '' or string.find(known, look, 1, true))) then
    if seconds == '0' then redis.call('SET', key, result) else redis.call('SETEX', key, seconds, result) end
    redis.call('PUBLISH', key, result)
    stored = stored + 1
  end
end
return stored
