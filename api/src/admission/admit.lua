-- Lets one line of an order in, or says why not. Asked again with the same order it gives the same ticket.
-- KEYS: sku, its open tickets, the order, the customer.
-- ARGV: order, request, fingerprint, units, now, deadline, ttl (ms), the window's product version ('' if none is given),
--       whether it is open, until when; the customer; then '' or 'known', and with it orders and units that he has.
local sku, open, order, customer = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, request, fingerprint = ARGV[1], ARGV[2], ARGV[3]
local units, now, ttl = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[7]

local s = redis.call('HMGET', sku, 'gen', 'granted', 'voided', 'issued', 'limit', 'window_open', 'window_until',
                     'product_version', 'complete_until')
local gen, limit = s[1], s[5]
if not gen then return {'unknown'} end

local o = redis.call('HMGET', order, 'gen', 'number', 'fingerprint', 'void')
if o[1] == gen then
    local has_ticket = o[2] and not o[4]
    if has_ticket and o[3] == fingerprint then
        redis.call('HSET', order, 'r:' .. request, 1)
        return {'ticket', gen, o[2]}
    end
    -- Counted already, by its hold; or another order under the same key: the intake tells.
    if has_ticket or not o[2] then return {'pass'} end
end

local is_open, window_until = s[6], s[7]
if ARGV[8] ~= '' and ARGV[8] == s[8] then
    is_open, window_until = ARGV[9], ARGV[10]
    redis.call('HSET', sku, 'window_open', is_open, 'window_until', window_until)
end
if window_until ~= '' and now >= tonumber(window_until) then
    return {'window', redis.call('HGET', sku, 'sale'), s[8]}
end
if is_open ~= '1' then return {'closed', window_until} end

if tonumber(s[4]) + units > tonumber(s[2]) + tonumber(s[3]) then return {'sold_out'} end

if limit ~= '' then
    if ARGV[12] == 'known' then
        for i = 13, #ARGV, 2 do redis.call('HSETNX', customer, ARGV[i], ARGV[i + 1]) end
        redis.call('HSET', customer, 'known', gen)
    end
    local has, known = 0, now < tonumber(s[9])
    local fields = redis.call('HGETALL', customer)
    for i = 1, #fields, 2 do
        if fields[i] == 'known' then
            known = known or fields[i + 1] == gen
        elseif fields[i] ~= id then
            has = has + tonumber(fields[i + 1])
        end
    end
    if not known then return {'customer'} end
    if has + units > tonumber(limit) then return {'limit'} end
    redis.call('HSET', customer, id, units)
    redis.call('PEXPIRE', customer, ttl)
end

local number = string.format('%.0f', redis.call('HINCRBY', sku, 'number', 1))
redis.call('HINCRBY', sku, 'issued', units)
local member = id .. ':' .. number .. ':' .. ARGV[11]
redis.call('DEL', order)
redis.call('HSET', order, 'gen', gen, 'number', number, 'units', units, 'fingerprint', fingerprint, 'open', member,
           'r:' .. request, 1)
redis.call('PEXPIRE', order, ttl)
redis.call('ZADD', open, ARGV[6], member)
return {'ticket', gen, number}
