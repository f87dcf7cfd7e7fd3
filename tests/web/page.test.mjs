// The page at /app in Chromium: what people do with it, by mouse and by keyboard, on one device and on two, with a network and without.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import http from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { launch, open, until } from './browser.mjs';
import { bundle } from './client.mjs';
import { Service, freePort, root } from './service.mjs';

const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const LIMIT = { timeout: 180_000 };
/** What all of the page may have, compressed, in bytes. */
const MAX_LOAD = 60 * 1024;
/** Until it can be used, in ms: many times what it takes on a machine that does nothing else. */
const MAX_READY = 5000;
/** Of an access token, in ms, and a bit. */
const LIFE = 65_000;
const PASSWORD = 'a long password';

const service = new Service({ RATE_LIMIT_USER: '0' });
let browser;
let users = 0;

before(async () => {
  await service.start();
  browser = await launch({});
});

after(async () => {
  await browser?.close();
  await service.end();
});

/** A person with an account, and as many devices as they open. */
class Person {
  password = PASSWORD;

  constructor() {
    this.name = `person${(users += 1)}`;
  }

  async register() {
    await this.send('POST', '/auth/register', { username: this.name, password: this.password });
    return this;
  }

  /** Opens the page in a browser of its own, and logs in. */
  async device(address = `${service.url}/app`, viewport = undefined) {
    const { page, seen } = await open(browser, viewport);
    await page.goto(address);
    await this.login(page);
    await page.getByLabel('New todo').waitFor();
    await current(page);
    return { page, seen };
  }

  async login(page) {
    await logIn(page, this.name, this.password);
  }

  /** Another client of theirs. */
  async send(method, path, body) {
    const answer = await this.#send(method, path, body);
    if (answer.status !== 401 || !this.token) return answer.body;
    // It has ended.
    this.token = undefined;
    const again = await this.#send(method, path, body);
    assert.notEqual(again.status, 401, path);
    return again.body;
  }

  async #send(method, path, body) {
    const headers = { 'Content-Type': 'application/json' };
    if (!path.startsWith('/auth/register')) {
      const credentials = new URLSearchParams({ username: this.name, password: this.password });
      this.token ??= (await (await fetch(`${service.url}/auth/login?${credentials}`, { method: 'POST' })).json()).access_token;
      headers.Authorization = `Bearer ${this.token}`;
    }
    const answer = await fetch(service.url + path, { method, headers, body: body && JSON.stringify(body) });
    const text = await answer.text();
    assert.ok(answer.ok || answer.status === 401, `${method} ${path}: ${answer.status} ${text}`);
    return { status: answer.status, body: text === '' ? undefined : JSON.parse(text) };
  }

  todos = () => this.send('GET', '/todos');

  /** Waits until the service has a todo that is so. */
  has = (expected) => {
    let todos;
    const is = async () => (todos = await this.todos()).find((todo) => Object.entries(expected).every(([name, value]) => JSON.stringify(todo[name]) === JSON.stringify(value)));
    return until(() => `${JSON.stringify(expected)} in ${JSON.stringify(todos)}`, is);
  };
}

async function logIn(page, name, password) {
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Log in', exact: true }).click();
}

const current = (page) => page.getByRole('status').filter({ hasText: 'Up to date' }).waitFor();
const row = (page, title) => page.getByRole('listitem').filter({ has: page.locator('.title', { hasText: title }) });
const titles = (page) => page.locator('.row .title').allInnerTexts();
const shows = (page, expected) => {
  let seen;
  return until(() => `${expected} in the list, but ${seen}`, async () => JSON.stringify((seen = await titles(page))) === JSON.stringify(expected));
};
async function add(page, title) {
  await page.getByLabel('New todo').fill(title);
  await page.keyboard.press('Enter');
}

/** In a page: how long it takes from the end of its script's coming to the first field, and its longest task, in ms; and how much jumps without anybody
 * having done anything, as browsers reckon it (https://web.dev/articles/cls). */
function measure() {
  window.measured = { ready: 0, blocked: 0, jumped: 0 };
  new PerformanceObserver((list) => list.getEntries().forEach(({ value, hadRecentInput }) => (window.measured.jumped += hadRecentInput ? 0 : value)))
    .observe({ type: 'layout-shift', buffered: true });
  new PerformanceObserver((list) => list.getEntries().forEach(({ duration }) => (window.measured.blocked = Math.max(window.measured.blocked, duration))))
    .observe({ type: 'longtask', buffered: true });
  new MutationObserver((_, observer) => {
    if (!document.querySelector('input')) return;
    observer.disconnect();
    const came = performance.getEntriesByType('resource').filter(({ initiatorType }) => initiatorType === 'script').map(({ responseEnd }) => responseEnd);
    requestAnimationFrame(() => setTimeout(() => (window.measured.ready = performance.now() - Math.max(...came))));
  }).observe(document, { childList: true, subtree: true });
}

/** Nothing has jumped (0.1 is what is called good). */
async function standsStill(page) {
  const { jumped } = await page.evaluate(() => window.measured);
  assert.ok(jumped < 0.1, `${jumped}`);
}

const hasFocus = (page, where) => until(`the focus is in ${where}`, () => page.evaluate((there) => document.activeElement.closest(there) !== null, where));

/** axe finds nothing, in light and in dark. */
async function isAccessible(page, what) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    // Not by a script element, which the page's policy forbids.
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
    assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('; ')}`), [], `${what}, ${colorScheme}`);
  }
  await page.emulateMedia({ colorScheme: 'light' });
}

describe('The user\'s own order', () => {
  const byOrder = (a, b) => (a.order ?? Infinity) - (b.order ?? Infinity) || a.id - b.id;
  const sorted = (todos) => todos.toSorted((a, b) => (a.order === undefined && b.order === undefined ? a.id - b.id : byOrder(a, b)));

  test('is what a move has made of it, as the service sorts', async () => {
    const { placed } = await import(pathToFileURL(join(await bundle('../app/order.ts'), 'order.js')));
    let several = 0;
    for (let round = 0; round < 2000; round += 1) {
      const kind = Math.random();
      const order = () => (Math.random() < kind ? undefined : [0, 1, 1 + Number.EPSILON, -3.5, 1e15, Math.random()][Math.floor(Math.random() * 6)]);
      let list = sorted(Array.from({ length: 1 + Math.floor(Math.random() * 12) }, (_, id) => ({ id, order: order() })));
      for (let moves = 0; moves < 4; moves += 1) {
        const [todo, to] = [list[Math.floor(Math.random() * list.length)], Math.floor(Math.random() * list.length)];
        const rest = list.filter((other) => other !== todo);
        const expected = [...rest.slice(0, to), todo, ...rest.slice(to)].map(({ id }) => id);
        const given = placed(list, todo, to);
        several += Number(given.length > 1);
        const orders = new Map(given.map(([{ id }, order]) => [id, order]));
        const before = JSON.stringify(list);
        list = sorted(list.map((one) => ({ ...one, order: orders.get(one.id) ?? one.order })));
        assert.deepEqual(list.map(({ id }) => id), expected, `${before}: ${todo.id} to ${to}: ${JSON.stringify(given)}`);
      }
    }
    assert.ok(several > 100, `${several}`);
  });
});

describe('The worker', () => {
  test('keeps the last page that it got whole, and its files', LIMIT, async (t) => {
    const worker = await readFile(join(root, 'src/api/page/assets/sw.js'));
    const release = { name: 'one', status: 200 };
    const server = http.createServer(({ url }, response) => {
      const isPage = url === '/app';
      const isWorker = url.startsWith('/app/sw.js');
      response.writeHead(isPage ? release.status : 200, { 'Content-Type': isPage ? 'text/html' : 'text/javascript', 'Service-Worker-Allowed': '/app' });
      response.end(isWorker ? worker : isPage ? `<!DOCTYPE html><link rel="icon" href="data:,"><script src="app/${release.name}.js"></script>` : `window.release = '${url}'`);
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const stop = () => (server.closeAllConnections(), server.close());
    t.after(stop);
    const { page } = await open(browser);
    const register = (version) => page.evaluate(async (address) => {
      const { installing } = await navigator.serviceWorker.register(address, { scope: '/app' });
      await new Promise((done) => installing.addEventListener('statechange', () => ['activated', 'redundant'].includes(installing.state) && done()));
      return installing.state;
    }, `/app/sw.js?${version}`);
    const loaded = async () => {
      await page.reload();
      return page.evaluate(() => window.release);
    };
    await page.goto(`http://localhost:${server.address().port}/app`);
    assert.equal(await register('one'), 'activated');
    assert.equal(await loaded(), '/app/one.js');
    // In the middle of the next release.
    Object.assign(release, { name: 'two', status: 503 });
    assert.equal(await register('two'), 'redundant');
    assert.equal(await loaded(), '/app/one.js');
    release.status = 200;
    assert.equal(await register('two'), 'activated');
    assert.equal(await loaded(), '/app/two.js');
    stop();
    assert.equal(await loaded(), '/app/two.js');
    await page.context().close();
  });
});

describe('The page', () => {
  const early = new Person();
  let patient;
  let opened;

  before(async () => {
    await early.register();
    patient = await early.device();
    opened = Date.now();
  }, LIMIT);

  test('is where a browser is led, is small, and lets people in', LIMIT, async () => {
    const { page, seen } = await open(browser);
    const loaded = [];
    page.on('response', (response) => loaded.push(response));
    await page.addInitScript(measure);
    await page.goto(service.url);
    assert.equal(page.url(), `${service.url}/app`);
    await page.getByRole('button', { name: 'Log in', exact: true }).waitFor();
    const bodies = await Promise.all(loaded.filter((response) => response.status() === 200).map((response) => response.body()));
    const bytes = bodies.reduce((sum, body) => sum + gzipSync(body).length, 0);
    console.log(`the first load: ${bytes} bytes in ${bodies.length} files, compressed`);
    assert.ok(bytes < MAX_LOAD, `${bytes}`);
    const { ready, blocked } = await until('it is measured', () => page.evaluate(() => window.measured.ready && window.measured));
    console.log(`it can be used ${ready.toFixed()} ms after it has come; its longest task took ${blocked.toFixed()} ms`);
    assert.ok(ready < MAX_READY && blocked < MAX_READY, `${ready}, ${blocked}`);
    await standsStill(page);
    await isAccessible(page, 'log in');

    await page.getByLabel('Name').fill('nobody');
    await page.getByLabel('Password').fill('wrong');
    await page.keyboard.press('Enter');
    await page.getByRole('alert').filter({ hasText: 'Invalid username or password' }).waitFor();
    await page.getByRole('button', { name: 'Create an account' }).click();
    await page.getByLabel('Name').fill('somebody new');
    await page.getByLabel('Password').fill(PASSWORD);
    await page.getByRole('button', { name: 'Create account' }).click();
    await page.getByRole('alert').filter({ hasText: 'username' }).waitFor();
    await isAccessible(page, 'create an account');
    await page.getByLabel('Name').fill('somebody.new');
    await page.getByRole('button', { name: 'Create account' }).click();
    await page.getByText('No todos yet.').waitFor();
    await hasFocus(page, '.list');
    await isAccessible(page, 'no todos');
    await page.reload();
    await page.getByText('No todos yet.').waitFor();
    await current(page);
    await standsStill(page);
    await add(page, 'one');
    await page.reload();
    await shows(page, ['one']);
    await current(page);
    await standsStill(page);
    const { requests, complaints } = await seen();
    assert.deepEqual(complaints, ['400 /auth/token', '422 /auth/register']);
    assert.deepEqual(requests.filter((request) => !request.includes(service.url)), []);
  });

  test('adds, edits, completes, finds, sorts and deletes, and takes back', LIMIT, async () => {
    const person = await new Person().register();
    const { page, seen } = await person.device();
    for (const title of ['Buy milk', 'Call the bank', 'اتصل بالبنك']) await add(page, title);
    await shows(page, ['اتصل بالبنك', 'Call the bank', 'Buy milk']);

    await row(page, 'Buy milk').locator('.title').dblclick();
    await page.getByLabel('Title').fill('Buy oat milk');
    await page.keyboard.press('Enter');
    await person.has({ title: 'Buy oat milk' });

    await row(page, 'Buy oat milk').getByLabel('Details').click();
    const drawer = page.getByRole('dialog');
    await drawer.getByLabel('Description').fill('2 l, if they have it');
    await drawer.getByLabel('Due').fill('2030-01-31');
    await drawer.getByLabel('at', { exact: true }).fill('09:30');
    await drawer.getByLabel('Priority').selectOption('high');
    for (const tag of ['shop', ' food ']) {
      await drawer.getByLabel('Add tag').fill(tag);
      await page.keyboard.press('Enter');
    }
    await drawer.getByLabel('Remove tag shop').click();
    const todo = await person.has({ title: 'Buy oat milk', description: '2 l, if they have it', priority: 3, tags: ['food'] });
    assert.equal(new Date(todo.due_at).getTime(), new Date('2030-01-31T09:30').getTime());
    await drawer.getByText('Everything is saved.').waitFor();
    await drawer.getByRole('region', { name: 'History' }).getByText('priority: nothing → high').waitFor();
    await isAccessible(page, 'details');
    await page.keyboard.press('Escape');
    await drawer.waitFor({ state: 'detached' });
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-label')), 'Details of Buy oat milk', 'the focus is where it was');

    // Filters are in the address.
    await page.getByLabel('Tag').selectOption('food');
    await shows(page, ['Buy oat milk']);
    await page.getByLabel('Tag').selectOption('');
    await page.getByRole('searchbox').fill('BANK');
    await shows(page, ['Call the bank']);
    await page.reload();
    await shows(page, ['Call the bank']);
    assert.match(page.url(), /q=BANK/);
    await page.getByRole('searchbox').fill('nothing like it');
    await page.getByRole('button', { name: 'Show all that is open' }).click();
    await page.getByLabel('Order').selectOption('Priority');
    await shows(page, ['Buy oat milk', 'Call the bank', 'اتصل بالبنك']);
    await page.goBack();
    await shows(page, ['اتصل بالبنك', 'Call the bank', 'Buy oat milk']);

    // Done, and taken back; deleted, and taken back; deleted, and taken out of the trash.
    await row(page, 'Call the bank').getByRole('checkbox').click();
    await person.has({ title: 'Call the bank', completed: true });
    await page.getByRole('button', { name: 'Undo' }).click();
    await person.has({ title: 'Call the bank', completed: false });
    await row(page, 'Call the bank').locator('.title').click();
    await page.keyboard.press('Delete');
    await until('it is gone', async () => (await person.todos()).length === 2);
    await page.keyboard.press('u');
    await person.has({ title: 'Call the bank' });
    for (const title of ['Call the bank', 'Buy oat milk']) {
      await row(page, title).locator('.title').click();
      await page.keyboard.press('Delete');
    }
    await until('they are gone', async () => (await person.todos()).length === 1);
    await page.getByRole('button', { name: 'Trash' }).click();
    await drawer.getByRole('button', { name: 'Restore Call the bank' }).waitFor();
    await isAccessible(page, 'trash');
    await drawer.getByRole('button', { name: 'Restore Buy oat milk' }).press('Enter');
    await drawer.getByRole('button', { name: 'Restore Buy oat milk' }).waitFor({ state: 'detached' });
    await hasFocus(page, 'li:has([aria-label="Restore Call the bank"])');
    await page.keyboard.press('Enter');
    await page.keyboard.press('Tab');
    await hasFocus(page, '[aria-label="Restore Call the bank"]');
    await page.keyboard.press('Enter');
    for (const title of ['Call the bank', 'Buy oat milk']) await person.has({ title });
    await drawer.getByText('The trash is empty.').waitFor();
    await hasFocus(page, 'dialog');
    await page.keyboard.press('Escape');
    await drawer.waitFor({ state: 'detached' });

    // What is done, what is due, and what is gone for good.
    await row(page, 'Call the bank').getByRole('checkbox').click();
    await page.getByLabel('Which').selectOption('Done');
    await shows(page, ['Call the bank']);
    await page.getByLabel('Which').selectOption('Open');
    await page.getByLabel('Due', { exact: true }).selectOption('With a date');
    await shows(page, ['Buy oat milk']);
    await page.getByLabel('Due', { exact: true }).selectOption('Overdue');
    await page.getByText('Nothing here fits.').waitFor();
    await page.getByRole('button', { name: 'Show all that is open' }).click();
    for (const title of ['Buy oat milk', 'اتصل بالبنك']) {
      await row(page, title).locator('.title').click();
      await page.keyboard.press('Delete');
    }
    await page.getByText('All done.').waitFor();
    page.on('dialog', (question) => question.accept());
    await page.getByRole('button', { name: 'Trash' }).click();
    await drawer.getByRole('button', { name: 'Remove Buy oat milk for good' }).click();
    await drawer.getByRole('button', { name: 'Remove Buy oat milk for good' }).waitFor({ state: 'detached' });
    await drawer.getByRole('button', { name: 'Empty the trash' }).click();
    await drawer.getByText('The trash is empty.').waitFor();
    assert.deepEqual([(await person.send('GET', '/trash')).length, (await person.todos()).length], [0, 1]);
    await page.keyboard.press('Escape');
    await drawer.waitFor({ state: 'detached' });
    await isAccessible(page, 'the list');
    assert.deepEqual((await seen()).complaints, []);
  });

  test('can be used with the keyboard alone, and puts todos in an order of one\'s own', LIMIT, async () => {
    const person = await new Person().register();
    const { page, seen } = await person.device();
    const press = async (...keys) => {
      for (const key of keys) await page.keyboard.press(key);
    };
    const close = async () => {
      await press('Escape');
      await page.getByRole('dialog').waitFor({ state: 'detached' });
    };
    await press('Escape', '?');
    await page.getByRole('dialog', { name: 'Keys' }).waitFor();
    await isAccessible(page, 'keys');
    await close();
    await press('n');
    for (const title of ['a', 'b', 'c', 'd']) {
      await page.keyboard.type(title);
      await press('Enter');
    }
    await shows(page, ['d', 'c', 'b', 'a']);
    await until('they are sent', async () => (await person.todos()).length === 4);
    await press('Escape');
    await press('ArrowDown', 'Alt+ArrowDown');
    await shows(page, ['d', 'b', 'c', 'a']);
    await press('Alt+ArrowUp', 'Alt+ArrowUp');
    await shows(page, ['c', 'd', 'b', 'a']);
    await press('End', 'Enter');
    await page.keyboard.type('a, edited');
    await press('Enter');
    await shows(page, ['c', 'd', 'b', 'a, edited']);
    await press('Home', ' ');
    await shows(page, ['d', 'b', 'a, edited']);
    await press('u');
    await shows(page, ['c', 'd', 'b', 'a, edited']);
    await press('o');
    await page.getByRole('dialog', { name: 'Details' }).waitFor();
    await close();
    await press('/');
    await page.keyboard.type('edited');
    await shows(page, ['a, edited']);
    await press('Escape', '#');
    await page.getByText('Nothing here fits.').waitFor();
    await press('t');
    await page.getByRole('dialog', { name: 'Trash' }).getByText('a, edited', { exact: true }).waitFor();
    await close();
    await press('a');
    await page.getByRole('dialog', { name: /^Account/ }).getByText('(this one)').waitFor();
    await isAccessible(page, 'account');
    await close();
    await press('e');
    await page.getByRole('complementary', { name: 'Events' }).getByText('There is no Dapr sidecar').waitFor();
    await isAccessible(page, 'events');

    // Many that have no place yet, faster than they can be kept.
    const many = await new Person().register();
    for (const title of ['1', '2', '3', '4', '5']) await many.send('POST', '/todos', { title });
    const device = await many.device();
    await shows(device.page, ['1', '2', '3', '4', '5']);
    await device.page.locator('.row').first().focus();
    await device.page.evaluate(async () => {
      for (const key of ['ArrowDown', 'ArrowDown', 'ArrowDown', 'ArrowDown', 'ArrowUp']) {
        document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key, altKey: true, bubbles: true, cancelable: true }));
        await new Promise((rendered) => setTimeout(rendered));
      }
    });
    const moved = ['2', '3', '4', '1', '5'];
    await shows(device.page, moved);
    await until('all is sent', async () => (await device.page.getByText('waiting').count()) === 0);
    const sent = await many.send('GET', '/todos?sort=order');
    assert.deepEqual([sent.map(({ title }) => title), await titles(device.page)], [moved, moved]);
    await device.seen();

    // By the mouse.
    await page.goto(`${service.url}/app`);
    await shows(page, ['c', 'd', 'b']);
    const handle = await row(page, 'c').locator('.handle').boundingBox();
    await page.mouse.move(handle.x + 5, handle.y + 10);
    await page.mouse.down();
    await page.mouse.move(handle.x + 5, handle.y + 60, { steps: 4 });
    await page.mouse.move(handle.x + 5, handle.y + 110, { steps: 4 });
    await page.mouse.up();
    await shows(page, ['d', 'b', 'c']);
    await current(page);
    const others = await person.send('GET', '/todos?sort=order&completed=false');
    assert.deepEqual(others.map(({ title }) => title), ['d', 'b', 'c'], 'every client sees the same order');
    await page.reload();
    await shows(page, ['d', 'b', 'c']);
    assert.deepEqual((await seen()).complaints, []);
  });

  test('shows on two devices what happens on the other, and asks where both have changed the same', LIMIT, async () => {
    const person = await new Person().register();
    const [desk, phone] = [await person.device(), await person.device(undefined, { width: 390, height: 800 })];
    await add(desk.page, 'shared');
    const from = Date.now();
    await shows(phone.page, ['shared']);
    console.log(`another device shows it after ${Date.now() - from} ms`);
    await isAccessible(phone.page, 'on a phone');
    const wide = await phone.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(wide, 0, 'nothing has to be scrolled sideways');
    const wordy = await person.send('POST', '/todos', { title: 'x'.repeat(200), due_at: '2030-01-01T10:00:00Z', priority: 4, tags: ['a tag of many letters', 'x'.repeat(50)] });
    for (const [width, height] of [[320, 568], [360, 640], [844, 390], [768, 900]]) {
      await phone.page.setViewportSize({ width, height });
      for (const view of ['', '?view=events']) {
        await phone.page.goto(`${service.url}/app${view}`);
        const { right, left } = await row(phone.page, 'xxx').getByLabel('Details').evaluate((button) => button.getBoundingClientRect());
        assert.ok(left >= 0 && right <= width, `${width}x${height} ${view}: the button ends at ${right}`);
      }
    }
    await phone.page.setViewportSize({ width: 390, height: 800 });
    await phone.page.goto(`${service.url}/app`);
    await row(phone.page, 'xxx').getByLabel('Details').click();
    for (const tag of wordy.tags) await phone.page.getByLabel(`Remove tag ${tag}`).click();
    await phone.page.keyboard.press('Escape');
    await until('its tags are gone', async () => (await person.todos()).every(({ tags }) => tags === undefined));
    await person.send('DELETE', `/todos/${wordy.id}`);
    await shows(phone.page, ['shared']);

    const mirrored = await phone.page.evaluate(() => {
      document.documentElement.dir = 'rtl';
      const box = document.querySelector('.row input').getBoundingClientRect();
      const result = [document.documentElement.scrollWidth - document.documentElement.clientWidth, box.left > innerWidth / 2];
      document.documentElement.dir = 'ltr';
      return result;
    });
    assert.deepEqual(mirrored, [0, true], 'from right to left');

    const rename = async ({ page }, title) => {
      await page.locator('.row .title').first().dblclick();
      await page.getByLabel('Title').fill(title);
      await page.keyboard.press('Enter');
    };
    await phone.page.context().setOffline(true);
    await rename(phone, 'by the phone');
    await add(phone.page, 'also offline');
    await phone.page.getByRole('status').filter({ hasText: /^Offline, 2 to send/ }).waitFor();
    await rename(desk, 'by the desk');
    await person.has({ title: 'by the desk' });
    await phone.page.context().setOffline(false);
    const alert = phone.page.getByRole('alert');
    await alert.getByText('One change was not saved').waitFor();
    await phone.page.getByRole('status').filter({ hasText: '1 for you to decide' }).waitFor();
    assert.deepEqual(await alert.getByRole('cell').allInnerTexts(), ['by the phone', 'by the desk']);
    await isAccessible(phone.page, 'a conflict');
    await person.has({ title: 'also offline' });
    await alert.getByRole('button', { name: 'Keep yours' }).click();
    await shows(desk.page, ['also offline', 'by the phone']);
    await alert.waitFor({ state: 'detached' });
    await hasFocus(phone.page, '.row');

    // By a finger.
    const { x, y } = await row(phone.page, 'also offline').locator('.handle').boundingBox();
    const cdp = await phone.page.context().newCDPSession(phone.page);
    await cdp.send('Emulation.setTouchEmulationEnabled', { enabled: true });
    const touch = (type, by) => cdp.send('Input.dispatchTouchEvent', { type, touchPoints: by === undefined ? [] : [{ x: x + 5, y: y + 10 + by }] });
    await touch('touchStart', 0);
    for (const by of [15, 30, 45, 60]) await touch('touchMove', by);
    await touch('touchEnd');
    for (const { page } of [phone, desk]) await shows(page, ['by the phone', 'also offline']);

    // Deleted here, and something unset elsewhere.
    const { id } = await person.has({ title: 'also offline' });
    await person.send('PATCH', `/todos/${id}`, { priority: 4 });
    await row(phone.page, 'also offline').getByText('highest').waitFor({ state: 'attached' });
    await phone.page.context().setOffline(true);
    await row(phone.page, 'also offline').locator('.title').click();
    await phone.page.keyboard.press('Delete');
    await person.send('PATCH', `/todos/${id}`, { priority: null });
    await phone.page.context().setOffline(false);
    await alert.getByText('before you deleted it').waitFor();
    assert.deepEqual(await alert.getByRole('row').allInnerTexts(), ['Field\tYours\tTheirs', 'priority\tdeleted\tnothing']);
    await alert.getByRole('button', { name: 'Delete it anyway' }).click();
    for (const { page } of [phone, desk]) await shows(page, ['by the phone']);

    // Logged out everywhere by one of them.
    await desk.page.getByRole('button', { name: person.name }).click();
    await desk.page.getByRole('button', { name: 'Log out everywhere' }).click();
    for (const { page } of [desk, phone]) await page.getByRole('button', { name: 'Log in', exact: true }).waitFor();
    await phone.page.getByText('You have been logged out.').waitFor();
    const kept = await desk.page.evaluate(async () => (await indexedDB.databases()).length);
    assert.ok(kept > 0);
    await desk.seen();
    await phone.seen();
  });

  test('keeps what is being typed, whatever others change, and mixes up no accounts', LIMIT, async () => {
    const [person, other] = [await new Person().register(), await new Person().register()];
    await other.send('POST', '/todos', { title: 'of the other' });
    const { page, seen } = await person.device();
    for (const title of ['one', 'two']) await add(page, title);
    const { id } = await person.has({ title: 'one' });
    const two = await person.has({ title: 'two' });
    await row(page, 'one').getByLabel('Details').click();
    const drawer = page.getByRole('dialog');
    await drawer.getByLabel('Description').pressSequentially('half a sen');
    await person.send('PATCH', `/todos/${two.id}`, { title: 'two, changed' });
    await person.send('PATCH', `/todos/${id}`, { title: 'one, changed' });
    await until('the title has come', async () => (await drawer.getByLabel('Title').inputValue()) === 'one, changed');
    assert.equal(await drawer.getByLabel('Description').inputValue(), 'half a sen');
    await drawer.getByLabel('Description').pressSequentially('tence');
    await page.keyboard.press('Escape');
    await person.has({ title: 'one, changed', description: 'half a sentence' });
    // What was not touched yet is replaced before it is.
    await row(page, 'one, changed').getByLabel('Details').click();
    await drawer.getByLabel('Description').focus();
    await person.send('PATCH', `/todos/${id}`, { description: 'of another device' });
    await until('it has come', async () => (await drawer.getByLabel('Description').inputValue()) === 'of another device');
    await page.keyboard.press('End');
    await page.keyboard.type(', and of this one');
    // The field goes away with what is typed: by going back, and when its todo is done elsewhere.
    await page.goBack();
    await drawer.waitFor({ state: 'detached' });
    await person.has({ description: 'of another device, and of this one' });
    await row(page, 'one, changed').locator('.title').dblclick();
    await page.getByLabel('Title').fill('one');
    await person.send('PATCH', `/todos/${id}`, { completed: true });
    await until('it is done', () => row(page, 'two, changed').evaluate((other) => other.parentElement.querySelector('.row.done') !== null));
    // Typed on, it is no keys for other todos.
    await page.keyboard.type(' box #3 for x');
    await page.keyboard.press('Enter');
    await person.has({ title: 'one box #3 for x', completed: true });
    await shows(page, ['two, changed']);
    await page.keyboard.press('Home');
    await hasFocus(page, '.row');
    assert.equal((await person.todos()).length, 2);
    await person.send('PATCH', `/todos/${id}`, { title: 'one, changed', completed: false });
    await row(page, 'one, changed').getByLabel('Details').click();
    await drawer.getByLabel('Description').press('End');
    await page.keyboard.type('!');
    await person.send('DELETE', `/todos/${id}`);
    await drawer.getByText('It was deleted elsewhere.').waitFor();
    await page.keyboard.type(' x # n');
    await page.keyboard.press('Escape');
    await person.has({ id, description: 'of another device, and of this one! x # n' });
    await drawer.waitFor({ state: 'detached' });

    // The page goes, too.
    await row(page, 'one, changed').getByLabel('Details').click();
    await drawer.getByText('Everything is saved.').waitFor();
    await drawer.getByLabel('Description').press('End');
    await page.keyboard.type(', and the end');
    await drawer.getByText('What you type is saved when you leave the field.').waitFor();
    await page.reload();
    await person.has({ id, description: 'of another device, and of this one! x # n, and the end' });
    await drawer.waitFor();
    await page.keyboard.press('Escape');
    await drawer.waitFor({ state: 'detached' });

    // The same field: the user is asked.
    await row(page, 'one, changed').locator('.title').dblclick();
    await page.getByLabel('Title').pressSequentially('mine');
    await person.send('PATCH', `/todos/${id}`, { title: 'theirs' });
    await row(page, 'one, changed').waitFor({ state: 'detached' });
    await page.keyboard.press('Enter');
    await page.getByRole('alert').getByRole('button', { name: 'Keep theirs' }).click();
    await shows(page, ['two, changed', 'theirs']);

    // What can be taken back belongs to the account; so do the view, the filters and what is kept.
    await row(page, 'two, changed').locator('.title').click();
    await page.keyboard.press('Delete');
    await page.getByRole('searchbox').fill('');
    await page.getByRole('searchbox').fill('the');
    await shows(page, ['theirs']);
    await row(page, 'theirs').getByLabel('Details').click();
    await drawer.getByLabel('Description').fill('typed when the session ended');
    await person.send('POST', '/auth/logout-all');
    await page.getByText('You have been logged out.').waitFor();
    assert.equal(await page.getByRole('button', { name: 'Undo' }).count(), 0);
    await other.login(page);
    await page.getByLabel('New todo').waitFor();
    await shows(page, ['of the other']);
    assert.equal(await page.getByRole('searchbox').inputValue(), '');
    await page.keyboard.press('u');
    assert.deepEqual([(await other.todos()).length, await page.getByRole('alert').count()], [1, 0]);
    await other.send('POST', '/auth/logout-all');
    await page.getByText('You have been logged out.').waitFor();
    await person.login(page);
    await person.has({ title: 'theirs', description: 'typed when the session ended' });
    assert.deepEqual((await seen()).complaints.filter((line) => !line.startsWith('4')), []);
  });

  test('keeps an account: its sessions, its tokens for scripts, its password, what it has, and its end', LIMIT, async () => {
    const person = await new Person().register();
    const [here, there] = [await person.device(), await person.device()];
    const { page } = here;
    await add(page, 'mine');
    const { id } = await person.has({ title: 'mine' });
    await page.getByRole('button', { name: person.name }).click();
    const drawer = page.getByRole('dialog');
    await drawer.getByText('(this one)').waitFor();
    const [download] = await Promise.all([page.waitForEvent('download'), drawer.getByRole('button', { name: 'Export all todos' }).click()]);
    assert.match(download.suggestedFilename(), /^todos-\d{4}-\d\d-\d\d\.ndjson$/);
    const lines = (await readFile(await download.path(), 'utf8')).trim().split('\n').map((line) => JSON.parse(line));
    assert.deepEqual(lines.map(({ event, title }) => event ?? title), ['mine', 'created']);

    const sessions = drawer.locator('section', { hasText: 'Sessions' });
    const before = await sessions.getByRole('button', { name: 'End' }).count();
    // The newest first: the one over there is that of the second device.
    for (let left = before; left > 0; left -= 1) {
      await sessions.getByRole('button', { name: 'End' }).first().click();
      await until('it has ended', async () => (await sessions.getByRole('button', { name: 'End' }).count()) < left);
    }
    await there.page.getByText('You have been logged out.').waitFor();

    await drawer.getByLabel('Name').fill('backup');
    await drawer.getByLabel('May').selectOption('read');
    await drawer.getByRole('button', { name: 'Create token' }).click();
    const token = await drawer.locator('code').innerText();
    const asScript = (method) => fetch(`${service.url}/todos/${id}`, { method, headers: { Authorization: `Bearer ${token}` } });
    assert.deepEqual([(await asScript('GET')).status, (await asScript('DELETE')).status], [200, 403]);
    await isAccessible(page, 'a token');
    await drawer.getByRole('button', { name: 'Revoke' }).click();
    await until('it is revoked', async () => (await asScript('GET')).status === 401);

    await drawer.getByLabel('Present password').fill('not this one');
    person.password = `${PASSWORD}, a new one`;
    await drawer.getByLabel('New password').fill(person.password);
    await drawer.getByRole('button', { name: 'Change password' }).click();
    await drawer.getByText('Wrong password').waitFor();
    await drawer.getByLabel('Present password').fill(PASSWORD);
    await drawer.getByRole('button', { name: 'Change password' }).click();
    await drawer.getByText('You have a new password.').waitFor();
    await page.keyboard.press('Escape');
    await add(page, 'after that');
    await person.has({ title: 'after that' });

    await page.getByRole('button', { name: person.name }).click();
    await drawer.getByRole('button', { name: 'Log out', exact: true }).click();
    await page.getByRole('button', { name: 'Log in', exact: true }).waitFor();
    assert.equal(await page.getByText('You have been logged out.').count(), 0, 'nobody else has done it');
    await hasFocus(page, '[name=username]');
    const kept = () => page.evaluate(async () => {
      const done = (request) => new Promise((resolve, reject) => Object.assign(request, { onsuccess: () => resolve(request.result), onerror: () => reject(request.error) }));
      const names = (await indexedDB.databases()).map(({ name }) => name).filter((name) => name.startsWith('todos '));
      const stores = await Promise.all(names.map(async (name) => (await done(indexedDB.open(name))).transaction('records').objectStore('records')));
      return [names.length, ...(await Promise.all(stores.map((records) => done(records.count()))))];
    });
    await until('what this browser had of them is gone', async () => JSON.stringify(await kept()) === '[1,0]');
    await person.login(page);
    await shows(page, ['after that', 'mine']);

    await page.getByRole('button', { name: person.name }).click();
    page.on('dialog', (question) => question.accept());
    await drawer.locator('section', { hasText: 'End of the account' }).getByLabel('Password').fill(person.password);
    await drawer.getByRole('button', { name: 'Delete account' }).click();
    await page.getByRole('button', { name: 'Log in', exact: true }).waitFor();
    await person.login(page);
    await page.getByRole('alert').waitFor();
    for (const { page: one } of [here, there]) await one.context().close();
  });

  test('keeps what the service refuses, until it can be done', LIMIT, async (t) => {
    const small = new Service({ MAX_TODOS_PER_USER: '2' });
    t.after(() => small.end());
    await small.start();
    const { page, seen } = await open(browser);
    await page.goto(`${small.url}/app`);
    await logIn(page, 'demo', 'demo123');
    for (const title of ['one', 'two', 'three']) await add(page, title);
    const alert = page.getByRole('alert');
    await alert.getByText('One change was not saved').waitFor();
    await row(page, 'one').locator('.title').click();
    await page.keyboard.press('Delete');
    await until('there is room', async () => (await small.call('GET', '/todos')).body.length === 1);
    await alert.getByRole('button', { name: 'Try again' }).click();
    await until('it is made', async () => (await small.call('GET', '/todos')).body.length === 2);
    await alert.waitFor({ state: 'detached' });
    await shows(page, ['three', 'two']);
    await seen();
  });

  test('works without a network from the second visit on, and loses nothing when the service is killed', LIMIT, async () => {
    const person = await new Person().register();
    const { page } = await person.device();
    await add(page, 'before');
    await until('the worker has it', () => page.evaluate(async () => (await navigator.serviceWorker.ready) && (await caches.keys()).length > 0));
    await person.has({ title: 'before' });
    await page.context().setOffline(true);
    await page.reload();
    await shows(page, ['before']);
    await add(page, 'without a network');
    await row(page, 'before').getByRole('checkbox').click();
    await page.reload();
    await shows(page, ['without a network']);
    await page.getByRole('status').filter({ hasText: 'Offline, 2 to send' }).waitFor();
    await row(page, 'without a network').getByText('waiting').waitFor();
    await service.kill();
    await page.context().setOffline(false);
    await add(page, 'while the service is gone');
    await service.start();
    for (const expected of [{ title: 'before', completed: true }, { title: 'without a network' }, { title: 'while the service is gone' }]) await person.has(expected);
    await current(page);
    assert.equal((await person.todos()).length, 3);
    await page.context().close();
  });

  test('is the same on another origin', LIMIT, async () => {
    const port = await freePort();
    const env = { ...process.env, SERVICE_URL: `${service.url}/`, WEB_PORT: String(port) };
    const site = spawn(process.execPath, [join(root, 'web/serve.mjs')], { env, stdio: ['ignore', 'pipe', 'inherit'] });
    const [said] = await once(site.stdout, 'data');
    assert.match(String(said), new RegExp(`the page is at http://localhost:${port}/app`));
    try {
      const person = await new Person().register();
      const { page, seen } = await person.device(`http://localhost:${port}/`);
      assert.equal(page.url(), `http://localhost:${port}/app`);
      await add(page, 'from elsewhere');
      const { id } = await person.has({ title: 'from elsewhere' });
      await person.send('PATCH', `/todos/${id}`, { title: 'changed by another client' });
      await shows(page, ['changed by another client']);
      await row(page, 'changed by').getByLabel('Details').click();
      await page.getByText('title: from elsewhere → changed by another client').waitFor();
      await page.keyboard.press('Escape');
      await page.getByRole('dialog').waitFor({ state: 'detached' });
      const script = () => page.locator('script').getAttribute('src');
      const before = await script();
      await page.reload();
      await shows(page, ['changed by another client']);
      assert.notEqual(await script(), before, 'it is built again, and not kept');
      const { requests, complaints } = await seen();
      assert.deepEqual(complaints, []);
      assert.ok(requests.some((request) => request.startsWith(`GET ${service.url}/events`)));
    } finally {
      site.kill();
    }
  });

  test('scrolls through 10,000 todos with few of them in the page', LIMIT, async () => {
    const person = await new Person().register();
    const lines = Array.from({ length: 10_000 }, (_, n) => ({ title: `todo ${n + 1}`, tags: [`t${n % 7}`] }));
    await person.send('POST', '/import', lines);
    const { page, seen } = await person.device();
    await page.getByText('10000 todos').waitFor();
    assert.equal((await titles(page))[0], 'todo 1');
    assert.ok((await page.locator('.row').count()) < 60);
    const worst = await page.evaluate(async () => {
      const list = document.querySelector('.list');
      let [worst, last] = [0, performance.now()];
      for (let n = 1; n <= 60; n += 1) {
        list.scrollTop = (list.scrollHeight * n) / 60;
        await new Promise((done) => requestAnimationFrame(done));
        worst = Math.max(worst, performance.now() - last);
        last = performance.now();
      }
      return worst;
    });
    console.log(`the slowest of 60 frames while scrolling through 10,000 todos: ${worst.toFixed()} ms`);
    assert.ok(worst < 500, `${worst}`);
    assert.equal((await titles(page)).at(-1), 'todo 10000');
    await page.setViewportSize({ width: 390, height: 700 });
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: 'Events', exact: true }).click();
    assert.ok((await page.locator('.row').count()) < 60, 'on a phone, too');
    await page.getByRole('button', { name: 'Events', exact: true }).click();
    await page.setViewportSize({ width: 1280, height: 900 });
    await page.locator('.row').last().click();
    await page.keyboard.press('Home');
    await until('the first one has the focus', () => page.evaluate(() => document.activeElement.textContent.includes('todo 1')));
    await page.getByRole('searchbox').fill('9999');
    await shows(page, ['todo 9999']);
    assert.deepEqual((await seen()).complaints, []);
  });

  test('stays logged in when its access tokens end', LIMIT, async () => {
    const { page, seen } = patient;
    await sleep(Math.max(0, opened + LIFE - Date.now()));
    await add(page, 'later');
    const { id } = await early.has({ title: 'later' });
    await early.send('PATCH', `/todos/${id}`, { title: 'changed by another client' });
    await shows(page, ['changed by another client']);
    const { requests, complaints } = await seen();
    const grants = requests.filter((request) => request === `POST ${service.url}/auth/token`);
    assert.ok(grants.length >= 2, `${grants.length}`);
    // The service was killed meanwhile.
    assert.deepEqual(complaints.filter((line) => !line.includes('net::ERR_')), []);
  });
});
