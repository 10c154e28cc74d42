-- Held and sold units of each pair of sku ($2) and customer ($3), 0 too. $1 partition.
SELECT k.sku, k.customer_id, u.units
  FROM UNNEST($2::text[], $3::uuid[]) AS k (sku, customer_id)
 CROSS JOIN LATERAL (
    SELECT coalesce(sum(h.quantity), 0)::bigint AS units
      FROM holds AS h
     WHERE h.partition_id = $1 AND h.sku = k.sku AND h.customer_id = k.customer_id
       AND h.status IN ('held', 'sold')
    OFFSET 0) AS u
