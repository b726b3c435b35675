-- Hands out jobs from the head of a line in one step: who asks at the same moment gets those behind.
--
-- What a job becomes thereby is Rust's to say. So the record stays as it is, and the claim is kept beside it, for whoever reads it.
--
-- KEYS: the lines of those that wait and of those in progress, the jobs that the worker holds, the timers.
-- ARGV: what the keys of jobs begin with; how many are wanted, at which place to begin, from 0, and at how many to look at most; the
-- date; the claim; what the versions begin with that jobs get; the channel of events, and the endpoint as JSON; for how many milliseconds a
-- worker's first sign of a job is waited for; whether this was asked before and the answer lost; how many bytes of payloads are wanted.
-- Returns the place to go on at, whether there may be more, of each job its record, input and rest, and how many bytes the next one has, if it
-- has too many.
local jobs, most, at, look, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local claim, version, channel, endpoint = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local lost, handed, events = tonumber(ARGV[10]), {}, {}
local left, large = tonumber(ARGV[12]), false

if ARGV[11] == '1' then
    local versions, by = {}, {}
    for _, id in ipairs(redis.call('SMEMBERS', KEYS[3])) do
        local found = redis.call('HMGET', jobs .. id, 'v', 'r', '0', '1')
        if found[1] and string.sub(found[1], 1, #version) == version then
            table.insert(versions, found[1])
            by[found[1]] = { found[2], found[3], found[4] }
        end
    end
    table.sort(versions)
    for place, found in ipairs(versions) do
        handed[place] = by[found]
    end
    if #handed > 0 then
        return { at, 0, handed, false }
    end
end

local behind = 1
while #handed < most and look > 0 and behind == 1 do
    local line = redis.call('ZRANGE', KEYS[1], at, at + math.min(most - #handed, look) - 1, 'WITHSCORES')
    behind = #line > 0 and 1 or 0
    for place = 1, #line, 2 do
        local id, score = line[place], line[place + 1]
        local text = redis.call('HGET', jobs .. id, 'r')
        local record = text and cjson.decode(text)
        look = look - 1
        if record and record.expires > now then
            -- Measured before it is read: one that is too large is asked for again, and may have megabytes.
            local bytes = redis.call('HSTRLEN', jobs .. id, '0') + redis.call('HSTRLEN', jobs .. id, '1')
            if bytes > left then
                large, behind = bytes, 0
                break
            end
            local parts = redis.call('HMGET', jobs .. id, '0', '1')
            left = left - bytes
            local patience = record.patience.secs * 1000 + math.floor(record.patience.nanos / 1000000)
            local late = now + math.min(patience, lost)
            redis.call('HSET', jobs .. id, 'v', string.format('%s%04d', version, #handed), 't', claim)
            redis.call('ZREM', KEYS[1], id)
            redis.call('ZADD', KEYS[2], score, id)
            redis.call('SADD', KEYS[3], id)
            redis.call('ZADD', KEYS[4], 'LT', string.format('%.0f', late), id)
            table.insert(handed, { text, parts[1], parts[2] })
            table.insert(events, '{"Job":[' .. endpoint .. ',' .. cjson.encode(id) .. ']}')
        else
            -- It waits only to be forgotten.
            at = at + 1
        end
    end
end
if #events > 0 then
    redis.call('PUBLISH', channel, '[' .. table.concat(events, ',') .. ']')
end
return { at, behind, handed, large }
