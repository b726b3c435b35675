-- Takes chunks off a stream: the oldest, up to some bytes of them, but one at least.
--
-- KEYS: the stream. ARGV: the bytes.
-- Returns the chunks, and whether there are more.
local most, bytes, taken = tonumber(ARGV[1]), 0, {}
local chunk = redis.call('LINDEX', KEYS[1], 0)
while chunk do
    bytes = bytes + #chunk
    if bytes > most and #taken > 0 then
        break
    end
    table.insert(taken, redis.call('LPOP', KEYS[1]))
    chunk = redis.call('LINDEX', KEYS[1], 0)
end
return { taken, chunk and 1 or 0 }
