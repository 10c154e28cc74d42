-- An order is written about three times. With half of each page left free all versions of its orders fit on it: no index gets another
-- entry, and no row leaves a hole in its old page, for which a new order would be written into a page anywhere in the table.
ALTER TABLE orders SET (fillfactor = 50);
