-- Takes a level over: the highest version wins. Where nothing is there, or what is there was found wrong, the count
-- begins anew, as a new generation.
-- KEYS: sku, its open tickets.
-- ARGV: version, product version, granted, available, limit or '', sale (JSON), whether it is open, until when,
--       generation, complete until (ms), and '' or the generation, issued and voided units that were found wrong.
local sku, open = KEYS[1], KEYS[2]
local s = redis.call('HMGET', sku, 'gen', 'version', 'product_version', 'limit', 'issued', 'voided')
local function product()
    redis.call('HSET', sku, 'product_version', ARGV[2], 'limit', ARGV[5], 'sale', ARGV[6], 'window_open', ARGV[7],
               'window_until', ARGV[8])
end
local wrong = s[1] and s[1] == ARGV[11] and s[5] == ARGV[12] and s[6] == ARGV[13]
if not s[1] or wrong then
    local granted, available = tonumber(ARGV[3]), tonumber(ARGV[4])
    redis.call('DEL', sku, open)
    redis.call('HSET', sku, 'gen', ARGV[9], 'version', ARGV[1], 'counted', ARGV[1], 'granted', ARGV[3], 'voided', 0,
               'number', 0, 'issued', string.format('%.0f', granted - available),
               'complete_until', granted == available and not wrong and ARGV[10] or 0)
    product()
    return {'new', ARGV[9]}
end
if tonumber(ARGV[1]) > tonumber(s[2]) then
    redis.call('HSET', sku, 'version', ARGV[1], 'granted', ARGV[3])
    if tonumber(ARGV[2]) > tonumber(s[3]) then
        -- Nobody's units were counted while there was no limit.
        if s[4] == '' and ARGV[5] ~= '' then redis.call('HSET', sku, 'complete_until', 0) end
        product()
    end
end
return {'old', s[1]}
