-- Reads payloads of a job, if they are not too large.
--
-- KEYS: the job. ARGV: the fields of the payloads, and how many bytes they may have together.
-- Returns its version, how many bytes they have, and each of them, or none if they have more.
local bytes, fields, most = 0, #ARGV - 1, tonumber(ARGV[#ARGV])
for place = 1, fields do
    bytes = bytes + redis.call('HSTRLEN', KEYS[1], ARGV[place])
end
local found = bytes > most and {} or redis.call('HMGET', KEYS[1], unpack(ARGV, 1, fields))
return { redis.call('HGET', KEYS[1], 'v'), bytes, found }
