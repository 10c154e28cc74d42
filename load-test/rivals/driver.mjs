// The load of a rival: the same sagas, closed loop and one at a time, as `load-test sagas` and `load-test idle` put on Firstcome.
// A rival hands over how one order's saga is run; what was seen is printed as one line of JSON.

import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '10' },
    'idle-orders': { type: 'string', default: '100' },
    skus: { type: 'string', default: '1000' },
    'in-flight': { type: 'string', default: '16,64,256' },
  },
});

/** Products there are; orders of the hot scenario are all of the first one. */
export const skus = Array.from({ length: Number(values.skus) }, (_, number) => `RIVAL-${number}`);
/** Units of each product: more than can be sold. */
export const UNITS = 1_000_000_000;

const percentile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;

let placed = 0;
const next = (isHot, declinedOfTen) => {
  const number = placed++;
  return {
    id: `order-${process.pid}-${number}`,
    // Spread by a step that has no common factor with the number of products.
    sku: skus[isHot ? 0 : (number * 7919) % skus.length],
    isDeclined: number % 10 < declinedOfTen,
  };
};

/** Runs one order and says how long it took; throws if it ended otherwise than its payment says. */
const complete = async (run, order) => {
  const begun = performance.now();
  const state = await run(order);
  const wanted = order.isDeclined ? 'PAYMENT_FAILED' : 'PAID';
  if (state !== wanted) throw new Error(`${order.id} ended ${state} instead of ${wanted}`);
  return performance.now() - begun;
};

/** As many buyers as are to be in flight, each with one order after the other until the time is over. */
const closed = async (run, inFlight, isHot) => {
  const took = [];
  const begun = performance.now();
  const end = begun + 1000 * Number(values.seconds);
  const buyer = async () => {
    while (performance.now() < end) took.push(await complete(run, next(isHot, 1)));
  };
  await Promise.all(Array.from({ length: inFlight }, buyer));
  const seconds = (performance.now() - begun) / 1000;
  took.sort((a, b) => a - b);
  const [p50, p99] = [percentile(took, 0.5), percentile(took, 0.99)];
  return { in_flight: inFlight, orders: took.length, per_second: took.length / seconds, p50_ms: p50, p99_ms: p99 };
};

/** Each number in flight in turn, until one is slower than the one before; all are printed, the fastest counts. */
const best = async (run, isHot) => {
  const seen = [];
  for (const inFlight of values['in-flight'].split(',').map(Number)) {
    seen.push(await closed(run, inFlight, isHot));
    console.error(`${isHot ? 'hot' : 'uniform'}, ${inFlight} in flight: ${seen.at(-1).per_second.toFixed(0)}/s`);
    if (seen.length > 1 && seen.at(-1).per_second < seen.at(-2).per_second) break;
  }
  return seen.reduce((a, b) => (b.per_second > a.per_second ? b : a));
};

/**
 * Warms up, measures and prints.
 * @param {string} name with the versions that ran
 * @param {(order: {id: string, sku: string, isDeclined: boolean}) => Promise<string>} run one order's saga, to its state
 */
export const drive = async (name, run) => {
  await closed(run, 64, false);
  const idle = [];
  for (let number = 0; number < Number(values['idle-orders']); number++) {
    idle.push(await complete(run, next(true, 0)));
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  idle.sort((a, b) => a - b);
  const uniform = await best(run, false);
  const hot = await best(run, true);
  console.log(
    JSON.stringify({
      name,
      idle: { orders: idle.length, p50_ms: percentile(idle, 0.5), p99_ms: percentile(idle, 0.99) },
      uniform,
      hot,
    }),
  );
};
