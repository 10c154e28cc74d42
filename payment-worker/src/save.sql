-- One transaction: rows that are new in either table, rows as they are now, orders whose row has moved to the other table, one row of the
-- ledger if $27 is not null. $1 partition. No row is in two of the sets of a table.
WITH open_new AS (
    INSERT INTO open_charges (partition_id, order_id, customer_id, amount, currency, next_call_at, state, body)
    SELECT $1, n.* FROM UNNEST($2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::bigint[], $7::text[], $8::text[]) AS n
), open_changed AS (
    UPDATE open_charges AS c
       SET next_call_at = n.next_call_at, state = n.state, body = n.body
      FROM UNNEST($9::uuid[], $10::bigint[], $11::text[], $12::text[]) AS n (order_id, next_call_at, state, body)
     CROSS JOIN LATERAL (
        SELECT f.ctid FROM open_charges AS f WHERE f.partition_id = $1 AND f.order_id = n.order_id OFFSET 0
        ) AS found (row_id)
     WHERE c.ctid = found.row_id
), open_gone AS (
    DELETE FROM open_charges AS c
     USING UNNEST($13::uuid[]) AS n (order_id)
     CROSS JOIN LATERAL (
        SELECT f.ctid FROM open_charges AS f WHERE f.partition_id = $1 AND f.order_id = n.order_id OFFSET 0
        ) AS found (row_id)
     WHERE c.ctid = found.row_id
), done_new AS (
    INSERT INTO done_charges (partition_id, order_id, customer_id, amount, currency, state, body)
    SELECT $1, n.* FROM UNNEST($14::uuid[], $15::uuid[], $16::bigint[], $17::text[], $18::text[], $19::text[]) AS n
), done_changed AS (
    UPDATE done_charges AS c
       SET state = n.state, body = n.body
      FROM UNNEST($20::uuid[], $21::text[], $22::text[]) AS n (order_id, state, body)
     CROSS JOIN LATERAL (
        SELECT f.ctid FROM done_charges AS f WHERE f.partition_id = $1 AND f.order_id = n.order_id OFFSET 0
        ) AS found (row_id)
     WHERE c.ctid = found.row_id
), done_gone AS (
    DELETE FROM done_charges AS c
     USING UNNEST($23::uuid[]) AS n (order_id)
     CROSS JOIN LATERAL (
        SELECT f.ctid FROM done_charges AS f WHERE f.partition_id = $1 AND f.order_id = n.order_id OFFSET 0
        ) AS found (row_id)
     WHERE c.ctid = found.row_id
), movements AS (
    INSERT INTO money_movements (partition_id, epoch, seq, recorded_at, entries)
    SELECT $1, $24::bigint, $25::bigint, $26::bigint, $27::text WHERE $27 IS NOT NULL
)
SELECT 1
