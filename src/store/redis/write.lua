-- Applies what a gateway has made of a job, only if the job is still as the gateway saw it.
--
-- KEYS: the job. ARGV: the version that it had, the version that it gets, and of each command how many words it has, and these.
-- Returns whether it was applied.
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
