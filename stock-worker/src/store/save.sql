-- One batch: items and holds as they are now, and a row of the ledger if $30 is not null. $1 partition.
-- An item that is not as it was when it was loaded is not counted, and nothing is saved.
WITH item AS (
    UPDATE items AS i
       SET restocked = n.restocked, available = n.available, held = n.held, sold = n.sold, granted = n.granted,
           version = n.version, product_version = n.product_version, updated_at = n.updated_at, cause = n.cause
      FROM UNNEST($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
                  $9::bigint[], $10::bigint[], $11::timestamptz[], $12::uuid[])
        AS n (sku, before, restocked, available, held, sold, granted, version, product_version, updated_at, cause)
     CROSS JOIN LATERAL (
        SELECT f.ctid FROM items AS f WHERE f.partition_id = $1 AND f.sku = n.sku AND f.version = n.before OFFSET 0
        ) AS found (row_id)
     WHERE i.ctid = found.row_id
    RETURNING 1
), new_hold AS (
    INSERT INTO holds (partition_id, order_id, line, sku, customer_id, quantity, status, reason, version,
                       confirmed_version, returned_version)
    SELECT $1, n.*
      FROM UNNEST($13::uuid[], $14::smallint[], $15::text[], $16::uuid[], $17::int[], $18::text[], $19::text[],
                  $20::bigint[], $21::bigint[], $22::bigint[]) AS n
    RETURNING 1
), old_hold AS (
    UPDATE holds AS h
       SET status = n.status, confirmed_version = n.confirmed_version, returned_version = n.returned_version
      FROM UNNEST($23::uuid[], $24::smallint[], $25::text[], $26::bigint[], $27::bigint[])
        AS n (order_id, line, status, confirmed_version, returned_version)
     CROSS JOIN LATERAL (
        SELECT f.ctid FROM holds AS f WHERE f.partition_id = $1 AND f.order_id = n.order_id AND f.line = n.line OFFSET 0
        ) AS found (row_id)
     WHERE h.ctid = found.row_id
    RETURNING 1
), entries AS (
    INSERT INTO ledger_batches (partition_id, epoch, seq, entries)
    SELECT $1, $28::bigint, $29::bigint, $30::text WHERE $30 IS NOT NULL
)
SELECT messaging_require(
    (SELECT count(*) FROM item) = cardinality($2) AND (SELECT count(*) FROM new_hold) = cardinality($13)
    AND (SELECT count(*) FROM old_hold) = cardinality($23),
    'the stored stock is not what was loaded')
