-- A hold is written twice, by batches close together: when it is made, and when it is sold or given back. With half of each page left
-- free the second version stays on the page of the first, and no index gets another entry that a vacuum has to take out.
ALTER TABLE holds SET (fillfactor = 50);
