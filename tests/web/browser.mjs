// Chromium for the tests: it can reach this machine and nothing else, and every page it opens is watched.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium } from 'playwright-core';

/** How long anything on a page may take, in ms; nothing waits this long when it works. */
export const PATIENCE = 30_000;

const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

/** Starts Chromium with a profile of its own. `hosts` are names that it resolves: {"evil.test": "127.0.0.1:8080"}. */
export async function launch(hosts) {
  const rules = Object.entries(hosts).map(([name, address]) => `MAP ${name} ${address}`);
  rules.push('MAP * ~NOTFOUND', 'EXCLUDE 127.0.0.1', 'EXCLUDE localhost');
  assert.ok(process.env.CHROMIUM, 'CHROMIUM is not set: run the tests with run.sh');
  const args = [...FLAGS, `--host-resolver-rules=${rules.join(', ')}`];
  return chromium.launch({ executablePath: process.env.CHROMIUM, args, timeout: 60_000 });
}

/**
 * Opens an empty page in a fresh profile; whatever it opens is watched. `seen()` ends that and tells
 *   requests    ["GET http://…"], workers included
 *   complaints  what the console shows as error or warning, exceptions and CSP violations; an answer that the console
 *               reports as failed is "STATUS PATH"
 */
export async function open(browser, viewport = { width: 1280, height: 900 }) {
  const context = await browser.newContext({ viewport });
  context.setDefaultTimeout(PATIENCE);
  const requests = [];
  const complaints = [];
  context.on('request', (request) => requests.push(`${request.method()} ${request.url()}`));
  context.on('weberror', (failure) => complaints.push(`exception: ${failure.error().message}`));
  context.on('console', (message) => {
    if (!['error', 'warning'].includes(message.type())) return;
    const failed = /^Failed to load resource: the server responded with a status of (\d+)/.exec(message.text());
    complaints.push(failed ? `${failed[1]} ${new URL(message.location().url).pathname}` : message.text());
  });
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
      console.error(`CSP violation: ${violatedDirective} ${blockedURI}`);
    });
  });
  const page = await context.newPage();
  const seen = async () => {
    // What happened before this answer has been reported before it.
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done))));
    const closed = once(context, 'close');
    await context.close();
    await closed;
    return { requests, complaints };
  };
  return { page, seen };
}

/** Waits until something is so, and returns what it is; `what` may be a function that tells what is there instead. */
export async function until(what, is, patience = PATIENCE) {
  for (const from = Date.now(); Date.now() - from < patience; await sleep(20)) {
    const found = await is();
    if (found) return found;
  }
  assert.fail(`not within ${patience} ms: ${typeof what === 'function' ? what() : what}`);
}

/** Another origin: the script that `read` returns for a path, and where it returns none an empty page. An http.Server on 127.0.0.1. */
export async function site(read = () => undefined) {
  const server = http.createServer(async (request, response) => {
    const script = await read(request.url);
    response.writeHead(200, { 'Content-Type': script === undefined ? 'text/html' : 'text/javascript' });
    response.end(script ?? '<!DOCTYPE html><title>another origin</title><link rel="icon" href="data:,">');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}
