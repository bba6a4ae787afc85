import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** A network between the service and its database that can be made bad, and good again. */
export interface Proxy {
  readonly port: number;
  /**
   * pass: nothing happens to what goes through. swallow: connections stay open, also new ones, but nothing arrives.
   * refuse: connections are reset, also new ones. A number: everything arrives so many milliseconds later, each way.
   * full: new connections stay open, but nothing arrives over them; those that are there go on.
   */
  become(mode: Mode): void;
  close(): Promise<void>;
}

type Mode = 'pass' | 'swallow' | 'refuse' | 'full' | number;

export async function startProxy(upstream: number): Promise<Proxy> {
  let mode: Mode = 'pass';
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(upstream, '127.0.0.1');
    const cameTooLate = mode === 'full';
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.setNoDelay(true);
      let last = Promise.resolve();
      from.on('data', (chunk) => {
        if (mode === 'swallow' || cameTooLate) return;
        if (mode === 'pass' || mode === 'full') return void to.write(chunk);
        const arrives = sleep(Number(mode));
        last = last.then(() => arrives).then(() => void to.write(chunk));
      });
      from
        .on('error', () => undefined)
        .once('close', () => {
          sockets.delete(from);
          to.destroy();
        });
    }
    if (mode === 'refuse') near.resetAndDestroy();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    become(next) {
      mode = next;
      if (mode === 'refuse') for (const socket of sockets) socket.resetAndDestroy();
    },
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
