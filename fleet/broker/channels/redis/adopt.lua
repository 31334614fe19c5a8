-- Record a message that arrived in an inbox, and that the replica has from the answer that told it, as held.
-- The holder is noted in the same step, so that somebody looks for it should its lease have been forgotten.
--
-- KEYS  1 held (hash tag -> "list\nenvelope")  2 leases (sorted set)  3 inbox
-- ARGV  1 holder  2 the list from which it came  3 tag  4 envelope
-- Gives 1, or 0 where it is not in the inbox: it was given to others, or this has been done before.
if redis.call('LREM', KEYS[3], -1, ARGV[4]) == 0 then return 0 end
redis.call('ZADD', KEYS[2], 'NX', 0, ARGV[1])
redis.call('HSET', KEYS[1], ARGV[3], ARGV[2] .. '\n' .. ARGV[4])
return 1
