-- The remembered changes of the requests $2. $1 partition.
SELECT c.request_id, c.sku, c.quantity, c.applied_version, c.refused_code
  FROM UNNEST($2::uuid[]) AS k (request_id)
 CROSS JOIN LATERAL (
    SELECT c.* FROM changes AS c WHERE c.partition_id = $1 AND c.request_id = k.request_id OFFSET 0) AS c
