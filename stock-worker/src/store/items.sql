-- The items of the skus $2. $1 partition.
SELECT i.sku, i.product, i.initial, i.restocked, i.available, i.held, i.sold, i.granted, i.version, i.product_version,
       i.updated_at, i.cause
  FROM UNNEST($2::text[]) AS k (sku)
 CROSS JOIN LATERAL (
    SELECT i.*, (SELECT p.product FROM products AS p WHERE p.partition_id = $1 AND p.sku = k.sku) AS product
      FROM items AS i
     WHERE i.partition_id = $1 AND i.sku = k.sku
    OFFSET 0) AS i
