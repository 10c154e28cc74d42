// The saga as DBOS's documentation has it: a registered workflow whose steps are transactions of a datasource, each committed
// together with its checkpoint. Stock and charges are rows in the same PostgreSQL that Firstcome uses.

import { readFileSync } from 'node:fs';
import { DBOS } from '@dbos-inc/dbos-sdk';
import { IsolationLevel, PostgresDataSource } from '@dbos-inc/postgres-datasource';
import postgres from 'postgres';
import { UNITS, drive, skus } from '../driver.mjs';

const url = process.env.RIVAL_DATABASE_URL;
const options = (max) => {
  const { hostname, port, username, password, pathname } = new URL(url);
  return { host: hostname, port: Number(port), username, password, database: pathname.slice(1), max, onnotice: () => {} };
};

const sql = postgres(options(1));
await sql`CREATE TABLE IF NOT EXISTS stock (
  sku text PRIMARY KEY, available bigint NOT NULL CHECK (available >= 0), held bigint NOT NULL, sold bigint NOT NULL
) WITH (fillfactor = 50)`;
await sql`CREATE TABLE IF NOT EXISTS charges (order_id text PRIMARY KEY, amount bigint NOT NULL, approved boolean NOT NULL)`;
await sql`INSERT INTO stock SELECT sku, ${UNITS}, 0, 0 FROM UNNEST(${skus}::text[]) AS k (sku) ON CONFLICT DO NOTHING`;

await PostgresDataSource.initializeDBOSSchema(options(1));
const shop = new PostgresDataSource('shop', options(20));

// One row by its key: what the statement itself locks is enough.
const isolationLevel = IsolationLevel.ReadCommitted;
const reserve = shop.registerTransaction(
  async (sku) => {
    const held = await shop.client`UPDATE stock SET available = available - 1, held = held + 1
                                    WHERE sku = ${sku} AND available > 0`;
    return held.count === 1;
  },
  { name: 'reserve', isolationLevel },
);
const charge = shop.registerTransaction(
  async (orderId, isDeclined) => {
    await shop.client`INSERT INTO charges VALUES (${orderId}, 1000, ${!isDeclined})`;
    return !isDeclined;
  },
  { name: 'charge', isolationLevel },
);
const confirm = shop.registerTransaction(
  async (sku) => {
    await shop.client`UPDATE stock SET held = held - 1, sold = sold + 1 WHERE sku = ${sku}`;
  },
  { name: 'confirm', isolationLevel },
);
const release = shop.registerTransaction(
  async (sku) => {
    await shop.client`UPDATE stock SET held = held - 1, available = available + 1 WHERE sku = ${sku}`;
  },
  { name: 'release', isolationLevel },
);

const saga = DBOS.registerWorkflow(
  async ({ id, sku, isDeclined }) => {
    if (!(await reserve(sku))) return 'REJECTED';
    if (await charge(id, isDeclined)) {
      await confirm(sku);
      return 'PAID';
    }
    await release(sku);
    return 'PAYMENT_FAILED';
  },
  { name: 'saga' },
);

DBOS.setConfig({
  name: 'rival',
  applicationVersion: '1',
  systemDatabaseUrl: url,
  systemDatabasePoolSize: 20,
  logLevel: 'error',
});
await DBOS.launch();
const { dependencies } = JSON.parse(readFileSync(new URL('package.json', import.meta.url), 'utf8'));
await drive(`DBOS TypeScript ${dependencies['@dbos-inc/dbos-sdk']}`, async (order) => {
  const handle = await DBOS.startWorkflow(saga, { workflowID: order.id })(order);
  return handle.getResult();
});
const [books] = await sql`SELECT sum(available + held + sold)::text AS units, sum(held)::text AS held, sum(sold)::text AS sold,
                                 (SELECT count(*) FROM charges WHERE approved)::text AS charged FROM stock`;
if (books.held !== '0' || books.sold !== books.charged || BigInt(books.units) !== BigInt(UNITS) * BigInt(skus.length)) {
  throw new Error(`the books do not agree: ${JSON.stringify(books)}`);
}
await DBOS.shutdown();
await sql.end();
process.exit(0);
