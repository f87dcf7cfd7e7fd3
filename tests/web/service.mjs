// A service of the tests' own, which they can kill and start again.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const BINARY = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'debug/todo-backend');

export async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

/** How long an answer may take, in ms. */
const PATIENCE = 30_000;

// Whichever way the tests end.
const services = new Set();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(1));
process.on('exit', () => services.forEach((service) => service.process?.kill('SIGKILL')));

export class Service {
  /** With these settings besides those that all have. */
  constructor(settings = {}) {
    this.settings = settings;
    services.add(this);
  }

  async start() {
    this.directory ??= await mkdtemp(join(tmpdir(), 'todo-backend-web-'));
    this.port ??= await freePort();
    this.url = `http://127.0.0.1:${this.port}`;
    const env = {
      PORT: String(this.port), DAPR_HTTP_PORT: String(await freePort()), ACCESS_TOKEN_EXPIRE_MINUTES: '1', RUST_LOG: 'error',
      ...this.settings,
    };
    this.process = spawn(BINARY, { cwd: this.directory, env, stdio: ['ignore', 'inherit', 'inherit'] });
    for (;;) {
      const answer = await fetch(`${this.url}/health/live`, limited()).catch(() => undefined);
      if (answer?.ok) return;
      assert.equal(this.process.exitCode, null, 'the service has ended');
      await sleep(50);
    }
  }

  async kill() {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const ended = once(this.process, 'exit');
    this.process.kill('SIGKILL');
    await ended;
  }

  async end() {
    if (this.process) await this.kill();
    if (this.directory) await rm(this.directory, { recursive: true, force: true });
  }

  /** Another client of the same user: {status, text, body, headers}. */
  async call(method, path, body) {
    const credentials = new URLSearchParams({ username: 'demo', password: 'demo123' });
    const login = await (await fetch(`${this.url}/auth/login?${credentials}`, { method: 'POST', ...limited() })).json();
    const headers = { Authorization: `Bearer ${login.access_token}`, 'Content-Type': 'application/json' };
    const answer = await fetch(this.url + path, { method, headers, body: body && JSON.stringify(body), ...limited() });
    const text = await answer.text();
    const isJson = answer.headers.get('content-type')?.endsWith('/json');
    return { status: answer.status, text, body: isJson ? JSON.parse(text) : undefined, headers: answer.headers };
  }
}

function limited() {
  return { signal: AbortSignal.timeout(PATIENCE) };
}
