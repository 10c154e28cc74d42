-- A saga's row is saved some time after its history: history is what a batch writes, rows follow. History is numbered in the
-- order in which it was applied (a redriven record keeps its old offset), and each row says how far it has come.
-- A build from before this migration must not run beside one from after it: it would take old rows for the present.

ALTER TABLE saga_history ADD COLUMN seq bigint;
UPDATE saga_history AS h SET seq = n.seq
  FROM (SELECT partition_id, first_offset, row_number() OVER (PARTITION BY partition_id ORDER BY first_offset) AS seq
          FROM saga_history) AS n
 WHERE h.partition_id = n.partition_id AND h.first_offset = n.first_offset;

ALTER TABLE sagas ADD COLUMN seq bigint NOT NULL DEFAULT 0;
UPDATE sagas AS s SET journal = n.journal, seq = n.last
  FROM (SELECT s.partition_id, s.order_id, array_agg(h.seq ORDER BY h.seq) AS journal, max(h.seq) AS last
          FROM sagas AS s
          JOIN saga_history AS h ON h.partition_id = s.partition_id AND h.first_offset = ANY (s.journal)
         GROUP BY 1, 2) AS n
 WHERE s.partition_id = n.partition_id AND s.order_id = n.order_id;
ALTER TABLE sagas ALTER COLUMN seq DROP DEFAULT;

ALTER TABLE saga_history ALTER COLUMN seq SET NOT NULL;
ALTER TABLE saga_history DROP CONSTRAINT saga_history_pkey;
ALTER TABLE saga_history ADD CONSTRAINT saga_history_pkey PRIMARY KEY (partition_id, seq);
ALTER TABLE saga_history DROP COLUMN first_offset;

CREATE TABLE saga_checkpoint (
    partition_id int    NOT NULL,
    seq          bigint NOT NULL,
    CONSTRAINT saga_checkpoint_pkey PRIMARY KEY (partition_id)
) WITH (fillfactor = 20);
INSERT INTO saga_checkpoint (partition_id, seq) SELECT partition_id, max(seq) FROM saga_history GROUP BY 1;

COMMENT ON TABLE saga_checkpoint IS 'the rows of a partition hold all of its history up to here; a new owner folds the rest';
COMMENT ON COLUMN saga_history.seq IS 'number of the batch within its partition, in the order they were applied';
COMMENT ON COLUMN sagas.seq IS 'the row holds its order''s history up to here';
COMMENT ON COLUMN sagas.journal IS 'seq of each saga_history row with entries of this order, in order, up to the row''s seq';
