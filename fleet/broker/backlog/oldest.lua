-- Since when the next messages of each list wait, and when the first of each delayed set is due.
-- Read here because a message may be of any size; a few of its last bytes tell: its headers come after its body.
-- KEYS  lists, then delayed sets        ARGV  1 how many lists  2 header that tells when it was sent  3 bytes to look at  4 messages to look at
-- Gives for each list how many it looked at, and for each of these the value of that header and the date it was sent
-- with; for each delayed set its first score in milliseconds; '' where there is none.
local lists, bytes, most = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local header = '"' .. string.gsub(ARGV[2], '%p', '%%%0') .. '":%s*([%d.eE+-]+)'
local out = {}
for i = 1, lists do
  local length = redis.pcall('LLEN', KEYS[i])
  local count = type(length) == 'number' and math.min(length, most) or 0
  out[#out + 1] = count
  for place = 1, count do
    local message = redis.pcall('LINDEX', KEYS[i], -place)
    local tail = type(message) == 'string' and string.sub(message, -bytes) or ''
    out[#out + 1] = string.match(tail, header) or ''
    out[#out + 1] = string.match(tail, '"eta":%s*"([^"]*)"') or ''
  end
end
for i = lists + 1, #KEYS do
  local first = redis.pcall('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  out[#out + 1] = first[2] or ''
end
return out
