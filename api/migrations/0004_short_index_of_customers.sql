-- A customer is anywhere in this index, so with many orders each insert is into another page of it: a hash of four bytes instead of a
-- customer's and an order's sixteen each make it less than half as large, and more of it stays in memory. Different customers with one
-- hash are told apart by the row. Orders of one instant are sorted by their id when they are read.
DROP INDEX orders_of_customer;
CREATE INDEX orders_of_customer ON orders (uuid_hash(customer_id), created_at DESC);
