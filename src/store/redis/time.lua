-- Keeps the time of the queue, which goes on whatever clocks are set to. The clock of Redis says how long no gateway was there.
--
-- KEYS: the time: a hash of what it was, `on`, and of when that was by the clock of Redis, `at`.
-- ARGV: what it is for a gateway that is there, or nothing for one that begins; what it is if none is kept.
-- Returns what it is.
local time = redis.call('TIME')
local at = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.call('HMGET', KEYS[1], 'on', 'at')
local on = tonumber(ARGV[1])
if kept[1] then
    local before = tonumber(kept[1])
    on = on and math.max(on, before) or before + math.max(0, at - tonumber(kept[2]))
else
    on = on or tonumber(ARGV[2])
end
redis.call('HSET', KEYS[1], 'on', string.format('%.0f', on), 'at', string.format('%.0f', at))
return on
