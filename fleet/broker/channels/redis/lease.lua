-- Renew the lease of a replica by the server's own clock, and tell whose lease has run out for certain.
-- A lease counts as run out when it was seen over, unchanged, twice with ARGV[5] between: a jump of the clock, or a server
-- that was away for a while, lets every lease look over for a moment.
--
-- KEYS  1 leases (sorted set holder -> end)  2 holders (hash holder -> its inboxes)  3 mark: its messages were given away
--       4 suspects (hash holder -> "end seen")  5 one replica at a time looks after the others
-- ARGV  1 holder  2 lease in ms  3 its entry in holders  4 look after others (0/1)  5 doubt in ms  6 pause between looks in ms
-- Gives { mark found (0/1), now in ms, holder, end, ... }
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[3] then redis.call('HSET', KEYS[2], ARGV[1], ARGV[3]) end
local out = { redis.call('DEL', KEYS[3]), now }
if ARGV[4] ~= '1' or not redis.call('SET', KEYS[5], ARGV[1], 'NX', 'PX', ARGV[6]) then return out end

local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%.0f', now), 'WITHSCORES', 'LIMIT', 0, 1000)
for i = 1, #over, 2 do
  local seen = redis.call('HGET', KEYS[4], over[i])
  local known, since = string.match(seen or '', '^(%S+) (%S+)$')
  if known ~= over[i + 1] then
    redis.call('HSET', KEYS[4], over[i], over[i + 1] .. ' ' .. string.format('%.0f', now))
  elseif now - since >= tonumber(ARGV[5]) then
    out[#out + 1] = over[i]
    out[#out + 1] = over[i + 1]
  end
end
return out
