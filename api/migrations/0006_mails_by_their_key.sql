-- The condition always holds: it is there so that this index is not one by which a mail can be looked up, which is as cheap as its key by the
-- statistics of a table that was empty when it was vacuumed.
DROP INDEX mails_due;
CREATE INDEX mails_due ON mails (partition_id, try_at) WHERE try_at IS NOT NULL;
