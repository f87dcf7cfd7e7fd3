// A network between one client and a service: it can be there, be gone, or lose every answer.
import { once } from 'node:events';
import net from 'node:net';

export class Network {
  #mode = 'up';
  #sockets = new Set();
  /** First lines of what was sent, if they came alone. */
  requests = [];

  /** Passes on what is sent to `port`. */
  async open(port) {
    this.server = net.createServer((socket) => {
      this.#sockets.add(socket);
      const onward = net.connect(port, '127.0.0.1');
      const end = () => (socket.destroy(), onward.destroy(), this.#sockets.delete(socket));
      for (const side of [socket, onward]) side.on('error', end).on('close', end);
      if (this.#mode === 'down') return end();
      socket.on('data', (data) => {
        this.requests.push(String(data).split('\r\n', 1)[0]);
        onward.write(data);
      });
      onward.on('data', (data) => (this.#mode === 'up' ? socket.write(data) : end()));
    });
    this.server.listen(0, '127.0.0.1');
    await once(this.server, 'listening');
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  /** up, down, or deaf: requests arrive, and no answer comes. */
  set mode(mode) {
    this.#mode = mode;
    if (mode === 'down') for (const socket of this.#sockets) socket.destroy();
  }

  close() {
    this.mode = 'down';
    this.server.close();
  }
}
