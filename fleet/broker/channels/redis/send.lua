-- Send a message and forget what it answers, together.
-- KEYS  1 list   2 held   then lists of messages that it answers, where these have their own
-- ARGV  1 envelope  then acknowledged tags
redis.call('LPUSH', KEYS[1], ARGV[1])
for i = 3, #KEYS do redis.call('DEL', KEYS[i]) end
if #ARGV > 1 then redis.call('HDEL', KEYS[2], unpack(ARGV, 2)) end
return #ARGV - 1
