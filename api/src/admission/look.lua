-- The counts of skus, and tickets that are open for too long; those are left alone for a while.
-- KEYS: each sku, and its open tickets. ARGV: now, again at, most tickets of a sku.
local answers = {}
for key = 1, #KEYS, 2 do
    local sku, open = KEYS[key], KEYS[key + 1]
    local s = redis.call('HMGET', sku, 'gen', 'version', 'granted', 'issued', 'voided')
    local answer = {}
    if s[1] then
        answer = {s[1], s[2], s[3], s[4], s[5], tostring(redis.call('ZCARD', open))}
        for _, ticket in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])) do
            redis.call('ZADD', open, ARGV[2], ticket)
            answer[#answer + 1] = ticket
        end
    end
    answers[#answers + 1] = answer
end
return answers
