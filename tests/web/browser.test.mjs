// Swagger UI, ReDoc and cross-origin pages in Chromium, against the service at $BASE_URL (DEBUG=True) and a second one
// at $STRICT_URL (DEBUG=False) that allows the origin $ALLOWED_ORIGIN.
import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import http from 'node:http';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { launch, open, site } from './browser.mjs';
import { Swagger } from './swagger.mjs';

const { BASE_URL, STRICT_URL, ALLOWED_ORIGIN, SCREENSHOTS } = process.env;
const LIMIT = { timeout: 300_000 };

let document;
let browser;
let otherSite;

before(async () => {
  document = await (await fetch(`${BASE_URL}/openapi.json`)).json();
  // The pages of other origins: the same empty page under every name.
  otherSite = await site();
  const address = `127.0.0.1:${otherSite.address().port}`;
  browser = await launch({ 'evil.test': address, [new URL(ALLOWED_ORIGIN).hostname]: address });
  await mkdir(SCREENSHOTS, { recursive: true });
});

after(async () => {
  await browser?.close();
  otherSite?.close();
});

/** All of the document: [{path, method, operationId, tags, summary, …}]. */
function operations() {
  return Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item)
      .filter(([method]) => ['get', 'put', 'post', 'delete', 'patch', 'head', 'options'].includes(method))
      .map(([method, operation]) => ({ path, method, ...operation })));
}

/** Ends a page: it asked nobody but the service, and the console shows `expected` and nothing else. */
async function expectQuiet(seen, expected = []) {
  const { requests, complaints } = await seen();
  assert.deepEqual(complaints, expected);
  assert.ok(requests.includes(`GET ${BASE_URL}/openapi.json`), 'requests are recorded');
  const foreign = requests.filter((request) => {
    const url = new URL(request.slice(request.indexOf(' ') + 1));
    return !(url.origin === BASE_URL || url.protocol === 'data:');
  });
  assert.deepEqual(foreign, [], 'requests to somebody else');
}

describe('Swagger UI', () => {
  test('shows every operation of the document', LIMIT, async () => {
    const { page, seen } = await open(browser);
    const swagger = await Swagger.open(page, BASE_URL);
    const shown = await page.locator('.opblock').evaluateAll((blocks) => blocks.map((block) =>
      ['.opblock-summary-method', '.opblock-summary-path', '.opblock-summary-description', '.opblock-summary-operation-id']
        .map((part) => block.querySelector(part).textContent.replaceAll('\u200b', '')).join(' | ')));
    const written = operations().map(({ path, method, summary, operationId }) =>
      [method.toUpperCase(), path, summary, operationId].join(' | '));
    assert.ok(written.length >= 11, `${written.length} operations`);
    assert.deepEqual(shown.sort(), written.sort());
    // The page checks what it reads: open everything that it reads only when it is looked at.
    for (const { tags, operationId } of operations()) {
      await swagger.operation(tags[0], operationId);
      await swagger.close(tags[0], operationId);
    }
    assert.deepEqual(await page.locator('.errors-wrapper').allInnerTexts(), [], 'what Swagger UI finds wrong');
    await expectQuiet(seen);
  });

  test('logs in, takes the token, and makes, lists, changes and deletes a todo', LIMIT, async () => {
    const { page, seen } = await open(browser);
    const swagger = await Swagger.open(page, BASE_URL);

    const refused = await swagger.execute('todos', 'listTodos');
    assert.deepEqual([refused.status, refused.body], ['401', { detail: 'Not authenticated' }]);
    assert.equal(refused.headers['www-authenticate'], 'Bearer');

    const wrong = await swagger.execute('auth', 'login', { body: { username: 'admin', password: 'no' } });
    assert.deepEqual([wrong.status, wrong.body], ['401', { detail: 'Invalid username or password' }]);
    const login = await swagger.execute('auth', 'login', { body: { username: 'admin', password: 'admin123' } });
    assert.equal(login.status, '200');
    assert.equal(login.body.token_type, 'bearer');
    await swagger.authorizeWithToken(login.body.access_token);

    const made = await swagger.execute('todos', 'createTodo', {
      body: { title: 'Learn Dapr', description: 'Publish and subscribe', completed: false },
    });
    assert.equal(made.status, '201');
    const { id, created_at, updated_at, ...rest } = made.body;
    assert.deepEqual(rest, { title: 'Learn Dapr', description: 'Publish and subscribe', completed: false });
    assert.equal(made.headers.location, `todos/${id}`, 'relative to /todos');
    assert.ok(made.headers['x-request-id']);

    const invalid = await swagger.execute('todos', 'createTodo', { body: { title: '' } });
    assert.equal(invalid.status, '422');
    assert.deepEqual(invalid.body.detail.map(({ type, loc }) => [type, loc]), [['string_too_short', ['body', 'title']]]);

    const list = await swagger.execute('todos', 'listTodos');
    assert.equal(list.status, '200');
    assert.deepEqual(list.body.find((todo) => todo.id === id), made.body);

    const changed = await swagger.execute('todos', 'updateTodo', { path: { id }, body: { completed: true } });
    assert.equal(changed.status, '200');
    assert.deepEqual({ ...changed.body, updated_at }, { ...made.body, completed: true });
    const read = await swagger.execute('todos', 'getTodo', { path: { id } });
    assert.deepEqual([read.status, read.body], ['200', changed.body]);

    const deleted = await swagger.execute('todos', 'deleteTodo', { path: { id } });
    assert.deepEqual([deleted.status, deleted.body], ['204', undefined]);
    const gone = await swagger.execute('todos', 'getTodo', { path: { id } });
    assert.deepEqual([gone.status, gone.body], ['404', { detail: 'Todo not found' }]);

    // Who reloads the page is still logged in.
    await page.reload();
    await page.locator('.opblock').first().waitFor();
    assert.equal((await swagger.execute('todos', 'listTodos')).status, '200');

    await swagger.logout('bearer');
    const out = await swagger.execute('todos', 'listTodos');
    assert.deepEqual([out.status, out.body], ['401', { detail: 'Not authenticated' }]);
    await expectQuiet(seen, ['401 /todos', '401 /auth/login', '422 /todos', `404 /todos/${id}`, '401 /todos']);
  });

  test('takes user name and password in Authorize', LIMIT, async () => {
    const { page, seen } = await open(browser);
    const swagger = await Swagger.open(page, BASE_URL);
    await swagger.authorization('OAuth2, password', async (part) => {
      const apply = part.getByRole('button', { name: 'Apply given OAuth2 credentials' });
      await part.locator('#oauth_username').fill('demo');
      await part.locator('#oauth_password').fill('wrong');
      await apply.click();
      await part.locator('.errors', { hasText: 'Invalid username or password' }).waitFor();
      await part.locator('#oauth_password').fill('demo123');
      await apply.click();
      await part.getByRole('button', { name: 'Remove authorization' }).waitFor();
    });

    const made = await swagger.execute('todos', 'createTodo', { body: { title: 'by demo' } });
    assert.deepEqual([made.status, made.body.title], ['201', 'by demo']);
    const list = await swagger.execute('todos', 'listTodos');
    assert.deepEqual([list.status, list.body.map((todo) => todo.id)], ['200', [made.body.id]]);
    assert.equal((await swagger.execute('todos', 'deleteTodo', { path: { id: made.body.id } })).status, '204');

    await swagger.logout('OAuth2, password');
    assert.equal((await swagger.execute('todos', 'listTodos')).status, '401');
    await expectQuiet(seen, ['400 /auth/token', '401 /todos']);
  });

  test('sends requests below /v1 when that server is chosen, and the health probes to the root', LIMIT, async () => {
    const { page, seen } = await open(browser);
    const swagger = await Swagger.open(page, BASE_URL);
    await page.locator('.scheme-container .servers select').selectOption('./v1');
    const login = await swagger.execute('auth', 'login', { body: { username: 'user', password: 'user123' } });
    assert.deepEqual([login.status, login.url], ['200', `${BASE_URL}/v1/auth/login`]);
    await swagger.authorizeWithToken(login.body.access_token);
    const made = await swagger.execute('todos', 'createTodo', { body: { title: 'below /v1' } });
    assert.deepEqual([made.status, made.url], ['201', `${BASE_URL}/v1/todos`]);
    assert.equal(made.headers.location, `todos/${made.body.id}`, 'relative to /v1/todos');
    assert.equal((await swagger.execute('todos', 'deleteTodo', { path: { id: made.body.id } })).status, '204');
    const live = await swagger.execute('health', 'getLiveness');
    assert.deepEqual([live.status, live.url], ['200', `${BASE_URL}/health/live`]);
    await expectQuiet(seen);
  });

  test('looks as in the README', LIMIT, async () => {
    const { page, seen } = await open(browser, { width: 1200, height: 950 });
    const swagger = await Swagger.open(page, BASE_URL);
    const login = await swagger.execute('auth', 'login', { body: { username: 'admin', password: 'admin123' } });
    await swagger.authorizeWithToken(login.body.access_token);
    const made = await swagger.execute('todos', 'createTodo');
    assert.deepEqual([made.status, made.body.title], ['201', 'Learn Dapr'], 'the example can be sent as it is');
    for (const tag of ['auth', 'health']) await page.locator(`#operations-tag-${tag}`).click();
    await page.locator('#operations-auth-login').waitFor({ state: 'detached' });
    await page.screenshot({ path: join(SCREENSHOTS, 'swagger-ui-answer.png'), fullPage: true });
    await page.locator('#operations-todos-createTodo .opblock-summary-control').click();
    await page.locator('#operations-todos-createTodo .execute').waitFor({ state: 'detached' });
    const locks = await page.locator('.opblock .authorization__btn svg').evaluateAll((icons) => icons.map((icon) => icon.classList.value));
    assert.ok(locks.length >= 5 && locks.every((lock) => lock === 'locked'), `locks of todos: ${locks}`);
    await page.evaluate(() => (window.document.activeElement.blur(), window.scrollTo(0, 0)));
    await page.mouse.move(0, 0);
    await page.screenshot({ path: join(SCREENSHOTS, 'swagger-ui.png'), animations: 'disabled' });
    await swagger.execute('todos', 'deleteTodo', { path: { id: made.body.id } });
    await expectQuiet(seen);
  });
});

describe('behind a proxy that serves the service under a prefix', () => {
  const PREFIX = '/some/todo';
  let proxy;
  let outside;

  before(async () => {
    // As nginx does with `location /some/todo/ { proxy_pass http://service/; }`.
    proxy = http.createServer((request, response) => {
      if (!request.url.startsWith(`${PREFIX}/`)) {
        outside.push(`${request.method} ${request.url}`);
        response.writeHead(502).end();
        return;
      }
      const target = new URL(BASE_URL + request.url.slice(PREFIX.length));
      const { method, headers } = request;
      const onward = http.request(target, { method, headers }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      });
      request.pipe(onward);
    });
    await new Promise((listening) => proxy.listen(0, '127.0.0.1', listening));
  });

  after(() => proxy?.close());

  /** Opens a page of the service through the proxy. `expectInside` ends it: nothing was asked outside the prefix. */
  async function through(path) {
    outside = [];
    const { page, seen } = await open(browser);
    const base = `http://127.0.0.1:${proxy.address().port}${PREFIX}`;
    await page.goto(base + path);
    const expectInside = async () => {
      const { requests, complaints } = await seen();
      assert.deepEqual([outside, complaints], [[], []]);
      const elsewhere = requests.map((request) => request.slice(request.indexOf(' ') + 1));
      const own = ['data:', `blob:${new URL(base).origin}/`, `${base}/`];
      assert.deepEqual(elsewhere.filter((url) => !own.some((start) => url.startsWith(start))), []);
      assert.ok(requests.includes(`GET ${base}/openapi.json`));
    };
    return { page, base, expectInside };
  }

  test('Swagger UI reads the document, authorizes and sends requests', LIMIT, async () => {
    const { page, base, expectInside } = await through('/docs');
    await page.locator('.opblock').first().waitFor();
    const swagger = new Swagger(page);
    await swagger.authorization('OAuth2, password', async (part) => {
      await part.locator('#oauth_username').fill('demo');
      await part.locator('#oauth_password').fill('demo123');
      await part.getByRole('button', { name: 'Apply given OAuth2 credentials' }).click();
      await part.getByRole('button', { name: 'Remove authorization' }).waitFor();
    });
    for (const [server, prefix] of [['.', base], ['./v1', `${base}/v1`]]) {
      await page.locator('.scheme-container .servers select').selectOption(server);
      const made = await swagger.execute('todos', 'createTodo', { body: { title: 'under a prefix' } });
      assert.deepEqual([made.status, made.url], ['201', `${prefix}/todos`]);
      assert.equal(new URL(made.headers.location, made.url).href, `${prefix}/todos/${made.body.id}`);
      const deleted = await swagger.execute('todos', 'deleteTodo', { path: { id: made.body.id } });
      assert.deepEqual([deleted.status, deleted.url], ['204', `${prefix}/todos/${made.body.id}`]);
      const live = await swagger.execute('health', 'getLiveness');
      assert.deepEqual([live.status, live.url], ['200', `${base}/health/live`]);
    }
    await expectInside();
  });

  test('ReDoc reads the document', LIMIT, async () => {
    const { page, expectInside } = await through('/redoc');
    for (const { operationId } of operations()) {
      await page.locator(`[id^="tag/"][id$="/operation/${operationId}"]`).waitFor({ state: 'attached' });
    }
    await expectInside();
  });

  test('a trailing slash leads to the page', LIMIT, async () => {
    const { page, base, expectInside } = await through('/docs/');
    assert.equal(page.url(), `${base}/docs`);
    await page.locator('.opblock').first().waitFor();
    await expectInside();
  });
});

describe('ReDoc', () => {
  test('shows every operation with its answers, and finds them', LIMIT, async () => {
    const { page, seen } = await open(browser);
    await page.goto(`${BASE_URL}/redoc`);
    for (const { operationId, summary, path, responses } of operations()) {
      const section = page.locator(`[id^="tag/"][id$="/operation/${operationId}"]`);
      await section.waitFor({ state: 'attached' });
      assert.ok((await section.locator('h2').innerText()).includes(summary), `the heading of ${operationId}`);
      const text = await section.innerText();
      assert.ok(text.includes(path), `the path of ${operationId}`);
      for (const [status, { description }] of Object.entries(responses)) {
        const plain = description.replaceAll('`', '');
        assert.ok(text.includes(status) && text.includes(plain), `answer ${status} of ${operationId}: ${text}`);
      }
    }
    // What a refused body looks like is not inlined but referred to: the references are followed.
    const create = page.locator('[id^="tag/"][id$="/operation/createTodo"]');
    await create.locator('button', { hasText: '422' }).click();
    await create.getByRole('button', { name: 'expand detail' }).click();
    await create.getByText('Where: ["body", "title"]').waitFor();
    await page.evaluate(() => window.scrollTo(0, 0));
    await page.screenshot({ path: join(SCREENSHOTS, 'redoc.png') });
    await create.screenshot({ path: join(SCREENSHOTS, 'redoc-operation.png') });

    // The search runs in a worker.
    await page.locator('.search-input').fill('deletes');
    await page.locator('[data-role="search:results"]', { hasText: 'Deletes a todo.' }).waitFor();
    await expectQuiet(seen);
  });

  test('has an icon that exists', LIMIT, async () => {
    const { page, seen } = await open(browser);
    await page.goto(`${BASE_URL}/redoc`);
    const icon = await page.locator('link[rel=icon]').evaluate((link) => link.href);
    const response = await fetch(icon);
    assert.deepEqual([response.status, response.headers.get('content-type')], [200, 'image/png']);
    await page.locator('[id^="tag/"][id$="/operation/getRoot"]').waitFor({ state: 'attached' });
    await expectQuiet(seen);
  });
});

describe('A page on another origin', () => {
  /** Opens a page of `origin` and gives it `call`, a fetch that tells what the page can read. */
  async function pageOf(origin) {
    const { page, seen } = await open(browser);
    const sent = [];
    page.on('response', (response) => {
      if (response.request().resourceType() === 'fetch') sent.push(response);
    });
    await page.goto(`${origin}/`);
    /** {status, headers, body} or {failed: "TypeError …"}; `really` are the headers that were sent to the browser. */
    const call = async (method, url, { headers = {}, body, mode } = {}) => {
      sent.length = 0;
      const read = await page.evaluate(async ([url, init]) => {
        try {
          const response = await fetch(url, { ...init, cache: 'no-store' });
          const text = await response.text();
          const { type, status, headers } = response;
          return { type, status, headers: Object.fromEntries(headers), body: text === '' ? undefined : JSON.parse(text) };
        } catch (failure) {
          return { failed: String(failure) };
        }
      }, [url, { method, headers, body, mode }]);
      return { ...read, really: sent.length ? await sent.at(-1).allHeaders() : {} };
    };
    return { page, call, seen };
  }

  const json = { 'Content-Type': 'application/json' };
  const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'];

  /** The header names of a constant in src/app/mod.rs, in lower case. */
  async function namesInSource(constant) {
    const source = await readFile(new URL('../../src/app/mod.rs', import.meta.url), 'utf8');
    const list = new RegExp(`const ${constant}: \\[&str; (\\d+)\\] =\\s*\\[([^\\]]*)\\]`).exec(source);
    const names = [...list[2].matchAll(/"([^"]+)"/g)].map(([, name]) => name.toLowerCase());
    assert.equal(names.length, Number(list[1]));
    return names.sort();
  }

  const listed = (value) => value.split(',').map((name) => name.trim().toLowerCase()).sort();

  for (const host of ['localhost', '127.0.0.1']) {
    test(`does the whole walkthrough from http://${host}`, LIMIT, async () => {
      const { call, seen } = await pageOf(`http://${host}:${otherSite.address().port}`);
      const exposed = await namesInSource('CORS_EXPOSED_HEADERS');
      const readSomewhere = new Set();
      /** Like `call`; the answer has `status`, and every exposed header that it has can be read. */
      const expect = async (status, method, path, options) => {
        const answer = await call(method, BASE_URL + path, options);
        assert.equal(answer.status, status, `${method} ${path}: ${JSON.stringify(answer)}`);
        assert.deepEqual(listed(answer.really['access-control-expose-headers']), exposed);
        assert.equal(answer.really['access-control-allow-origin'], `http://${host}:${otherSite.address().port}`);
        assert.match(answer.really.vary, /\bOrigin\b/i);
        for (const name of exposed.filter((name) => name in answer.really)) {
          assert.equal(answer.headers[name], answer.really[name], `${name} of ${method} ${path}`);
          readSomewhere.add(name);
        }
        assert.ok(answer.headers['x-request-id'], `X-Request-Id of ${method} ${path}`);
        return answer;
      };

      const credentials = { username: 'user', password: 'user123' };
      const login = await expect(200, 'POST', '/auth/login', { headers: json, body: JSON.stringify(credentials) });
      await expect(200, 'POST', `/auth/login?${new URLSearchParams(credentials)}`);
      const form = { 'Content-Type': 'application/x-www-form-urlencoded' };
      const grant = new URLSearchParams({ grant_type: 'password', ...credentials }).toString();
      await expect(200, 'POST', '/auth/token', { headers: form, body: grant });
      const bearer = { Authorization: `Bearer ${login.body.access_token}` };

      const named = { ...json, ...bearer, 'X-Request-Id': 'from-the-page' };
      const made = await expect(201, 'POST', '/todos', { headers: named, body: '{"title":"from another origin"}' });
      assert.equal(made.headers.location, `todos/${made.body.id}`, 'relative to /todos');
      assert.equal(made.headers['x-request-id'], 'from-the-page');
      const todo = `/${made.headers.location}`;
      const list = await expect(200, 'GET', '/todos', { headers: bearer });
      assert.ok(list.body.some(({ id }) => id === made.body.id));
      await expect(200, 'GET', todo, { headers: bearer });
      await expect(200, 'HEAD', todo, { headers: bearer });
      const changed = await expect(200, 'PUT', todo, { headers: { ...json, ...bearer }, body: '{"completed":true}' });
      assert.deepEqual([changed.body.title, changed.body.completed], ['from another origin', true]);

      // What goes wrong can be read as well.
      const many = { ...json, ...bearer };
      const tooLarge = JSON.stringify({ title: 'x', description: 'x'.repeat(300 << 10) });
      const failures = [
        [401, 'GET', '/todos', {}, 'Not authenticated'],
        [401, 'GET', '/todos', { headers: { Authorization: 'Bearer x' } }, 'Invalid or expired token'],
        [401, 'POST', '/auth/login', { headers: json, body: '{"username":"user","password":"x"}' }, 'Invalid username or password'],
        [400, 'POST', '/auth/token', { headers: form, body: 'grant_type=password&username=user&password=x' }, 'Invalid username or password'],
        [404, 'GET', '/todos/999999', { headers: bearer }, 'Todo not found'],
        [404, 'GET', '/nowhere', {}, 'Not Found'],
        [405, 'PATCH', '/todos', { headers: many, body: '{}' }, 'Method Not Allowed'],
        [413, 'POST', '/todos', { headers: many, body: tooLarge }, 'Request body is larger than 262144 bytes'],
      ];
      for (const [status, method, path, options, detail] of failures) {
        assert.equal((await expect(status, method, path, options)).body.detail, detail, `${status} ${method} ${path}`);
      }
      const invalid = await expect(422, 'POST', '/todos', { headers: many, body: '{"description":1}' });
      assert.deepEqual(invalid.body.detail.map(({ type }) => type).sort(), ['missing', 'string_type']);

      await expect(204, 'DELETE', todo, { headers: bearer });
      const gone = await expect(404, 'DELETE', todo, { headers: bearer });
      assert.deepEqual(gone.body, { detail: 'Todo not found' });
      assert.ok(['location', 'x-request-id'].every((name) => readSomewhere.has(name)), [...readSomewhere].join());

      const complaints = [...failures.map(([status, , path]) => `${status} ${path}`), '422 /todos', `404 ${todo}`];
      assert.deepEqual((await seen()).complaints, complaints);
    });
  }

  test('may use every method with every listed header, and no other', LIMIT, async () => {
    const { call, seen } = await pageOf(`http://localhost:${otherSite.address().port}`);
    const headers = Object.fromEntries((await namesInSource('CORS_REQUEST_HEADERS')).map((name) => [name, '1']));
    headers['content-type'] = 'application/json';
    for (const method of methods) {
      // The browser lets none of these through without a preflight: Authorization and others are not safelisted.
      const answer = await call(method, `${BASE_URL}/todos`, { headers });
      assert.ok([401, 405].includes(answer.status), `${method}: ${JSON.stringify(answer)}`);
      for (const path of ['/todos', '/todos/1', '/v1/todos', '/auth/login', '/health']) {
        const preflight = await fetch(BASE_URL + path, {
          method: 'OPTIONS',
          headers: {
            Origin: 'http://localhost:3000',
            'Access-Control-Request-Method': method,
            'Access-Control-Request-Headers': Object.keys(headers).join(','),
          },
        });
        assert.equal(preflight.status, 200, `${method} ${path}`);
        assert.equal(preflight.headers.get('access-control-allow-origin'), 'http://localhost:3000');
        assert.deepEqual(listed(preflight.headers.get('access-control-allow-methods')), listed(methods.join()));
        assert.deepEqual(listed(preflight.headers.get('access-control-allow-headers')), Object.keys(headers).sort());
        assert.equal(preflight.headers.get('access-control-max-age'), '600');
        assert.match(preflight.headers.get('vary'), /Origin/);
      }
    }
    const other = await call('GET', `${BASE_URL}/health`, { headers: { 'X-Not-Listed': '1' } });
    assert.match(other.failed ?? `read: ${JSON.stringify(other)}`, /^TypeError/);
    const strange = await call('PURGE', `${BASE_URL}/health`);
    assert.match(strange.failed ?? `read: ${JSON.stringify(strange)}`, /^TypeError/);
    await seen();
  });

  /** That a page of `origin` can't read anything of the service at `url`, nor send it what needs a preflight. */
  async function expectClosed(origin, url) {
    const { call, seen } = await pageOf(origin);
    for (const [method, path, options] of [
      ['GET', '/health'],
      ['GET', '/todos'],
      ['GET', '/openapi.json'],
      ['POST', '/auth/login?username=admin&password=admin123'],
      ['POST', '/auth/login', { headers: json, body: '{"username":"admin","password":"admin123"}' }],
      ['DELETE', '/todos/1', { headers: { Authorization: 'Bearer x' } }],
    ]) {
      const answer = await call(method, url + path, options);
      assert.match(answer.failed ?? `read: ${JSON.stringify(answer)}`, /^TypeError/, `${origin}: ${method} ${path}`);
      // It is the browser that keeps the answer from the page: the service is there, and does not allow the origin.
      const plain = await fetch(url + path, { method, ...options, headers: { ...options?.headers, Origin: origin } });
      assert.equal(plain.headers.get('access-control-allow-origin'), null, `${origin}: ${method} ${path}`);
      assert.ok(plain.headers.get('x-request-id'));
      await plain.body?.cancel();
    }
    assert.equal((await call('GET', `${url}/health`, { mode: 'no-cors' })).type, 'opaque');
    const { complaints } = await seen();
    const blocked = complaints.filter((complaint) => complaint.includes('blocked by CORS policy'));
    assert.equal(blocked.length, 6, complaints.join('\n'));
  }

  test('that is not on this machine can read nothing', LIMIT, () => expectClosed('http://evil.test', BASE_URL));

  test('can read nothing with DEBUG=False, not even from localhost', LIMIT, async () => {
    await expectClosed('http://evil.test', STRICT_URL);
    await expectClosed(`http://localhost:${otherSite.address().port}`, STRICT_URL);
  });

  test('can read everything with DEBUG=False if it is listed', LIMIT, async () => {
    const { call, seen } = await pageOf(ALLOWED_ORIGIN);
    const health = await call('GET', `${STRICT_URL}/health`);
    assert.deepEqual([health.status, health.body.status], [200, 'healthy']);
    assert.equal(health.really['access-control-allow-origin'], ALLOWED_ORIGIN);
    assert.ok(health.headers['x-request-id']);
    const list = await call('GET', `${STRICT_URL}/todos`, { headers: { Authorization: 'Bearer x' } });
    assert.deepEqual([list.status, list.body.detail], [401, 'Invalid or expired token']);
    // No demo users there.
    const login = await call('POST', `${STRICT_URL}/auth/login`, { headers: json, body: '{"username":"admin","password":"admin123"}' });
    assert.deepEqual([login.status, login.body.detail], [401, 'Invalid username or password']);
    const nowhere = await call('GET', `${STRICT_URL}/nowhere`);
    assert.deepEqual([nowhere.status, nowhere.body.detail], [404, 'Not Found']);
    // The same service that is open for this page is not for localhost, where DEBUG=True is.
    const debug = await call('GET', `${BASE_URL}/health`);
    assert.match(debug.failed ?? `read: ${JSON.stringify(debug)}`, /^TypeError/);
    await seen();
  });
});
