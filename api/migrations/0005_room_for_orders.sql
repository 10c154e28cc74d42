-- An order is written about three times. With half of each page left free hardly a version leaves the page of the one before: few indexes get
-- another entry, and few rows leave a hole in their old page, for which a new order would be written into a page anywhere in the table.
ALTER TABLE orders SET (fillfactor = 50);
