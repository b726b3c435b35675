-- Says of what clients ask how much is open at a gateway.
--
-- KEYS: as that of `meter.lua`, several. ARGV: the gateway, for how many milliseconds it may be silent before it is taken for dead, and of each key how
-- many are open.
local time = redis.call('TIME')
local till = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2])
for place, key in ipairs(KEYS) do
    local open = tonumber(ARGV[2 + place])
    if open == 0 then
        redis.call('HDEL', key, 'g:' .. ARGV[1])
    else
        redis.call('HSET', key, 'g:' .. ARGV[1], string.format('%.0f %.0f', open, till))
        if redis.call('PTTL', key) < tonumber(ARGV[2]) then
            redis.call('PEXPIRE', key, ARGV[2])
        end
    end
end
