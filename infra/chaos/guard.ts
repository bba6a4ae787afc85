import { createInterface } from 'node:readline';
import { type GuardOrder, takeBack } from './injection';

/** The process that takes a fault back when the one that made it was killed, or hangs. */

function main(): void {
  // Whoever ends everything around it wants the fault to go, not to stay.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
  let order: GuardOrder | undefined;
  const act = async () => {
    if (order === undefined) process.exit();
    const { prefix, undo } = order;
    order = undefined;
    await takeBack(prefix, undo).catch(() => undefined);
    process.exit();
  };
  createInterface({ input: process.stdin })
    .on('line', (line) => {
      if (line === 'done') process.exit();
      order = JSON.parse(line) as GuardOrder;
      setTimeout(() => void act(), order.limitSeconds * 1_000);
    })
    .on('close', () => void act());
}

main();
