// web/client/follow.mjs in Chromium, on a page of another origin: it follows a user's todos while the service is killed,
// freezes and comes back, while the page sleeps, and beyond the life of its access token. With a service of its own. And in
// Node, with services that answer what the real one does not.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { follow } from '../../web/client/follow.mjs';
import { PATIENCE, launch, open, site } from './browser.mjs';
import { Service, root } from './service.mjs';

/** In the page: begins to follow, and keeps the copy in `window.copy`. */
async function begin(url) {
  const { follow } = await import('/follow.mjs');
  const copy = {
    since: null, todos: new Map(), revisions: [], replaced: 0,
    async replace(todos, since) {
      this.todos = new Map(todos.map((todo) => [todo.id, todo]));
      [this.since, this.replaced] = [since, this.replaced + 1];
    },
    async apply(entries, since) {
      for (const entry of entries) {
        if (entry.todo === null) this.todos.delete(entry.id);
        else this.todos.set(entry.id, entry.todo);
        this.revisions.push(entry.revision);
      }
      this.since = since;
    },
    async forget() {
      this.since = null;
    },
  };
  let session;
  const grant = async (form) => {
    const answer = await fetch(`${url}/auth/token`, { method: 'POST', body: new URLSearchParams(form) });
    if (!answer.ok) throw new Error(`no token: ${answer.status}`);
    session = await answer.json();
  };
  copy.tokens = 0;
  const token = async (refused) => {
    if (!session) await grant({ grant_type: 'password', username: 'demo', password: 'demo123' });
    else if (refused) await grant({ grant_type: 'refresh_token', refresh_token: session.refresh_token });
    else return session.access_token;
    copy.tokens += 1;
    return session.access_token;
  };
  const end = new AbortController();
  Object.assign(window, { copy, end });
  const report = ({ error }) => error && console.debug(`not followed: ${error.message}`);
  window.following = follow({ url, token, copy, signal: end.signal, report });
}

/** A service that answers as it is told: `answers` are called with each request that is allowed. */
async function fake(answer) {
  const requests = [];
  const server = http.createServer((request, response) => {
    requests.push(`${request.method} ${request.url} ${request.headers.authorization}`);
    answer(request, response, requests.length);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const end = () => (server.closeAllConnections(), server.close());
  return { url: `http://127.0.0.1:${server.address().port}/`, requests, end };
}

/** Follows a fake service for a while: what was applied, reported and asked for, and how many tokens were refused. */
async function followed(answer, milliseconds, done = () => false) {
  const { url, requests, end } = await fake(answer);
  const stop = new AbortController();
  const seen = { requests, reports: [], refused: 0 };
  const copy = {
    since: undefined, todos: [],
    async replace(todos, since) { [this.todos, this.since] = [todos, since]; },
    async apply(entries, since) { [this.todos, this.since] = [[...this.todos, ...entries.map(({ todo }) => todo)], since]; },
    async forget() { this.since = null; },
  };
  const token = async (refused) => `t${(seen.refused += Number(refused === `t${seen.refused}`))}`;
  let ended = false;
  const following = follow({ url, token, copy, signal: stop.signal, report: (report) => seen.reports.push(report) })
    .then(() => undefined, (error) => error.message)
    .finally(() => (ended = true));
  for (const from = Date.now(); Date.now() - from < milliseconds && !ended && !done(copy); ) await sleep(20);
  stop.abort();
  seen.failed = await following;
  end();
  return { ...seen, copy };
}

const list = (response) => response.writeHead(200, { 'Sync-Token': 'e-0' }).end('[]');
const sse = (event, data, id) => `${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;

describe('web/client/follow.mjs with a service that', () => {
  test('sends odd text, comments and other line ends, a byte at a time', async () => {
    const todo = { id: 1, title: 'a\u2028b\u2029c: d\n\ne' };
    const entry = { revision: 1, event: 'created', id: 1, etag: '"x"', todo };
    const text = `: hello\r\n\r\nretry: 5\r\n${sse('ready', { head: 'e-1' }, 'e-0').replaceAll('\n', '\r\n')}:\n\n${sse('created', entry, 'e-1')}`;
    const { copy, reports } = await followed(async (request, response) => {
      if (request.url.startsWith('/todos')) return list(response);
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      for (const byte of Buffer.from(text)) {
        response.write(Buffer.of(byte));
        await sleep(1);
      }
    }, 20_000, (copy) => copy.since === 'e-1');
    assert.deepEqual(copy.todos, [{ ...todo, etag: '"x"' }]);
    assert.deepEqual(reports[0], { current: true });
  });

  test('answers wrongly is not asked again and again', async () => {
    const answers = {
      'unavailable, with a date': (request, response) => response.writeHead(503, { 'Retry-After': new Date().toUTCString() }).end(),
      'unavailable for a month': (request, response) => response.writeHead(503, { 'Retry-After': '2592000' }).end(),
      'always to start over': (request, response) =>
        request.url.startsWith('/todos') ? list(response) : response.end(sse('reset', { reason: 'foreign' }, '')),
      'always that the token has expired': (request, response) =>
        request.url.startsWith('/todos') ? list(response) : response.end(sse('end', { reason: 'token_expired' })),
      'always 401': (request, response) => response.writeHead(401).end(),
      'no Sync-Token': (request, response) => response.end('[]'),
    };
    const asked = await Promise.all(Object.entries(answers).map(async ([name, answer]) => [name, await followed(answer, 4000)]));
    for (const [name, { requests, refused, reports }] of asked) {
      assert.ok(requests.length <= 12, `${name}: ${requests.length} in 4 s`);
      assert.ok(refused <= 5, `${name}: ${refused} tokens`);
      assert.ok(reports.length > 0, name);
    }
  });

  test('refuses a token once gets a fresh one, at once', async () => {
    const { requests, reports } = await followed((request, response, n) => {
      if (n === 1) return response.writeHead(401).end();
      if (request.url.startsWith('/todos')) return list(response);
      response.write(sse('ready', { head: 'e-0' }, 'e-0'));
    }, 3000);
    assert.deepEqual(requests, ['GET /todos?etags=true Bearer t0', 'GET /todos?etags=true Bearer t1', 'GET /events Bearer t1']);
    assert.deepEqual(reports, [{ current: false, error: reports[0].error }, { current: true }]);
  });

  test('does not understand the token, or has a gap, is asked from the beginning', async () => {
    for (const [path, status] of [['/changes', 410], ['/changes', 422], ['/events', 422]]) {
      let lists = 0;
      const { copy, requests } = await followed((request, response) => {
        if (request.url.startsWith('/todos')) return (lists += 1, list(response));
        if (lists < 2) return response.writeHead(request.url.startsWith(path) ? status : 500).end();
        response.write(sse('ready', { head: 'e-0' }, 'e-0'));
      }, 20_000, (copy) => lists === 2 && copy.since !== null);
      assert.deepEqual([lists, copy.since], [2, 'e-0'], `${path} ${status}: ${requests.join(', ')}`);
    }
  });

  test('lets no stream through is asked for changes instead', async () => {
    let revision = 0;
    const { copy, reports } = await followed((request, response) => {
      if (request.url.startsWith('/todos')) return list(response);
      if (request.url.startsWith('/events')) return response.writeHead(502).end();
      revision += 1;
      const entry = { revision, event: 'created', id: revision, etag: '"x"', todo: { id: revision } };
      response.end(JSON.stringify({ changes: [entry], next: `e-${revision}`, has_more: revision % 2 === 1 }));
    }, 20_000, (copy) => copy.todos.length >= 4);
    assert.deepEqual(copy.todos.slice(0, 4), [1, 2, 3, 4].map((id) => ({ id, etag: '"x"' })));
    assert.ok(reports.filter(({ current }) => current).length >= 2);
  });
});

describe('web/client/follow.mjs', () => {
  const service = new Service();
  let browser;
  let elsewhere;

  before(async () => {
    await service.start();
    browser = await launch({});
    const script = await readFile(join(root, 'web/client/follow.mjs'));
    elsewhere = await site((path) => (path === '/follow.mjs' ? script : undefined));
  });

  after(async () => {
    await browser?.close();
    elsewhere?.close();
    await service.end();
  });

  test('follows through kills, silence, sleep and the end of its token', { timeout: 240_000 }, async () => {
    const { page } = await open(browser);
    const said = [];
    page.on('console', (message) => said.push(message.text()));
    await page.goto(`http://localhost:${elsewhere.address().port}/`);
    const made = (await service.call('POST', '/todos', { title: 'there before' })).body;
    await page.evaluate(begin, service.url);
    const begun = Date.now();

    /** Waits until the page has what there is; how long that took, in ms. */
    const equal = async (patience = PATIENCE) => {
      const from = Date.now();
      for (;;) {
        const { body, headers } = await service.call('GET', '/todos?etags=true');
        const [todos, since] = await page.evaluate(() => [[...window.copy.todos.values()], window.copy.since]);
        if (since === headers.get('sync-token')) {
          assert.deepEqual(todos.sort((a, b) => a.id - b.id), body);
          return Date.now() - from;
        }
        assert.ok(Date.now() - from < patience, `the page is at ${since}: ${said.join('; ')}`);
        await sleep(20);
      }
    };
    const change = (n) => service.call('PATCH', `/todos/${made.id}`, { title: `change ${n}` });
    await equal();

    // What others do.
    const other = (await service.call('POST', '/todos', { title: 'another', tags: ['ü'] })).body;
    await service.call('DELETE', `/todos/${other.id}`);
    await service.call('POST', `/todos/${other.id}/restore`);
    await change(1);
    assert.ok(await equal() < 2000, 'it is shown within seconds');

    // Kills, with changes before it is back.
    for (let n = 0; n < 3; n += 1) {
      await change(`before kill ${n}`);
      await service.kill();
      await sleep(300);
      await service.start();
      await change(`after kill ${n}`);
      await equal();
    }

    // A page that the browser freezes.
    const devtools = await page.context().newCDPSession(page);
    await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
    await service.call('POST', '/batch', { operations: Array.from({ length: 50 }, (_, n) => ({ op: 'create', todo: { title: `${n}` } })) });
    await sleep(2000);
    await devtools.send('Page.setWebLifecycleState', { state: 'active' });
    await equal();

    // A connection on which nothing comes any more, although it is not closed.
    service.process.kill('SIGSTOP');
    for (const from = Date.now(); !said.some((line) => line.includes('nothing was heard')); await sleep(100)) {
      assert.ok(Date.now() - from < 60_000, 'it notices the silence');
    }
    service.process.kill('SIGCONT');
    await change('after the silence');
    await equal();

    // The access token ends after a minute, 65 s at most.
    const tokens = await page.evaluate(() => window.copy.tokens);
    await sleep(Math.max(0, begun + 66_000 - Date.now()));
    await change('after the token');
    await equal();
    assert.ok(tokens >= 1 && await page.evaluate(() => window.copy.tokens) >= 2, 'it has a fresh token');

    const { revisions, replaced } = await page.evaluate(() => ({ revisions: window.copy.revisions, replaced: window.copy.replaced }));
    assert.equal(replaced, 1, 'it never had to start over');
    assert.deepEqual(revisions, revisions.map((_, n) => revisions[0] + n), 'no change is missing, and none came twice');
    assert.ok(revisions.length > 60);
    await page.evaluate(() => (window.end.abort(), window.following));
    await page.context().close();
  });
});
