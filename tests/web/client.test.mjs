// web/client: the rules of its queue, sessions on the real service, what becomes of edits that are refused; and tabs in Chromium.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { launch, open, site, until } from './browser.mjs';
import { Locks, LoggedOut, Memory, Refused, Session, Todos, bundle, caller, queue, size } from './client.mjs';
import { Network } from './network.mjs';
import { Service, root } from './service.mjs';

describe('The client', () => {
  test('is used as its README says', { timeout: 180_000 }, async () => {
    const readme = await readFile(join(root, 'web/client/README.md'), 'utf8');
    const [, example] = /^```ts\n(.*?)^```/ms.exec(readme);
    const file = join(await bundle('index.ts'), 'example.ts');
    const stub = 'declare function render(...shown: unknown[]): void;\n';
    await writeFile(file, stub + example.replaceAll("'./client", `'${root}/web/client`));
    const tsc = join(root, 'web/node_modules/typescript/bin/tsc');
    const options = ['--strict', '--noEmit', '--allowJs', '--target', 'es2022', '--module', 'esnext', '--moduleResolution', 'bundler', '--lib', 'es2023,dom,dom.iterable'];
    const said = await new Promise((done) => execFile(process.execPath, [tsc, ...options, file], (error, out) => done(error ? out || error.message : '')));
    assert.equal(said, '');
  });

  test('is small', async () => {
    const bytes = await size();
    console.log(`all of web/client: ${bytes} bytes, minified and compressed`);
    assert.ok(bytes < 7.75 * 1024, `${bytes}`);
  });
});

describe('The queue', () => {
  let places = 0;
  const saw = { id: 1, title: 'a', description: null, completed: false, tags: ['x'], etag: '"1"' };
  const edit = (kind, id, fields = {}, more = {}) =>
    ({ place: String(places += 1).padStart(9, '0'), key: `k${places}`, kind, id, fields, saw: { ...saw, id }, etag: '"1"', ...more });
  const queued = (...edits) => ({ edits: new Map(edits.map((one) => [one.place, one])), ids: new Map(), answers: new Map() });

  test('makes one request of what goes together, and none of what comes to nothing', () => {
    const one = (...edits) => {
      const waiting = queued(...edits);
      const sent = queue.send(waiting, edits[0], 5);
      return { sent: sent && [sent.kind, sent.key === edits[0].key, sent.fields, sent.sent], left: queue.inOrder(waiting).map(({ kind }) => kind) };
    };
    const both = one(edit('update', 1, { title: 'b', priority: 1 }), edit('update', 2, { title: 'other' }), edit('update', 1, { title: 'c', due_at: null }));
    assert.deepEqual(both, { sent: ['update', true, { title: 'c', priority: 1, due_at: null }, 5], left: ['update', 'update'] });
    const created = one(edit('create', 'k', { title: 'b', due_at: '2030-01-01', tags: ['x'] }), edit('update', 'k', { due_at: null, tags_add: ['y'] }));
    assert.deepEqual(created, { sent: ['create', true, { title: 'b', tags: ['x', 'y'] }, 5], left: ['create'] });
    const nothing = { sent: undefined, left: [] };
    assert.deepEqual(one(edit('create', 'k', { title: 'b' }), edit('update', 'k', { title: 'c' }), edit('delete', 'k')), nothing);
    assert.deepEqual(one(edit('delete', 1), edit('restore', 1)), nothing);
    assert.deepEqual(one(edit('update', 1, { title: 'b' }), edit('delete', 1)).left, ['update', 'delete'], 'the trash has what was written last');
    const seen = one(edit('update', 1, { title: 'b' }), edit('update', 1, { title: 'c' }, { etag: '"2"' }));
    assert.deepEqual(seen.left, ['update', 'update'], 'they are of different versions');
    // The tab that deletes it has not heard that nothing is left.
    assert.deepEqual(one(edit('delete', 'gone')), nothing);
    assert.deepEqual(one(edit('restore', 'gone')).sent, ['create', true, { title: 'a', description: null, completed: false, tags: ['x'] }, 5]);
  });

  test('tags become what each of the edits would have made of them', () => {
    const tags = (...changes) => {
      const edits = changes.map((fields) => edit('update', 1, fields));
      const one = queue.send(queued(...edits), edits[0], 5);
      const apart = edits.reduce((todo, { fields }) => queue.changed(todo, fields), saw);
      assert.deepEqual(queue.changed(saw, one.fields), apart, JSON.stringify(changes));
      assert.ok(!(one.fields.tags && (one.fields.tags_add || one.fields.tags_remove)), 'the service takes them apart only');
      return one.fields;
    };
    const some = [{ tags: ['p', 'q'] }, { tags: null }, { tags_add: ['p', 'x'] }, { tags_remove: ['x', 'p'] }, { tags_add: ['r'], tags_remove: ['p'] }, { title: 't' }];
    for (const a of some) for (const b of some) for (const c of some) tags(a, b, c);
    assert.deepEqual(queue.normal({ tags_add: [' e\u0301 ', ' '], due_at: '2030-01-01T12:00:00+02:00' }), { tags_add: ['é'], due_at: '2030-01-01T10:00:00.000Z' });
  });

  test('an answer moves what was seen forward, and hides nothing', () => {
    const [first, title, done, tags] =
      [edit('update', 1, { title: 'b' }), edit('update', 1, { title: 'c' }), edit('update', 1, { completed: true }), edit('update', 1, { tags_add: ['y'] })];
    title.saw = { ...saw, title: 'b' };
    const waiting = queued(first, title, done, tags);
    const answer = { id: 1, revision: 7, etag: '"9"', todo: { ...saw, title: 'b', tags: ['x', 'of others'] } };
    queue.answered(waiting, first, answer, 6);
    assert.deepEqual(queue.inOrder(waiting).map(({ etag }) => etag), ['"1"', '"9"', '"9"', '"1"']);
    const onTop = queue.base(waiting, edit('update', 1, { title: 'd' }, { saw: { ...saw, etag: '"12"' } }));
    assert.equal(onTop, '"9"', 'it is on top of an edit that was made on that version');
    assert.equal(queue.base(waiting, edit('update', 1, { order: 1 })), '"9"');
    // Made on versions 1 and 5, and all of it is deleted and brought back: the title is still that of version 1.
    const mixed = queued(edit('update', 1, { title: 'c' }), edit('update', 1, { priority: 2 }, { etag: '"5"' }), edit('delete', 1), edit('restore', 1));
    for (const kind of ['delete', 'restore']) {
      const [one] = queue.inOrder(mixed).filter((each) => each.kind === kind);
      mixed.edits.delete(one.place);
      mixed.edits.set(one.place, { ...one, etag: queue.base(mixed, { ...one, saw: { ...saw, etag: '"5"' } }) });
    }
    const seenFive = { ...saw, title: 'c', etag: '"5"' };
    assert.equal(queue.base(mixed, edit('update', 1, { title: 'd' }, { saw: seenFive })), '"1"');
    assert.equal(queue.inOrder(mixed)[2].etag, '"1"', 'nobody deletes a title that they did not see');
    queue.settle(waiting, 6);
    assert.equal(waiting.edits.size, 4);
    queue.settle(waiting, 7);
    assert.equal(waiting.edits.size, 3);
  });

  test('what is answered while an edit is being added is not forgotten, and nothing is sent blindly', () => {
    const [create, blind, late] = [edit('create', 'k', { title: 'b' }, { etag: undefined }), edit('update', 'k', { title: 'c' }, { etag: undefined }), edit('update', 'k', { priority: 1 })];
    const of = (title, etag) => ({ id: 7, revision: 9, etag, todo: { ...saw, id: 7, title } });
    blind.saw = late.saw = { ...saw, id: 'k', title: 'b', etag: undefined };
    const waiting = queued(create);
    queue.answered(waiting, create, of('b', '"7-1"'), 8);
    for (const one of [blind, { ...late, etag: undefined }]) queue.put(waiting, one);
    const sent = queue.send(waiting, blind, 5);
    assert.deepEqual([sent.etag, sent.fields], ['"7-1"', { title: 'c', priority: 1 }]);
    // Its answer has what others have made of the title meanwhile: who saw the old one must not replace it.
    const behind = edit('update', 'k', { title: 'd' }, { etag: undefined, saw: { ...saw, id: 'k', title: 'c' } });
    queue.put(waiting, behind);
    queue.answered(waiting, sent, of('of others', '"7-4"'), 8);
    assert.equal(queue.send(waiting, waiting.edits.get(behind.place), 5).etag, '"7-1"');
  });

  test('an answer says nothing about what has come after it', () => {
    const waiting = queued(edit('update', 1, { completed: true }));
    const [done] = queue.inOrder(waiting);
    queue.answered(waiting, done, { id: 1, revision: 7, etag: '"2"', todo: { ...saw, completed: true } }, 6);
    queue.settle(waiting, 7);
    queue.heard(waiting, { id: 1, revision: 7 });
    // On another device it was opened again, and completed again, which the user has seen.
    const etags = [8, 9].map((revision) => {
      queue.heard(waiting, { id: 1, revision });
      const open = edit('update', 1, { completed: false }, { etag: `"${revision}"`, saw: { ...saw, completed: true, etag: `"${revision}"` } });
      queue.put(waiting, open);
      return queue.send(waiting, open, 5).etag;
    });
    assert.deepEqual(etags, ['"8"', '"9"']);
  });

  test('brings back what was deleted, as others had changed it', () => {
    const waiting = queued(edit('delete', 1), edit('restore', 1), edit('update', 1, { priority: 3 }));
    const theirs = { ...saw, title: 'of others', etag: '"5"' };
    assert.deepEqual([...queue.show(new Map([[1, theirs]]), waiting).values()], [{ ...theirs, priority: 3 }]);
    assert.deepEqual([...queue.show(new Map(), waiting).values()], [{ ...saw, priority: 3 }]);
    // The deletion was sent again after others had changed it, and the trash has that: whoever is shown what was there before changes that.
    const sentAgain = queued(edit('restore', 1, {}, { etag: '"5"' }));
    assert.equal(queue.base(sentAgain, edit('update', 1, { title: 'c' })), '"1"');
  });

  test('asks about what others want differently, and gives up nothing else', () => {
    const current = { ...saw, title: 'b', tags: ['x', 'y'], order: 3, priority: 1 };
    const asked = (...given) => queue.asked(edit(...given), current);
    assert.deepEqual(asked('update', 1, { title: 'b', tags_add: ['y'], order: 9, priority: 2 }), ['priority']);
    assert.deepEqual(queue.asked(edit('update', 1, { title: 'c', priority: 2 }), current, ['title']), ['title']);
    assert.deepEqual(asked('delete', 1), ['title', 'priority', 'tags']);
    assert.deepEqual(queue.asked(edit('delete', 1), { ...saw, updated_at: 'later', order: 4 }), [], 'changed, and changed back');
    const rest = (kind, fields, about) => queue.rest({ ...edit(kind, 1, fields), problem: { status: 422, detail: '', fields: about } });
    assert.deepEqual(rest('update', { title: 'c', tags_add: ['z'], priority: 2 }, ['tags']), { title: 'c', priority: 2 });
    assert.deepEqual(rest('create', { title: 'c', tags: ['z'] }, ['tags']), { title: 'c' });
    for (const nothing of [rest('create', { title: 'c', tags: ['z'] }, ['title']), rest('update', { title: 'c' }, ['title']), rest('update', { title: 'c' }), rest('delete', {}, ['title'])]) {
      assert.equal(nothing, undefined);
    }
  });

  test('what has a problem holds up its own todo, and takes what builds on it along', () => {
    const [create, update, other] = [edit('create', 'k', { title: 'b' }), edit('update', 'k', { title: 'c' }), edit('update', 2, { title: 'd' })];
    const waiting = queued({ ...create, problem: { status: 422, detail: '' } }, update, other);
    assert.equal(queue.next(waiting), other);
    queue.drop(waiting, create);
    assert.deepEqual(queue.inOrder(waiting), [other]);
  });
});

describe('A session', () => {
  const service = new Service();
  let network;
  let locks;
  let tabs;
  let sessions;
  let token;
  let ended;
  const grants = () => network.requests.filter((line) => line.startsWith('POST /auth/token')).length;

  before(async () => {
    await service.start();
    network = await new Network().open(service.port);
    [locks, tabs] = [new Locks(), new Memory()];
    ended = [0, 0];
    sessions = await Promise.all(ended.map(() => Session.open(network.url, tabs.tab(), locks)));
    sessions.forEach((session, index) => (session.onchange = () => (ended[index] += Number(session.account === undefined))));
  });

  after(async () => {
    network?.close();
    await service.end();
  });

  test('begins with the right password, in all tabs', async () => {
    const wrong = await sessions[0].login('demo', 'wrong').then(() => undefined, (error) => error);
    assert.ok(wrong instanceof Refused);
    assert.deepEqual([wrong.status, wrong.message], [400, 'Invalid username or password']);
    const taken = await sessions[0].register('demo', 'a long password').then(() => undefined, (error) => error);
    assert.equal(taken.status, 409);
    await sessions[0].register('newcomer', 'a long password');
    await sessions[0].login('newcomer', 'a long password');
    assert.equal(sessions[0].account.username, 'newcomer');
    await until('the other tab knows', () => sessions[1].account?.username === 'newcomer');
    token = sessions.map((session) => session.tokenOf(session.account));
  });

  test('is refreshed once by many at once, by each tab in its turn, and at once when a token is refused', async () => {
    const first = await token[0]();
    // Tokens of the same second are the same.
    await sleep(1100);
    const before = grants();
    const tokens = await Promise.all(Array.from({ length: 20 }, () => token[0](first)));
    assert.equal(new Set(tokens).size, 1);
    assert.equal(grants(), before + 1);
    assert.equal(await token[0](first), tokens[0], 'who comes later with the old one gets the new one');
    await sleep(1100);
    await Promise.all([...Array.from({ length: 10 }, () => token[0](tokens[0])), ...Array.from({ length: 10 }, () => token[1]())]);
    assert.equal(grants(), before + 3);
    for (const session of sessions) assert.equal((await session.call('get', '/auth/me')).body.username, 'newcomer');
    // The service has ended all access tokens: the call does not show it.
    const changed = await sessions[1].call('post', '/auth/password', { body: { current_password: 'a long password', new_password: 'another password' } });
    assert.equal(changed.status, 200);
    assert.equal((await sessions[0].call('get', '/auth/me')).status, 200);
  });

  test('goes on after lost answers, and without a network', async () => {
    network.mode = 'deaf';
    await assert.rejects(token[0](await token[0]()));
    network.mode = 'down';
    const old = await tabs.tab().read(['session']);
    await assert.rejects(sessions[0].call('get', '/auth/me'));
    assert.deepEqual(await tabs.tab().read(['session']), old);
    network.mode = 'up';
    assert.equal((await sessions[0].call('get', '/auth/me')).status, 200);
    assert.equal(await token[0](await token[0]()), await token[0]());
    assert.deepEqual(ended, [0, 0]);
    // As a tab that was closed before it could keep the answer.
    await tabs.tab().write(old);
    const reopened = await Session.open(network.url, tabs.tab(), locks);
    assert.equal((await reopened.call('get', '/auth/me')).status, 200);
  });

  test('ends only when the service says so', async () => {
    const answers = [[503, {}], [500, {}], [429, { detail: 'Too many requests' }], [502, {}], [400, {}], [400, { error: 'invalid_request' }], [401, {}]];
    for (const [status, body] of answers) {
      const server = http.createServer((request, response) => response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body)));
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      const session = await Session.open(`http://127.0.0.1:${server.address().port}`, tabs.tab(), locks);
      await assert.rejects(session.tokenOf(session.account)(), (error) => error instanceof Refused && error.status === status);
      server.close();
    }
    assert.deepEqual(ended, [0, 0]);
    assert.ok((await tabs.tab().read(['session'])).has('session'));
    const admin = caller(service.url, async () => (await (await fetch(`${service.url}/auth/login?username=admin&password=admin123`, { method: 'POST' })).json()).access_token);
    await admin('patch', '/admin/users/{id}', { path: { id: sessions[0].account.id }, body: { state: 'disabled' } });
    await assert.rejects(sessions[0].call('get', '/auth/me'), LoggedOut);
    await until('both tabs know', () => ended.every((times) => times === 1));
    await assert.rejects(token[1](), LoggedOut);
    await sessions[0].login('user', 'user123');
    await until('both tabs know', () => sessions[1].account?.username === 'user');
    await assert.rejects(token[0](), LoggedOut, 'what belonged to the account before gets no token of this one');
    // Somebody logs in as somebody else while the other tab refreshes.
    const refreshed = sessions[1].tokenOf(sessions[1].account)('a token that was refused').catch(() => undefined);
    await sessions[0].login('demo', 'demo123');
    await refreshed;
    for (const session of [...sessions, await Session.open(network.url, tabs.tab(), locks)]) {
      await until('all are the last one', () => session.account?.username === 'demo');
      assert.equal((await session.call('get', '/auth/me')).body.username, 'demo');
    }
  });

  test('ends here, and everywhere', async () => {
    await sessions[0].login('user', 'user123');
    const elsewhere = await Session.open(network.url, new Memory().tab(), locks);
    await elsewhere.login('user', 'user123');
    await sessions[0].logout();
    await until('both tabs know', () => sessions[1].account === undefined);
    assert.equal((await elsewhere.call('get', '/auth/me')).status, 200, 'the other one goes on');
    await sessions[1].login('user', 'user123');
    await sessions[1].logout(true);
    await assert.rejects(elsewhere.call('get', '/auth/me'), LoggedOut);
    // Without a network it ends here at least.
    await sessions[0].login('user', 'user123');
    network.mode = 'down';
    await assert.rejects(sessions[0].logout(true));
    assert.equal(sessions[0].account.username, 'user');
    await sessions[0].logout();
    assert.equal(sessions[0].account, undefined);
    network.mode = 'up';
  });
});

describe('Edits', () => {
  const service = new Service();
  let network;
  let device;
  const opened = [];

  /** A browser with one tab that is logged in. */
  async function browserWithATab() {
    const [memory, locks] = [new Memory(), new Locks()];
    const session = await Session.open(network.url, new Memory().tab(), locks);
    await session.login('demo', 'demo123');
    const openTab = async () => {
      opened.push(await Todos.open({ url: network.url, token: session.tokenOf(session.account), store: memory.tab(), name: 'todos', locks }));
      return opened.at(-1);
    };
    return { memory, session, openTab, todos: await openTab() };
  }

  const settled = (todos) => until('everything is settled', () => todos.status.current && todos.edits.length === 0 && todos.status.unsent === undefined);
  const problem = (todos, status) => until(`a problem ${status}`, () => todos.edits.find((edit) => edit.problem?.status === status));
  const at = (todos, id) => todos.shown.get(todos.id(id));
  const titled = (todos, title) => [...todos.shown.values()].find((todo) => todo.title === title);

  before(async () => {
    await service.start();
    network = await new Network().open(service.port);
    device = await browserWithATab();
  });

  after(async () => {
    for (const todos of opened) todos.close();
    network?.close();
    await service.end();
  });

  test('are shown at once, sent in the form that the service keeps, and have the service\'s ids in the end', async () => {
    const { todos } = device;
    network.mode = 'down';
    await until('it notices', () => !todos.status.current);
    const id = await todos.create({ title: 'offline', tags: ['a', ' a ', 'b'], due_at: '2030-01-01T12:00:00+02:00' });
    await todos.update(at(todos, id), { tags_add: ['c'], tags_remove: ['a'], priority: 3 });
    await todos.update(at(todos, id), { description: 'more', order: 0.5 });
    const shown = todos.shown.get(id);
    network.mode = 'up';
    await settled(todos);
    const there = (await service.call('GET', '/todos?etags=true')).body.find(({ title }) => title === 'offline');
    assert.equal(todos.id(id), there.id);
    assert.deepEqual(todos.shown.get(there.id), there);
    const { id: _, created_at: __, updated_at: ___, etag: ____, ...kept } = there;
    const { id: local, created_at: made, updated_at: changed, ...seen } = shown;
    assert.deepEqual(kept, seen, 'the user saw what it has become');
    // A form that was opened before still finds it.
    await todos.update(at(todos, id), { title: 'offline no more' });
    await settled(todos);
    assert.equal(titled(todos, 'offline no more').id, there.id);
    await todos.remove(at(todos, id));
    assert.equal(titled(todos, 'offline no more'), undefined);
    await settled(todos);
    assert.equal((await service.call('GET', `/todos/${there.id}`)).status, 404);
    const [trashed] = (await todos.call('get', '/trash')).body;
    await todos.restore(trashed);
    await settled(todos);
    assert.deepEqual(titled(todos, 'offline no more').tags, ['b', 'c']);
  });

  test('of different fields are merged, and a conflict shows both sides', async () => {
    const { todos } = device;
    const id = todos.id(await todos.create({ title: 'shared' }));
    await settled(todos);
    const { id: number } = titled(todos, 'shared');
    network.mode = 'down';
    await service.call('PATCH', `/todos/${number}`, { priority: 2 });
    await todos.update(at(todos, id), { title: 'mine' });
    network.mode = 'up';
    await settled(todos);
    assert.deepEqual([titled(todos, 'mine').priority, todos.edits], [2, []]);

    const conflicts = async (theirs, mine) => {
      network.mode = 'down';
      await until('it notices', () => !todos.status.current);
      await service.call('PATCH', `/todos/${number}`, theirs);
      await mine();
      network.mode = 'up';
      return problem(todos, 412);
    };
    const edit = await conflicts({ title: 'theirs' }, () => todos.update(at(todos, number), { title: 'mine again', completed: true }));
    assert.deepEqual([edit.saw.title, edit.fields, edit.problem.current.title, edit.problem.fields], ['mine', { title: 'mine again', completed: true }, 'theirs', ['title']]);
    assert.equal(todos.shown.get(number).title, 'mine again', 'what the user has written stays on the screen');
    await todos.update(at(todos, number), { order: 4 });
    await todos.retry(edit, { title: 'both', completed: true });
    await settled(todos);
    const there = (await service.call('GET', `/todos/${number}`)).body;
    assert.deepEqual([there.title, there.completed, there.order, there.priority], ['both', true, 4, 2]);

    const given = await conflicts({ title: 'theirs again' }, () => todos.update(at(todos, number), { title: 'given up' }));
    await todos.discard(given);
    await settled(todos);
    assert.equal(todos.shown.get(number).title, 'theirs again');

    // Nobody is asked about what both want, or about places in the list; and what was not in conflict is not given up with the rest.
    network.mode = 'down';
    await until('it notices', () => !todos.status.current);
    await service.call('PATCH', `/todos/${number}`, { completed: false, order: 7, due_at: null });
    await todos.update(at(todos, number), { title: 'mine, too', completed: false, order: 8 });
    network.mode = 'up';
    await settled(todos);
    const partly = await conflicts({ priority: 0 }, () => todos.update(at(todos, number), { priority: 4, description: 'long and precious' }));
    assert.deepEqual(partly.problem.fields, ['priority']);
    await todos.discard(partly);
    await settled(todos);
    const both = (await service.call('GET', `/todos/${number}`)).body;
    assert.deepEqual([both.title, both.completed, both.order, both.priority, both.description], ['mine, too', false, 8, 0, 'long and precious']);

    // A form that was opened before one's own edits, and still shows what is there, is not in conflict with them; one that shows something else is.
    const form = at(todos, number);
    await todos.update(form, { title: 'first' });
    const opened = at(todos, number);
    await settled(todos);
    await todos.update(opened, { title: 'second' });
    await settled(todos);
    assert.equal((await service.call('GET', `/todos/${number}`)).body.title, 'second');
    await todos.update(form, { title: 'from long ago' });
    await todos.discard(await problem(todos, 412));
    await settled(todos);

    const removal = await conflicts({ description: 'look at this first' }, () => todos.remove(at(todos, number)));
    assert.deepEqual([removal.kind, removal.problem.current.description], ['delete', 'look at this first']);
    await todos.retry(removal);
    await settled(todos);
    assert.equal((await service.call('GET', `/todos/${number}`)).status, 404);
  });

  test('of a todo that others have deleted bring it back, unless it is gone for good', async () => {
    const { todos } = device;
    await todos.create({ title: 'deleted by others' });
    await settled(todos);
    const { id } = titled(todos, 'deleted by others');
    network.mode = 'down';
    await until('it notices', () => !todos.status.current);
    await service.call('DELETE', `/todos/${id}`);
    await todos.update(at(todos, id), { title: 'wanted' });
    network.mode = 'up';
    await settled(todos);
    assert.equal((await service.call('GET', `/todos/${id}`)).body.title, 'wanted');

    network.mode = 'down';
    await until('it notices', () => !todos.status.current);
    await service.call('DELETE', `/todos/${id}`);
    await service.call('DELETE', `/trash/${id}`);
    await todos.update(at(todos, id), { title: 'too late' });
    network.mode = 'up';
    const edit = await problem(todos, 404);
    assert.ok(titled(todos, 'too late'), 'what the user has written can still be read');
    await todos.discard(edit);
    await settled(todos);
    assert.equal(titled(todos, 'too late'), undefined);
  });

  test('that are refused wait for the user, and nothing else waits for them', async () => {
    const { todos } = device;
    const id = await todos.create({ title: 'x'.repeat(201) });
    await todos.update(at(todos, id), { priority: 1 });
    await todos.create({ title: 'behind it' });
    const edit = await problem(todos, 422);
    assert.match(edit.problem.detail, /^title: /);
    await until('the other one is there', () => titled(todos, 'behind it')?.etag);
    await todos.retry(edit, { ...edit.fields, title: 'short enough' });
    await settled(todos);
    assert.equal(titled(todos, 'short enough').priority, 1);
    const again = await todos.create({ title: '' });
    await todos.update(at(todos, again), { priority: 2 });
    await todos.discard(await problem(todos, 422));
    await settled(todos);
    assert.equal(todos.shown.has(again), false);
  });

  test('whose answer is lost are recognised, whatever happens to the tab', async () => {
    const { memory, session, todos } = await browserWithATab();
    await settled(todos);
    network.mode = 'deaf';
    const id = await todos.create({ title: 'did it arrive?' });
    await until('it was sent', () => todos.edits[0]?.sent);
    await until('it has arrived', async () => (await service.call('GET', '/todos?q=did+it+arrive')).body.length > 0);
    todos.close();
    network.mode = 'up';
    const reopened = await Todos.open({ url: network.url, token: session.tokenOf(session.account), store: memory.tab(), name: 'todos', locks: new Locks() });
    await settled(reopened);
    const { body } = await service.call('GET', '/todos?q=did+it+arrive');
    assert.deepEqual([body.length, reopened.id(id)], [1, body[0].id]);
    reopened.close();

    // A day later the service does not know the key any more, and a list does not say which request made what.
    const old = (title, sent) => ({ kind: 'create', place: `${title}`, id: title, key: `key-${title}`, fields: { title }, saw: { id: title, title }, sent });
    await memory.tab().write(new Map([
      ['since', 'foreign-1'],
      ['edit/1', { ...old('1', Date.now() - 25 * 3600_000) }],
      ['edit/2', { ...old('2', Date.now() - 3600_000) }],
    ]));
    const later = await Todos.open({ url: network.url, token: session.tokenOf(session.account), store: memory.tab(), name: 'todos', locks: new Locks() });
    const unknown = await problem(later, 0);
    assert.equal(unknown.fields.title, '1');
    await until('the other one is there', () => titled(later, '2')?.etag);
    await later.retry(unknown);
    await settled(later);
    assert.equal((await service.call('GET', '/todos?q=1&limit=1')).body[0].title, '1');
    later.close();
  });

  test('of what is not shown any more are made, and a copy that is cleared stays so', async () => {
    const { memory, todos } = await browserWithATab();
    await todos.create({ title: 'in a form' });
    await settled(todos);
    const form = titled(todos, 'in a form');
    await service.call('DELETE', `/todos/${form.id}`);
    await until('it is gone', () => !titled(todos, 'in a form'));
    await todos.update(form, { title: 'typed for ten minutes' });
    await settled(todos);
    assert.equal((await service.call('GET', `/todos/${form.id}`)).body.title, 'typed for ten minutes');

    const kept = todos.create({ title: 'kept before it is closed' });
    await todos.close();
    await kept;
    assert.ok([...(await memory.tab().read()).values()].some(({ fields }) => fields?.title === 'kept before it is closed'));
    await assert.rejects(todos.create({ title: 'too late' }));
    await service.call('POST', '/todos', { title: 'after it was closed' });
    await todos.clear();
    await sleep(200);
    assert.equal((await memory.tab().read()).size, 0);
  });

  test('survive pages that throw, stores that fail, and leaders that go', async () => {
    const { memory, session } = await browserWithATab();
    const locks = new Locks();
    const store = memory.tab();
    let fails = 2;
    const broken = { ...store, read: (...keys) => (keys[0] === undefined && (fails -= 1) === 0 ? Promise.reject(new Error('no disk')) : store.read(...keys)) };
    const open = (store) => Todos.open({ url: network.url, token: session.tokenOf(session.account), store, name: 'todos', locks });
    const first = await open(broken);
    first.onchange = () => {
      throw new Error('the page has a fault');
    };
    await first.create({ title: 'although the page throws' });
    await settled(first);
    assert.equal(fails <= 0, true, 'a read has failed');
    const second = await open(memory.tab());
    await second.create({ title: 'by the second' });
    await settled(second);
    await first.close();
    await second.create({ title: 'by the new leader' });
    await settled(second);
    assert.equal((await service.call('GET', '/todos?q=by+the')).body.length, 2);
    second.close();
  });

  test('of a list that is full are shown, and can be made later', async () => {
    const small = new Service({ MAX_TODOS_PER_USER: '2' });
    await small.start();
    const session = await Session.open(small.url, new Memory().tab(), new Locks());
    await session.login('demo', 'demo123');
    const todos = await Todos.open({ url: small.url, token: session.tokenOf(session.account), store: new Memory().tab(), name: 'todos', locks: new Locks() });
    for (const title of ['a', 'b']) await todos.create({ title });
    await settled(todos);
    const [a, b] = ['a', 'b'].map((title) => titled(todos, title));
    await todos.remove(a);
    await settled(todos);
    await todos.create({ title: 'c' });
    await settled(todos);
    await todos.restore(a);
    await todos.update(b, { title: 'b, changed' });
    const restore = await problem(todos, 409);
    assert.equal(restore.kind, 'restore');
    await until('nothing waits for it', () => titled(todos, 'b, changed')?.etag !== b.etag);
    await todos.update({ ...a, etag: undefined }, { title: 'a, changed' });
    await todos.discard(restore);
    const update = await problem(todos, 409);
    assert.equal(update.kind, 'update');
    await todos.remove(titled(todos, 'c'));
    await until('there is room', () => todos.edits.length === 1);
    await todos.retry(update);
    await settled(todos);
    assert.ok(titled(todos, 'a, changed'));
    await todos.close();
    await small.end();
  });

  /** A service that answers GET as an empty one does, and other requests as it is told. */
  async function fake(answer, events = (response) => response.write(':\n\n')) {
    const server = http.createServer((request, response) => {
      response.setHeader('Content-Type', 'application/json');
      if (request.method !== 'GET') return answer(request, response);
      response.setHeader('Sync-Token', 'e-0');
      if (request.url === '/events') events(response);
      else response.end(request.url.startsWith('/changes') ? '{"changes":[],"next":"e-0","has_more":false}' : '[]');
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const todos = await Todos.open({ url: `http://127.0.0.1:${server.address().port}`, token: async () => 't', store: new Memory().tab(), name: 'todos', locks: new Locks() });
    const end = async () => (await todos.close(), server.closeAllConnections(), server.close());
    return { todos, end };
  }
  const html = (response, status) => response.writeHead(status, { 'Content-Type': 'text/html' }).end('<p>a proxy</p>');
  const json = (response, status, body, headers = {}) => response.writeHead(status, headers).end(JSON.stringify(body));
  const made = (id, title) => ({ id, title, description: null, completed: false, created_at: '', updated_at: '' });

  test('that the service fails at again and again are shown', async () => {
    const answers = [500, 503, 500, 500, 500, 500, 500, 500];
    const keys = [];
    const { todos, end } = await fake((request, response) => {
      keys.push(request.headers['idempotency-key']);
      json(response, answers[keys.length - 1] ?? 500, { detail: 'failed' });
    });
    await todos.create({ title: 'fails' });
    const edit = await problem(todos, 500);
    assert.deepEqual([keys.length, new Set(keys).size], [7, 1], 'five in a row');
    await todos.retry(edit);
    await until('it is sent again', () => keys.length > 7);
    assert.equal(new Set(keys).size, 1, 'it may have been done');
    await end();
  });

  test('are not settled by the pages of proxies, and go where no stream comes through', async () => {
    const requests = [];
    const { todos, end } = await fake((request, response) => {
      requests.push(request.method);
      const n = requests.filter((method) => method === request.method).length;
      if (n < 3) return html(response, n === 1 ? 200 : 404);
      if (request.method === 'DELETE') return response.writeHead(204, { 'Change-Revision': '2' }).end();
      json(response, 201, made(7, 'x'), { 'Change-Revision': '1', ETag: '"e"' });
    }, (response) => json(response, 403, { detail: 'no streams here' }));
    await todos.create({ title: 'x' });
    await until('it is created', () => todos.edits[0]?.answer);
    await todos.remove([...todos.shown.values()][0]);
    await until('it is deleted', () => todos.edits[1]?.answer);
    assert.deepEqual(requests, ['POST', 'POST', 'POST', 'DELETE', 'DELETE', 'DELETE']);
    assert.equal(todos.edits[0].answer.id, 7);
    await end();
  });

  test('are corrected in the form that the service keeps', async () => {
    const bodies = [];
    const { todos, end } = await fake(async (request, response) => {
      let text = '';
      for await (const piece of request) text += piece;
      bodies.push(JSON.parse(text));
      if (bodies.length === 1) json(response, 422, { detail: [{ type: 'too_long', loc: ['body', 'tags', 0], msg: 'is too long', input: '' }] });
      else json(response, 201, made(7, 'x'), { 'Change-Revision': '1' });
    });
    await todos.create({ title: 'x', tags: ['a'] });
    const edit = await problem(todos, 422);
    assert.equal(edit.problem.detail, 'tags.0: is too long');
    await todos.retry(edit, { title: 'x', tags: [' b ', 'b'] });
    await until('it is created', () => todos.edits[0]?.answer);
    assert.deepEqual(bodies[1], { title: 'x', tags: ['b'] });
    await end();
  });
});

describe('Calls', () => {
  test('have a body only if it is JSON', async () => {
    const server = await site((path) => (path === '/export' ? '{"a":1}\n{"a":2}\n' : undefined));
    const call = caller(`http://127.0.0.1:${server.address().port}`);
    for (const path of ['/export', '/todos']) assert.deepEqual([(await call('get', path)).status, (await call('get', path)).body], [200, undefined]);
    server.closeAllConnections();
    server.close();
  });
});

describe('Tabs of a browser, on a page of another origin', () => {
  const service = new Service();
  let browser;
  let other;

  before(async () => {
    await service.start();
    browser = await launch({});
    const folder = await bundle('index.ts', 'memory.ts', 'indexeddb.ts', 'queue.ts');
    other = await site((path) => (path.endsWith('.js') ? readFile(join(folder, path)) : undefined));
  });

  after(async () => {
    await browser?.close();
    other?.close();
    await service.end();
  });

  /** In a page: opens the todos. */
  async function begin(url) {
    const { Session, Todos } = await import('/index.js');
    const { openStore } = await import('/indexeddb.js');
    const session = await Session.open(url, await openStore('session'));
    if (!session.account) await session.login('demo', 'demo123');
    window.todos = await Todos.open({ url, token: session.tokenOf(session.account), store: await openStore('todos'), name: 'todos' });
  }

  test('share one copy, one queue, one stream and one sender, and take over from each other', { timeout: 120_000 }, async () => {
    const { page: watched, seen } = await open(browser);
    const context = watched.context();
    const tab = async () => {
      const page = await context.newPage();
      await page.goto(`http://localhost:${other.address().port}/`);
      await page.evaluate(begin, service.url);
      return page;
    };
    const titles = (page) => page.evaluate(() => [...window.todos.shown.values()].map(({ title }) => title).sort());
    const streams = async () => /^todo_backend_event_streams (\d+)/m.exec((await service.call('GET', '/metrics')).text)?.[1];
    const is = (page, expected) => until(`${expected} in a tab`, async () => JSON.stringify(await titles(page)) === JSON.stringify(expected));
    const all = async () => (await service.call('GET', '/todos')).body.map(({ title }) => title).sort();

    const first = await tab();
    const second = await tab();
    const third = await tab();
    await until('one of them leads', () => second.evaluate(() => window.todos.status.current));
    await second.evaluate(() => window.todos.create({ title: 'by the second' }));
    await first.evaluate(() => window.todos.create({ title: 'by the first' }));
    for (const page of [first, second, third]) await is(page, ['by the first', 'by the second']);
    await until('it is sent', async () => (await all()).length === 2);
    await until('there is one stream', async () => (await streams()) === '1');

    // The leader goes in the middle of an edit.
    await context.setOffline(true);
    await third.evaluate(async () => {
      const [todo] = window.todos.shown.values();
      await window.todos.update(todo, { title: 'offline' });
      await window.todos.create({ title: 'new, offline' });
    });
    await first.close();
    await context.setOffline(false);
    await second.reload();
    await second.evaluate(begin, service.url);
    for (const page of [second, third]) await until('it is settled', () => page.evaluate(() => window.todos.status.current && window.todos.edits.length === 0));
    const there = await all();
    assert.equal(there.length, 3);
    for (const page of [second, third]) await is(page, there);
    await until('there is one stream', async () => (await streams()) === '1');
    await service.call('POST', '/todos', { title: 'by somebody else' });
    for (const page of [second, third]) await is(page, [...there, 'by somebody else'].sort());
    const { complaints } = await seen();
    assert.deepEqual(complaints.filter((line) => !line.includes('ERR_INTERNET_DISCONNECTED')), []);
  });

  test('keep their records when the browser closes the connection, and put none into an empty store', { timeout: 120_000 }, async () => {
    const { page, seen } = await open(browser);
    await page.goto(`http://localhost:${other.address().port}/`);
    const [kept, refused, names] = await page.evaluate(async () => {
      const { openStore } = await import('/indexeddb.js');
      const store = await openStore('connection');
      await store.write(new Map([['a', 1], ['b', 2]]));
      // As when the page has slept.
      const { transaction } = IDBDatabase.prototype;
      IDBDatabase.prototype.transaction = function () {
        IDBDatabase.prototype.transaction = transaction;
        throw new DOMException('The database connection is closing.', 'InvalidStateError');
      };
      await store.write(new Map([['b', 3]]));
      const kept = [...(await store.read())];
      await new Promise((done) => (indexedDB.deleteDatabase('connection').onsuccess = done));
      const refused = await store.write(new Map([['c', 4]])).then(() => 'written', ({ name }) => name);
      return [kept, refused, (await indexedDB.databases()).map(({ name }) => name)];
    });
    assert.deepEqual([kept, refused, names], [[['a', 1], ['b', 3]], 'AbortError', []]);
    await seen();
  });
});
