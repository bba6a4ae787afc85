import { tooLong, type Trial } from './event-loop';
import { startService } from './harness';

/**
 * A service in a process of its own, where nothing but its requests costs processor time. Says its port, then answers
 * each list of trials with those that held the event loop for too long. Ends when its parent disconnects.
 */
async function main(): Promise<void> {
  const service = await startService({ corsOrigins: ['https://desk.example'] });
  process.on('message', (message) => {
    const { trials, boundMs } = message as { readonly trials: readonly Trial[]; readonly boundMs: number };
    void tooLong(service.port, trials, boundMs).then((found) => process.send?.(found));
  });
  process.once('disconnect', () => void service.stop().then(() => process.exit()));
  process.send?.(service.port);
}

void main();
