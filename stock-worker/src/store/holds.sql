-- The holds of the orders $2. $1 partition.
SELECT h.order_id, h.line, h.sku, h.customer_id, h.quantity, h.status, h.reason, h.version, h.confirmed_version,
       h.returned_version
  FROM UNNEST($2::uuid[]) AS k (order_id)
 CROSS JOIN LATERAL (
    SELECT h.* FROM holds AS h WHERE h.partition_id = $1 AND h.order_id = k.order_id OFFSET 0) AS h
