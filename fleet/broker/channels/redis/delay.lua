-- Move a held message to the delayed set of its queue.
-- KEYS  1 held   2 delayed        ARGV  1 tag  2 due, in milliseconds
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry then return 0 end
if not string.find(entry, '\n', 1, true) then -- its envelope is in a list of its own
  local envelope = redis.call('LPOP', KEYS[1] .. ':' .. ARGV[1])
  if not envelope then return 0 end
  entry = entry .. '\n' .. envelope
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], ARGV[2], entry)
return 1
