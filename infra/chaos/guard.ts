import { createInterface } from 'node:readline';
import { type GuardOrder, insistOnTakingBack } from './injection';

/** The process that takes a fault back when the one that made it was killed, or hangs. */

function main(): void {
  // Whoever ends everything around it wants the fault to go, not to stay.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
  let order: GuardOrder | undefined;
  let limit: NodeJS.Timeout | undefined;
  let acting = false;
  const act = async () => {
    // The end of the input, while it is being taken back, must not cut that off.
    if (acting) return;
    acting = true;
    if (order !== undefined) await insistOnTakingBack(order).catch(() => undefined);
    process.exit();
  };
  createInterface({ input: process.stdin })
    .on('line', (line) => {
      if (line === 'done') process.exit();
      // A second order begins the time anew.
      order = JSON.parse(line) as GuardOrder;
      clearTimeout(limit);
      limit = setTimeout(() => void act(), order.limitSeconds * 1_000);
    })
    .on('close', () => void act());
}

main();
