-- Sagas as they are after all history up to $9; from $10 on history is ahead of some rows. $1 partition.
WITH saved AS (
    SELECT * FROM unnest($2::uuid[], $3::bool[], $4::bigint[], $5::timestamptz[], $6::text[], $7::text[], $8::text[])
        AS c (order_id, is_new, version, next_due_at, next_timer, state, journal)
), inserted AS (
    INSERT INTO sagas (partition_id, order_id, version, next_due_at, next_timer, journal, state, seq)
    SELECT $1, order_id, version, next_due_at, next_timer, journal::bigint[], state, $9 FROM saved WHERE is_new
), updated AS (
    UPDATE sagas
       SET version = saved.version,
           next_due_at = saved.next_due_at,
           next_timer = saved.next_timer,
           journal = sagas.journal || saved.journal::bigint[],
           state = saved.state,
           seq = $9
      FROM saved
     CROSS JOIN LATERAL (
        SELECT f.ctid FROM sagas AS f WHERE f.partition_id = $1 AND f.order_id = saved.order_id OFFSET 0
        ) AS found (row_id)
     WHERE NOT saved.is_new AND sagas.ctid = found.row_id
)
INSERT INTO saga_checkpoint AS c (partition_id, seq) VALUES ($1, $10)
ON CONFLICT ON CONSTRAINT saga_checkpoint_pkey DO UPDATE SET seq = excluded.seq
