-- Held and sold units of the customers $3 of the skus $2 (pairs). $1 partition.
SELECT h.sku, h.customer_id, sum(h.quantity)::bigint
  FROM UNNEST($2::text[], $3::uuid[]) AS k (sku, customer_id)
  JOIN holds AS h ON h.partition_id = $1 AND h.sku = k.sku AND h.customer_id = k.customer_id
 WHERE h.status IN ('held', 'sold')
 GROUP BY h.sku, h.customer_id
