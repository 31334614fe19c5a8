-- Put held messages back to the heads of their lists. Only what is still held is moved, so any number may try at once.
-- KEYS  1 held   2 mark left for a replica whose messages were given away
-- ARGV  1 leave the mark (0/1)  then pairs: tag, envelope to put back ('' for the one that is held); the next to run last
-- Gives how many were moved.
local moved = 0
for i = 2, #ARGV, 2 do
  local entry = redis.call('HGET', KEYS[1], ARGV[i])
  if entry then
    local cut = string.find(entry, '\n', 1, true)
    local list, envelope = entry, ARGV[i + 1]
    local kept
    if cut then
      list, kept = string.sub(entry, 1, cut - 1), string.sub(entry, cut + 1)
    else
      kept = redis.call('LPOP', KEYS[1] .. ':' .. ARGV[i]) -- none there: it was acknowledged, or never taken
    end
    redis.call('HDEL', KEYS[1], ARGV[i])
    if kept then
      if envelope == '' then envelope = kept end
      redis.call('RPUSH', list, envelope)
      moved = moved + 1
    end
  end
end
if moved > 0 and ARGV[1] == '1' then redis.call('SET', KEYS[2], moved, 'EX', 86400) end
return moved
