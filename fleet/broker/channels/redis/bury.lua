-- Forget a replica that is gone for good: its lease ran out long ago, and nothing is left of it.
-- KEYS  1 leases  2 holders  3 suspects  4 held  then its inboxes
-- ARGV  1 holder  2 the end of its lease as it was seen  3 forget it when empty (0/1)
-- Gives 1 when something is left to restore, else 0.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
for i = 4, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return 1 end
end
if ARGV[3] == '1' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[3], ARGV[1])
end
return 0
