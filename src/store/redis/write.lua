-- Lets come true what a gateway has worked out of a job, only if that still is what the gateway saw.
--
-- KEYS: the job. ARGV: the version that it had, the version that it gets, and of each command how many words it has, and these.
-- Returns whether it came true.
local found = redis.call('HGET', KEYS[1], 'v')
if found ~= ARGV[1] then
    -- Who got no answer asks again, and it may be done already.
    return found == ARGV[2] and 1 or 0
end
local at = 3
while ARGV[at] do
    local last = at + tonumber(ARGV[at])
    redis.call(unpack(ARGV, at + 1, last))
    at = last + 1
end
return 1
