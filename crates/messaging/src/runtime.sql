-- The runtime's own tables, in each service's database. Every statement may be repeated.

CREATE TABLE IF NOT EXISTS messaging_position (
    partition_id   integer NOT NULL,
    consumer_group text    NOT NULL,
    topic          text    NOT NULL,
    epoch          bigint  NOT NULL,
    next_offset    bigint  NOT NULL,
    cluster_id     text    NOT NULL,
    log_id         text,
    CONSTRAINT messaging_position_pk PRIMARY KEY (partition_id, consumer_group, topic)
) WITH (fillfactor = 20);

CREATE TABLE IF NOT EXISTS messaging_outbox (
    partition_id   integer NOT NULL,
    consumer_group text    NOT NULL,
    topic          text    NOT NULL,
    epoch          bigint  NOT NULL,
    seq            bigint  NOT NULL,
    body           bytea   NOT NULL,
    CONSTRAINT messaging_outbox_pk PRIMARY KEY (partition_id, consumer_group, topic, epoch, seq)
);
-- The body is compressed already.
ALTER TABLE messaging_outbox ALTER COLUMN body SET STORAGE EXTERNAL;
-- Rows come and go all the time: their room is found soon, and kept for those that come next instead of given back to the system.
ALTER TABLE messaging_outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    vacuum_truncate = false, toast.vacuum_truncate = false);

CREATE TABLE IF NOT EXISTS messaging_parked (
    partition_id   integer NOT NULL,
    consumer_group text    NOT NULL,
    topic          text    NOT NULL,
    record_offset  bigint  NOT NULL,
    parking_key    text    NOT NULL,
    record_time_ms bigint  NOT NULL,
    record_key     bytea,
    headers        bytea   NOT NULL,
    value          bytea   NOT NULL,
    cause          text    NOT NULL,
    detail         text    NOT NULL,
    parked_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT messaging_parked_pk PRIMARY KEY (partition_id, consumer_group, topic, record_offset)
);

-- Aborts the whole transaction, which is then tried again, unless this holds: for a write whose result nobody reads.
CREATE OR REPLACE FUNCTION messaging_require(p_holds boolean, p_what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_holds IS NOT TRUE THEN
        RAISE EXCEPTION '%', p_what USING ERRCODE = 'FC003';
    END IF;
END $$;

-- Which database this is, and of which set. A consumer may spread its partitions over several databases; the first one of its
-- list is home: it knows the others, and where each partition is.
CREATE TABLE IF NOT EXISTS messaging_database (
    only_row boolean NOT NULL DEFAULT true,
    id       uuid    NOT NULL,
    home_id  uuid,
    number   integer,
    CONSTRAINT messaging_database_pk PRIMARY KEY (only_row),
    CONSTRAINT messaging_database_one_row CHECK (only_row)
);

-- At home: the databases of the list, by their place in it.
CREATE TABLE IF NOT EXISTS messaging_member (
    number      integer NOT NULL,
    database_id uuid    NOT NULL,
    CONSTRAINT messaging_member_pk PRIMARY KEY (number)
);

-- At home: where each partition's position and state are. Written before either, and never changed.
CREATE TABLE IF NOT EXISTS messaging_map (
    partition_id   integer NOT NULL,
    consumer_group text    NOT NULL,
    topic          text    NOT NULL,
    number         integer NOT NULL,
    CONSTRAINT messaging_map_pk PRIMARY KEY (partition_id, consumer_group, topic)
);

CREATE OR REPLACE FUNCTION messaging_map_is_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the map of partitions to databases is fixed: %/% has its state in database %',
        OLD.topic, OLD.partition_id, OLD.number USING ERRCODE = 'FC002';
END $$;
CREATE OR REPLACE TRIGGER messaging_map_fixed BEFORE UPDATE OR DELETE ON messaging_map
    FOR EACH ROW EXECUTE FUNCTION messaging_map_is_fixed();

-- Moves the position and keeps the outputs, or aborts the whole transaction: then the partition has another owner.
CREATE OR REPLACE FUNCTION messaging_advance(
    p_partition integer, p_group text, p_topic text, p_epoch bigint,
    p_expected bigint, p_next bigint,
    p_seq bigint, p_body bytea,
    p_done_epoch bigint, p_done_seq bigint
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE messaging_position
       SET next_offset = p_next
     WHERE partition_id = p_partition AND consumer_group = p_group AND topic = p_topic
       AND epoch = p_epoch AND next_offset = p_expected;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'fenced: %/% has another owner', p_topic, p_partition USING ERRCODE = 'FC001';
    END IF;
    IF p_body IS NOT NULL THEN
        INSERT INTO messaging_outbox (partition_id, consumer_group, topic, epoch, seq, body)
        VALUES (p_partition, p_group, p_topic, p_epoch, p_seq, p_body);
    END IF;
    IF p_done_epoch IS NOT NULL THEN
        DELETE FROM messaging_outbox
         WHERE partition_id = p_partition AND consumer_group = p_group AND topic = p_topic
           AND (epoch, seq) <= (p_done_epoch, p_done_seq);
    END IF;
END $$;
