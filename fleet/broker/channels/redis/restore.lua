-- Put held messages back to the heads of their lists. Only what is still held is moved, so any number may try at once.
-- KEYS  1 held   2 mark left for a replica whose messages were given away
-- ARGV  1 leave the mark (0/1)  then pairs: tag, envelope to put back ('' for the one that is held); the next to run last
-- Gives how many were moved.
local moved = 0
for i = 2, #ARGV, 2 do
  local entry = redis.call('HGET', KEYS[1], ARGV[i])
  if entry then
    local cut = string.find(entry, '\n', 1, true)
    local envelope = ARGV[i + 1]
    if envelope == '' then envelope = string.sub(entry, cut + 1) end
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('RPUSH', string.sub(entry, 1, cut - 1), envelope)
    moved = moved + 1
  end
end
if moved > 0 and ARGV[1] == '1' then redis.call('SET', KEYS[2], moved, 'EX', 86400) end
return moved
