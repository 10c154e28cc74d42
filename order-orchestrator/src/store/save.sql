WITH changed AS (
    SELECT * FROM unnest($2::uuid[], $3::bool[], $4::bigint[], $5::timestamptz[], $6::text[], $7::text[])
        AS c (order_id, is_new, version, next_due_at, next_timer, state)
), inserted AS (
    INSERT INTO sagas (partition_id, order_id, version, next_due_at, next_timer, journal, state)
    SELECT $1, order_id, version, next_due_at, next_timer, ARRAY[$8::bigint], state FROM changed WHERE is_new
), updated AS (
    UPDATE sagas
       SET version = changed.version,
           next_due_at = changed.next_due_at,
           next_timer = changed.next_timer,
           journal = sagas.journal || $8::bigint,
           state = changed.state
      FROM changed
     CROSS JOIN LATERAL (
        SELECT f.ctid FROM sagas AS f WHERE f.partition_id = $1 AND f.order_id = changed.order_id OFFSET 0
        ) AS found (row_id)
     WHERE NOT changed.is_new AND sagas.ctid = found.row_id
)
INSERT INTO saga_history (partition_id, first_offset, body) VALUES ($1, $8, $9)
