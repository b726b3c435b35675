-- Lets come true what a gateway has worked out of jobs, of each only if it still is what the gateway saw.
--
-- KEYS: one of the endpoint's, which says where all of them are.
-- ARGV: how many may come true; then of each job its key, the version that it had (empty: there was none), the version that it gets,
-- how many commands follow, and of each command how many words it has, and these.
-- Returns pairs: which came true, from 0, and what its last command answered.
local at = 0
local function word()
    at = at + 1
    return ARGV[at]
end

local most, number, done = tonumber(word()), 0, {}
while most > 0 and ARGV[at + 1] do
    local key, seen, version = word(), word(), word()
    local found = redis.call('HGET', key, 'v') or ''
    -- Who got no answer asks again, and it may be done already, but for the last command: that one only tells.
    local done_before = found == version
    local answer = false
    local commands = tonumber(word())
    for command = 1, commands do
        local words = {}
        for place = 1, tonumber(word()) do
            words[place] = word()
        end
        if found == seen or (done_before and command == commands) then
            answer = redis.call(unpack(words))
        end
    end
    if found == seen or done_before then
        table.insert(done, { number, answer })
        most = most - 1
    end
    number = number + 1
end
return done
