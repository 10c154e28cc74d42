-- Lets lines of orders in, or says why not, one after the other. Asked again with the same order it gives the same ticket.
-- KEYS: for each line: the sku, its open tickets, the order, the customer.
-- ARGV: ttl (ms); then for each line: order, request, fingerprint, units, now, deadline, the window's product version ('' if none
--       is given), whether it is open, until when; the customer; then '', or how many orders with units he is known to have, and
--       these: order, units.
-- Answers a list for each line.
local ttl = ARGV[1]
-- Each sku as it is by now: nobody else changes it meanwhile.
local skus = {}

local function known(sku)
    local s = skus[sku]
    if not s then
        local f = redis.call('HMGET', sku, 'gen', 'granted', 'voided', 'issued', 'limit', 'window_open', 'window_until',
                             'product_version', 'complete_until')
        s = {gen = f[1], limit = f[5], is_open = f[6], window_until = f[7], product_version = f[8], complete_until = f[9]}
        s.left = s.gen and tonumber(f[2]) + tonumber(f[3]) - tonumber(f[4])
        skus[sku] = s
    end
    return s
end

local function admit(key, arg)
    local sku, open, order, customer = KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]
    local id, request, fingerprint = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2]
    local units, now = tonumber(ARGV[arg + 3]), tonumber(ARGV[arg + 4])
    local s = known(sku)
    if not s.gen then return {'unknown'} end

    local o = redis.call('HMGET', order, 'gen', 'number', 'fingerprint', 'void')
    if o[1] == s.gen then
        local has_ticket = o[2] and not o[4]
        if has_ticket and o[3] == fingerprint then
            redis.call('HSET', order, 'r:' .. request, 1)
            return {'ticket', s.gen, o[2]}
        end
        -- Counted already, by its hold; or another order under the same key: the intake tells.
        if has_ticket or not o[2] then return {'pass'} end
    end

    if ARGV[arg + 6] ~= '' and ARGV[arg + 6] == s.product_version then
        s.is_open, s.window_until = ARGV[arg + 7], ARGV[arg + 8]
        redis.call('HSET', sku, 'window_open', s.is_open, 'window_until', s.window_until)
    end
    if s.window_until ~= '' and now >= tonumber(s.window_until) then
        return {'window', redis.call('HGET', sku, 'sale'), s.product_version}
    end
    if s.is_open ~= '1' then return {'closed', s.window_until} end

    if units > s.left then return {'sold_out'} end

    if s.limit ~= '' then
        if ARGV[arg + 10] ~= '' then
            for i = arg + 11, arg + 9 + 2 * tonumber(ARGV[arg + 10]), 2 do
                redis.call('HSETNX', customer, ARGV[i], ARGV[i + 1])
            end
            redis.call('HSET', customer, 'known', s.gen)
        end
        local has, is_known = 0, now < tonumber(s.complete_until)
        local fields = redis.call('HGETALL', customer)
        for i = 1, #fields, 2 do
            if fields[i] == 'known' then
                is_known = is_known or fields[i + 1] == s.gen
            elseif fields[i] ~= id then
                has = has + tonumber(fields[i + 1])
            end
        end
        if not is_known then return {'customer'} end
        if has + units > tonumber(s.limit) then return {'limit'} end
        redis.call('HSET', customer, id, units)
        redis.call('PEXPIRE', customer, ttl)
    end

    local number = string.format('%.0f', redis.call('HINCRBY', sku, 'number', 1))
    redis.call('HINCRBY', sku, 'issued', units)
    s.left = s.left - units
    local member = id .. ':' .. number .. ':' .. ARGV[arg + 9]
    redis.call('DEL', order)
    redis.call('HSET', order, 'gen', s.gen, 'number', number, 'units', units, 'fingerprint', fingerprint, 'open', member,
               'r:' .. request, 1)
    redis.call('PEXPIRE', order, ttl)
    redis.call('ZADD', open, ARGV[arg + 5], member)
    return {'ticket', s.gen, number}
end

local answers, arg = {}, 2
for key = 1, #KEYS, 4 do
    answers[#answers + 1] = admit(key, arg)
    arg = arg + 11 + 2 * (tonumber(ARGV[arg + 10]) or 0)
end
return answers
