import { connect, createServer, type Server, type Socket } from 'node:net';

/** A way to the engine that a test can cut. */
export class EngineProxy {
  private server: Server | undefined;
  private readonly sockets = new Set<Socket>();

  /** @param path of the socket that it listens on */
  constructor(private readonly path: string) {}

  /** As DOCKER_HOST. */
  get address(): string {
    return `unix://${this.path}`;
  }

  open(): Promise<void> {
    const engine = (process.env['DOCKER_HOST'] ?? 'unix:///var/run/docker.sock').replace(/^(unix|tcp):\/\//, '');
    const [, host, port] = /^([^/]+):(\d+)$/.exec(engine) ?? [];
    // Half open: who attaches to a container ends its own direction first.
    this.server = createServer({ allowHalfOpen: true }, (near) => {
      const target = host === undefined ? { path: engine } : { host, port: Number(port) };
      const far = connect({ ...target, allowHalfOpen: true });
      near.pipe(far).pipe(near);
      for (const socket of [near, far]) {
        this.sockets.add(socket);
        socket
          .on('close', () => this.sockets.delete(socket))
          .on('error', () => [near, far].forEach((end) => end.destroy()));
      }
    });
    return new Promise((done, fail) => {
      this.server?.once('error', fail).listen(this.path, done);
    });
  }

  /** Ends all connections; nobody gets through until `open`. */
  cut(): void {
    this.server?.close();
    for (const socket of this.sockets) socket.destroy();
  }
}
