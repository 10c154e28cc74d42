-- What order-events tell about orders, each by its id: repeats change nothing.
-- KEYS: for each sku: itself, its open tickets; then an order and its customer for each of its events.
-- ARGV: ttl of a customer, of a settled order (ms); then for each sku how many events it has, and for each of them: 'held', 'back'
--       or 'ended', order, units, stock version, and the generation and number of its ticket, or ''.
-- Answers which skus are not known here, by their place (1: the first); nothing was done for those.
local ttl, settled_ttl = ARGV[1], ARGV[2]
-- Of the sku in hand.
local sku, open, gen, counted, limit, highest

local function held(order, customer, id, units, version)
    local o = redis.call('HMGET', order, 'gen', 'number', 'void', 'held', 'open')
    if o[1] == gen then
        if o[4] then return end
        redis.call('HSET', order, 'held', 1)
        redis.call('ZREM', open, o[5])
        -- Given up too early: it came through all the same.
        if o[3] then
            redis.call('HINCRBY', sku, 'voided', -tonumber(units))
            redis.call('HDEL', order, 'void')
        end
    elseif tonumber(version) > counted then
        redis.call('HINCRBY', sku, 'issued', units)
        redis.call('DEL', order)
        redis.call('HSET', order, 'gen', gen, 'units', units, 'held', 1)
    else
        return
    end
    redis.call('PEXPIRE', order, settled_ttl)
    if limit ~= '' then
        redis.call('HSETNX', customer, id, units)
        redis.call('PEXPIRE', customer, ttl)
    end
end

local function no_units(customer, id)
    if limit ~= '' then
        redis.call('HSET', customer, id, 0)
        redis.call('PEXPIRE', customer, ttl)
    end
end

local function ended(order, customer, id)
    no_units(customer, id)
    local o = redis.call('HMGET', order, 'gen', 'number', 'void', 'held', 'units', 'open')
    if o[1] ~= gen or not o[2] or o[3] or o[4] then return end
    redis.call('HINCRBY', sku, 'voided', o[5])
    redis.call('HSET', order, 'void', 1)
    redis.call('PEXPIRE', order, settled_ttl)
    redis.call('ZREM', open, o[6])
end

local unknown, place, key, arg = {}, 0, 1, 3
while arg <= #ARGV do
    local events = tonumber(ARGV[arg])
    sku, open, place, key, arg = KEYS[key], KEYS[key + 1], place + 1, key + 2, arg + 1
    local s = redis.call('HMGET', sku, 'gen', 'counted', 'limit', 'number')
    gen, counted, limit, highest = s[1], tonumber(s[2]), s[3], tonumber(s[4])
    if not gen then unknown[#unknown + 1] = place end
    for _ = 1, gen and events or 0 do
        local order, customer = KEYS[key], KEYS[key + 1]
        local what, id, units, version = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
        if ARGV[arg + 4] == gen and tonumber(ARGV[arg + 5]) > highest then
            -- Redis forgot its last moments: no number is given twice.
            highest = tonumber(ARGV[arg + 5])
            redis.call('HSET', sku, 'number', ARGV[arg + 5])
        end
        if what == 'held' then
            held(order, customer, id, units, version)
        elseif what == 'back' then
            no_units(customer, id)
        else
            ended(order, customer, id)
        end
        key, arg = key + 2, arg + 6
    end
    if not gen then key, arg = key + 2 * events, arg + 6 * events end
end
return unknown
