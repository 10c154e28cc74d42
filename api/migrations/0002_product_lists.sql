-- Lists of products: each order, for all products and within a category. Read backwards, an index has the opposite order.
CREATE INDEX products_by_price ON products (price_amount, sku);
CREATE INDEX products_by_category_and_name ON products (category, name, sku);
CREATE INDEX products_by_category_and_price ON products (category, price_amount, sku);

-- A sale window's instants as they are written (RFC 3339 UTC, milliseconds: their order as texts is their order in time), and
-- daily windows whole: whether one of those is open only a calendar knows, so each different one is asked for once.
ALTER TABLE products
    ADD COLUMN sale_opens_at  text COLLATE "C" GENERATED ALWAYS AS (sale::jsonb ->> 'opens_at') STORED,
    ADD COLUMN sale_closes_at text COLLATE "C" GENERATED ALWAYS AS (sale::jsonb ->> 'closes_at') STORED,
    ADD COLUMN sale_daily     text COLLATE "C"
        GENERATED ALWAYS AS (CASE WHEN (sale::jsonb -> 'daily') IS NOT NULL THEN sale END) STORED;
CREATE INDEX products_sale_daily ON products (sale_daily) WHERE sale_daily IS NOT NULL;
