-- What order-events tell about orders, each by its id: repeats change nothing.
-- KEYS: sku, its open tickets; then an order and its customer for each event.
-- ARGV: ttl (ms); then for each event: 'held', 'back' or 'ended', order, units, stock version, and the generation and
--       number of its ticket, or ''.
local sku, open, ttl = KEYS[1], KEYS[2], ARGV[1]
local s = redis.call('HMGET', sku, 'gen', 'counted', 'limit', 'number')
local gen, counted, limit, highest = s[1], tonumber(s[2]), s[3], tonumber(s[4])
if not gen then return 'unknown' end

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
        redis.call('PEXPIRE', order, ttl)
    else
        return
    end
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
    redis.call('ZREM', open, o[6])
end

for i = 2, #ARGV, 6 do
    local at = 3 + (i - 2) / 3
    local order, customer = KEYS[at], KEYS[at + 1]
    if ARGV[i + 4] == gen and tonumber(ARGV[i + 5]) > highest then
        -- Redis forgot its last moments: no number is given twice.
        highest = tonumber(ARGV[i + 5])
        redis.call('HSET', sku, 'number', ARGV[i + 5])
    end
    if ARGV[i] == 'held' then
        held(order, customer, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
    elseif ARGV[i] == 'back' then
        no_units(customer, ARGV[i + 1])
    else
        ended(order, customer, ARGV[i + 1])
    end
end
return 'settled'
