-- Where a customer wants to hear about an order's payment. Personal data: nowhere else, and gone with the order's end.
CREATE TABLE mail_addresses (
    order_id        uuid        PRIMARY KEY,
    address         text        NOT NULL,
    -- The order's version that was told last: an event that comes again is not told again.
    told_version    bigint      NOT NULL DEFAULT 0
);

-- Mails that are to be sent; a row goes once the mail server has taken its mail, or refused it for good.
CREATE TABLE mails (
    partition_id    integer     NOT NULL,
    order_id        uuid        NOT NULL,
    version         bigint      NOT NULL,
    -- The event's: it makes the mail's Message-ID.
    message_id      uuid        NOT NULL,
    address         text        NOT NULL,
    subject         text        NOT NULL,
    body            text        NOT NULL,
    tries           integer     NOT NULL DEFAULT 0,
    try_at          timestamptz NOT NULL,
    CONSTRAINT mails_pkey PRIMARY KEY (partition_id, order_id, version)
);
CREATE INDEX mails_due ON mails (partition_id, try_at);
