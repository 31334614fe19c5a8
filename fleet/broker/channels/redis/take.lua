-- One turn of a replica: forget what it acknowledged, bring back what is due, take the next messages.
-- A message is popped and recorded in the same script, so a kill at any moment loses nothing.
--
-- KEYS  1 held (hash tag -> "list\nenvelope", or "list" when the envelope is in a list of its own, "<held>:<tag>")
--       2 leases (sorted set)  then for each queue: its lists by urgency, its delayed set, this replica's inbox
-- ARGV  1 holder  2 lists per queue  3 how many  4 first tag  5 empty the inboxes (0/1)  6 number of acknowledged tags
--       7 how many of them have a list of their own  8 only tell where the next messages are (0/1)
--       then those tags, those with a list again, then the numbers of the queues in the order they are served, each class
--       closed by 0
-- Gives { milliseconds to the next delayed message or -1, key number, envelope, key number, envelope, ... }, without the
--       envelopes when it only tells, or { -2 } when this replica has no lease: nobody would look for what it takes now.
local held, holder = KEYS[1], ARGV[1]
local steps, wanted, tag = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local acks, apart = tonumber(ARGV[6]), tonumber(ARGV[7])
local only_tells = ARGV[8] == '1'
local width = steps + 2
local order = 9 + acks + apart

for i = 9 + acks, order - 1 do redis.call('DEL', held .. ':' .. ARGV[i]) end
if acks > 0 then redis.call('HDEL', held, unpack(ARGV, 9, 8 + acks)) end
if not redis.call('ZSCORE', KEYS[2], holder) then return { -2 } end

local function push_entry(entry)
  local cut = string.find(entry, '\n', 1, true)
  redis.call('RPUSH', string.sub(entry, 1, cut - 1), string.sub(entry, cut + 1))
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for base = 2, #KEYS - width, width do
  local delayed = KEYS[base + steps + 1]
  local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 100)
  for i = #due, 1, -1 do
    redis.call('ZREM', delayed, due[i])
    push_entry(due[i])
  end
  if ARGV[5] == '1' then
    local inbox = KEYS[base + width]
    local message = redis.call('LPOP', inbox)
    while message do
      redis.call('RPUSH', KEYS[base + 1], message)
      message = redis.call('LPOP', inbox)
    end
  end
end

local out = { -1 }
local at_once = 1000 -- Lua passes no more than 8000 values to a function
local function take_from(number, most)
  local key = KEYS[number]
  local messages = redis.call('LRANGE', key, -math.min(most, at_once), -1) -- the next one is the last
  local count = #messages
  if count == 0 then return 0 end
  redis.call('LTRIM', key, 0, -count - 1)
  local fields = {}
  for i = count, 1, -1 do
    fields[#fields + 1] = string.format('%.0f', tag)
    fields[#fields + 1] = key .. '\n' .. messages[i]
    out[#out + 1] = number
    out[#out + 1] = messages[i]
    tag = tag + 1
  end
  redis.call('HSET', held, unpack(fields))
  return count
end

local left = {}
local function tell_from(number, most)
  left[number] = left[number] or redis.call('LLEN', KEYS[number])
  local count = math.min(left[number], most)
  left[number] = left[number] - count
  for _ = 1, count do out[#out + 1] = number end
  return count
end

local serve = only_tells and tell_from or take_from
local function take(queues, step)
  while wanted > 0 and #queues > 0 do
    local more = {}
    local most = #queues == 1 and wanted or 1 -- several queues give one message each, in turn
    for _, queue in ipairs(queues) do
      if wanted == 0 then return end
      local count = serve(2 + (queue - 1) * width + step, most)
      if count > 0 then
        wanted = wanted - count
        more[#more + 1] = queue
      end
    end
    queues = more
  end
end

local class = {}
for i = order, #ARGV do
  local queue = tonumber(ARGV[i])
  if queue > 0 then
    class[#class + 1] = queue
  else
    for step = 1, steps do take(class, step) end
    class = {}
  end
end

if wanted > 0 then
  for base = 2, #KEYS - width, width do
    local first = redis.call('ZRANGE', KEYS[base + steps + 1], 0, 0, 'WITHSCORES')
    if first[2] then
      local left = math.max(0, tonumber(first[2]) - now)
      if out[1] == -1 or left < out[1] then out[1] = left end
    end
  end
end
return out
