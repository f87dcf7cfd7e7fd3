// web/client for the tests: bundled, and what a browser has and Node.js has not.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from '../../web/node_modules/esbuild/lib/main.js';
import { root } from './service.mjs';

const target = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'web-client');

/** Bundles files of web/client into one folder; they share what they have in common. Returns the folder. */
export async function bundle(...names) {
  await mkdir(target, { recursive: true });
  const entryPoints = names.map((name) => join(root, 'web/client', name));
  await build({ entryPoints, outdir: target, bundle: true, splitting: true, format: 'esm', target: 'es2022', sourcemap: 'inline', logLevel: 'warning' });
  return target;
}

/** How many bytes a page loads for all of the client, compressed; without its store. */
export async function size() {
  const entryPoints = [join(root, 'web/client/index.ts')];
  const { outputFiles } = await build({ entryPoints, bundle: true, minify: true, format: 'esm', target: 'es2022', write: false });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

const folder = await bundle('index.ts', 'memory.ts', 'indexeddb.ts', 'queue.ts');
export const { Todos, Session, LoggedOut, Refused, caller } = await import(pathToFileURL(join(folder, 'index.js')));
export const { Memory } = await import(pathToFileURL(join(folder, 'memory.js')));
export const queue = await import(pathToFileURL(join(folder, 'queue.js')));

/** One browser's locks, as `navigator.locks` has them. */
export class Locks {
  #last = new Map();

  async request(name, { signal }, work) {
    const before = this.#last.get(name) ?? Promise.resolve();
    let release;
    this.#last.set(name, before.then(() => new Promise((done) => (release = done))));
    await before;
    try {
      signal?.throwIfAborted();
      return await work();
    } finally {
      await Promise.resolve();
      release();
    }
  }
}
