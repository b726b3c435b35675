-- Takes chunks off a stream: the oldest, up to some bytes of them; none, if the oldest has more.
--
-- KEYS: the stream. ARGV: the bytes.
-- Returns the chunks, and how many bytes the next one has, or nothing.
local most, bytes, taken = tonumber(ARGV[1]), 0, {}
local chunk = redis.call('LINDEX', KEYS[1], 0)
while chunk do
    bytes = bytes + #chunk
    if bytes > most then
        break
    end
    table.insert(taken, redis.call('LPOP', KEYS[1]))
    chunk = redis.call('LINDEX', KEYS[1], 0)
end
return { taken, chunk and #chunk }
