-- Looks at jobs in a line.
--
-- KEYS: the line. ARGV: what the keys of jobs begin with, and the first and the last place to look at, from 0.
-- Returns of each what `HMGET job v s r` answers.
local found = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], ARGV[2], ARGV[3])) do
    table.insert(found, redis.call('HMGET', ARGV[1] .. id, 'v', 's', 'r'))
end
return found
