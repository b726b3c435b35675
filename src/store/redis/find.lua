-- Reads a job with all of its payloads, if those are not too large.
--
-- KEYS: the job. ARGV: how many bytes its payloads may have together.
-- Returns its version, place, record and claim; how many bytes each payload has; and each payload, or none of them if they have more.
local sizes, bytes = {}, 0
for part = 0, 4 do
    local size = redis.call('HSTRLEN', KEYS[1], part)
    table.insert(sizes, size)
    bytes = bytes + size
end
local job = redis.call('HMGET', KEYS[1], 'v', 's', 'r', 't')
local parts = bytes > tonumber(ARGV[1]) and {} or redis.call('HMGET', KEYS[1], '0', '1', '2', '3', '4')
return { job, sizes, parts }
