-- The count of a sku, and tickets that are open for too long; those are left alone for a while.
-- KEYS: sku, its open tickets. ARGV: now, again at, most tickets.
local s = redis.call('HMGET', KEYS[1], 'gen', 'version', 'granted', 'issued', 'voided')
if not s[1] then return {} end
local overdue = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
local answer = {s[1], s[2], s[3], s[4], s[5], tostring(redis.call('ZCARD', KEYS[2]))}
for _, ticket in ipairs(overdue) do
    redis.call('ZADD', KEYS[2], ARGV[2], ticket)
    answer[#answer + 1] = ticket
end
return answer
