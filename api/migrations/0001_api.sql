-- Orders taken over HTTP, before and after they were published. Never deleted.
CREATE TABLE intake (
    order_id        uuid        PRIMARY KEY,
    customer_id     uuid        NOT NULL,
    fingerprint     text        NOT NULL,
    publish_before  timestamptz NOT NULL,
    acknowledged    boolean     NOT NULL DEFAULT false,
    -- The whole PlaceOrder envelope, as it was published and will be published again.
    command         text        NOT NULL
) WITH (fillfactor = 90);
-- For the one look at each row after its publish_before; rows arrive in this order.
CREATE INDEX intake_in_order ON intake (publish_before, order_id);

-- How far that look has come.
CREATE TABLE intake_sweep (
    only_row        boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    publish_before  timestamptz NOT NULL,
    order_id        uuid        NOT NULL
);
INSERT INTO intake_sweep (publish_before, order_id)
VALUES ('1970-01-01T00:00:00Z', '00000000-0000-0000-0000-000000000000');

-- Projection of order-events.
CREATE TABLE orders (
    order_id        uuid        PRIMARY KEY,
    customer_id     uuid        NOT NULL,
    created_at      timestamptz NOT NULL,
    version         bigint      NOT NULL,
    state           text        NOT NULL,
    is_final        boolean     NOT NULL,
    -- The order as the api shows it.
    document        text        NOT NULL
) WITH (fillfactor = 60);
CREATE INDEX orders_of_customer ON orders (customer_id, created_at DESC, order_id DESC);

-- Requests about orders that have no answer yet, so that every node can show them.
CREATE TABLE order_requests (
    request_id      uuid        PRIMARY KEY,
    order_id        uuid        NOT NULL,
    kind            text        NOT NULL,
    requested_at    timestamptz NOT NULL
);
CREATE INDEX order_requests_of_order ON order_requests (order_id);

-- Projection of stock-levels.
CREATE TABLE products (
    sku                 text    COLLATE "C" PRIMARY KEY,
    version             bigint  NOT NULL,
    product_version     bigint  NOT NULL,
    name                text    COLLATE "C" NOT NULL,
    option              text,
    category            text    NOT NULL,
    kind                text    NOT NULL,
    price_amount        bigint  NOT NULL,
    price_currency      text    NOT NULL,
    sale                text,
    limit_per_customer  bigint,
    available           bigint  NOT NULL
) WITH (fillfactor = 60);
CREATE INDEX products_by_name ON products (name, sku);

-- Who has which name, or has asked for it. No option is the empty one.
CREATE TABLE product_names (
    name            text        NOT NULL,
    option          text        NOT NULL DEFAULT '',
    sku             text        COLLATE "C" NOT NULL,
    -- The last change that asked for it.
    change_id       uuid,
    CONSTRAINT product_names_unique PRIMARY KEY (name, option)
);
CREATE INDEX product_names_of_sku ON product_names (sku);

-- Admins' changes, and the projection of stock-events.
CREATE TABLE stock_changes (
    change_id       uuid        PRIMARY KEY,
    sku             text        COLLATE "C" NOT NULL,
    quantity        bigint,
    state           text        NOT NULL,
    code            text,
    changed_at      timestamptz NOT NULL,
    -- The sku's ledger entries with this one, once applied.
    stock_version   bigint,
    -- What was asked for; null when only its answer is known.
    fingerprint     text
);
