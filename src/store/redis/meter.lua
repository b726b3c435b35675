-- Counts a request among those that all gateways let pass.
--
-- KEYS: what one client asks of one operation: a hash of the window `w` that is counted, the requests in it `n` and in the one before
-- `b`, and of each gateway, under `g:` and its name, how many requests are open there, and until when that holds.
-- ARGV: the milliseconds of a window; how many requests it may have, and how many may be open; the gateway, how many are open there
-- but for this one, and for how many milliseconds it may be silent before it is taken for dead.
-- Returns 0 if it may pass, 1 if there were too many, 2 if too many are open. The clock is that of Redis, one for all gateways.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local width, rate, most, gateway = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), 'g:' .. ARGV[4]
local open, silent = tonumber(ARGV[5]), tonumber(ARGV[6])

local window, count, before, others = math.floor(now / width), 0, 0, 0
local found = redis.call('HGETALL', KEYS[1])
local seen = {}
for place = 1, #found, 2 do
    seen[found[place]] = found[place + 1]
end
if tonumber(seen.w) == window then
    count, before = tonumber(seen.n), tonumber(seen.b)
elseif tonumber(seen.w) == window - 1 then
    before = tonumber(seen.n)
end
if count + math.floor(before * (width - now % width) / width) >= rate then
    return 1
end
for name, value in pairs(seen) do
    if string.sub(name, 1, 2) == 'g:' and name ~= gateway then
        local there, till = string.match(value, '^(%d+) (%d+)$')
        if tonumber(till) > now then
            others = others + there
        else
            redis.call('HDEL', KEYS[1], name)
        end
    end
end
if others + open >= most then
    return 2
end
local number = function(value)
    return string.format('%.0f', value)
end
redis.call('HSET', KEYS[1], 'w', number(window), 'n', number(count + 1), 'b', number(before))
redis.call('HSET', KEYS[1], gateway, number(open + 1) .. ' ' .. number(now + silent))
redis.call('PEXPIRE', KEYS[1], number(math.max(2 * width, silent)))
return 0
