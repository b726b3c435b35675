-- Keeps a new job at the end of its line, unless as many wait there as may.
--
-- KEYS: the job, the line of those that wait, the timers, the endpoint's counters, the endpoints.
-- ARGV: the endpoint and the job's id; its version; what its place in line counts beyond the number; how many may wait, or nothing; when
-- time does something to it; its record, input and rest; the channel of events, and the events.
-- Returns 0 if it is kept, 1 if there is one of this id, 2 if as many wait as may.
local found = redis.call('HGET', KEYS[1], 'v')
if found then
    -- Who got no answer asks again, and it may be kept already.
    return found == ARGV[3] and 0 or 1
end
if ARGV[5] ~= '' and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then
    return 2
end
local score = string.format('%.0f', redis.call('HINCRBY', KEYS[4], 'place', 1) + tonumber(ARGV[4]))
redis.call('SADD', KEYS[5], ARGV[1])
redis.call('HSET', KEYS[1], 'v', ARGV[3], 's', score, 'r', ARGV[7], '0', ARGV[8], '1', ARGV[9])
redis.call('ZADD', KEYS[2], score, ARGV[2])
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[2])
redis.call('PUBLISH', ARGV[10], ARGV[11])
return 0
