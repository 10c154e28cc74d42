-- A request lets a ticket go; the last one voids it. Without a request: void it, nobody stands behind it.
-- KEYS: sku, its open tickets, the order, the customer. ARGV: order, request or '', generation, number,
-- ttl of a settled order (ms).
local sku, open, order, customer = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local o = redis.call('HMGET', order, 'gen', 'number', 'void', 'held', 'units', 'open')
if o[1] ~= ARGV[3] or o[2] ~= ARGV[4] or o[3] then return 0 end
if ARGV[2] ~= '' then
    redis.call('HDEL', order, 'r:' .. ARGV[2])
    for _, field in ipairs(redis.call('HKEYS', order)) do
        if string.sub(field, 1, 2) == 'r:' then return 0 end
    end
end
if o[4] or redis.call('HGET', sku, 'gen') ~= o[1] then return 0 end
redis.call('HINCRBY', sku, 'voided', o[5])
redis.call('HSET', order, 'void', 1)
redis.call('PEXPIRE', order, ARGV[5])
redis.call('HDEL', customer, ARGV[1])
redis.call('ZREM', open, o[6])
return 1
