-- One transaction: charges that are new, charges as they are now, one row of the ledger if $16 is not null. $1 partition.
WITH new_charge AS (
    INSERT INTO charges (partition_id, order_id, customer_id, amount, currency, next_call_at, state, body)
    SELECT $1, n.* FROM UNNEST($2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::bigint[], $7::text[], $8::text[]) AS n
), old_charge AS (
    UPDATE charges AS c
       SET next_call_at = n.next_call_at, state = n.state, body = n.body
      FROM UNNEST($9::uuid[], $10::bigint[], $11::text[], $12::text[]) AS n (order_id, next_call_at, state, body)
     CROSS JOIN LATERAL (
        SELECT f.ctid FROM charges AS f WHERE f.partition_id = $1 AND f.order_id = n.order_id OFFSET 0
        ) AS found (row_id)
     WHERE c.ctid = found.row_id
), movements AS (
    INSERT INTO money_movements (partition_id, epoch, seq, recorded_at, entries)
    SELECT $1, $13::bigint, $14::bigint, $15::bigint, $16::text WHERE $16 IS NOT NULL
)
SELECT 1
