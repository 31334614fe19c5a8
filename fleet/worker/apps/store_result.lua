-- Store the result of a task and tell who waits for it, unless the one that is there may not be replaced.
-- KEYS  the result's key        ARGV  1 the result  2 seconds until it expires, 0: never  3 how a success looks, '' where one cannot tell
-- Gives 1 when it was stored; 0 when the one that is there may not be replaced, or nobody here can tell.
local known = redis.call('GET', KEYS[1])
if known and (ARGV[3] == '' or string.find(known, ARGV[3], 1, true)) then return 0 end
if ARGV[2] == '0' then redis.call('SET', KEYS[1], ARGV[1])
else redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1]) end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 1
