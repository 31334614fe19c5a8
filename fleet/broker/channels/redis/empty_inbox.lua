-- Put what waits in an inbox back to the head of its list, the oldest next.
-- KEYS  1 inbox, 2 list, 1 inbox, 2 list, ...
local moved = 0
for i = 1, #KEYS, 2 do
  local message = redis.call('LPOP', KEYS[i])
  while message do
    redis.call('RPUSH', KEYS[i + 1], message)
    moved = moved + 1
    message = redis.call('LPOP', KEYS[i])
  end
end
return moved
