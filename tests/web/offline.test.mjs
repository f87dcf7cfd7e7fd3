// web/client on the real service: devices and tabs edit the same todos while their networks come and go, answers are lost, tabs are
// closed, and the service is killed. Nothing is lost that was not shown as a conflict, nothing is made twice, nobody overwrites what
// they did not see, and in the end all have the same.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Locks, Memory, Session, Todos } from './client.mjs';
import { Network } from './network.mjs';
import { Service } from './service.mjs';

const SECONDS = Number(process.env.TORTURE ? 300 : 25);
const KILLS = process.env.TORTURE ? 30 : 3;
/** In ms. */
const PATIENCE = 120_000;

const any = (list) => list[Math.floor(Math.random() * list.length)];

/** What all devices have done. */
class Record {
  /** title => what the user saw before; a creation saw nothing. */
  saw = new Map();
  /** Titles that a user has given up after a conflict, or with a todo. */
  given = new Set();
  created = new Map();
  /** Creations whose todo the user has removed, or given up. */
  removed = new Set();
  /** title => those that the same user has replaced it with, and the first one of its todo. */
  next = new Map();
  first = new Map();
  conflicts = 0;
  /** All requests of the clients: what to look at when something is wrong. */
  sent = [];
  n = 0;

  title(saw) {
    const title = `title ${(this.n += 1)}`;
    this.saw.set(title, saw);
    this.next.set(title, []);
    this.next.get(saw)?.push(title);
    this.first.set(title, this.first.get(saw) ?? title);
    return title;
  }
}

class Device {
  tabs = [];

  constructor(name, record) {
    [this.name, this.record, this.locks, this.memory] = [name, record, new Locks(), new Memory()];
    this.sessions = new Memory();
  }

  async open(port, tabs) {
    this.network = await new Network().open(port);
    this.session = await Session.open(this.network.url, this.sessions.tab(), this.locks);
    await this.session.login('demo', 'demo123');
    for (let n = 0; n < tabs; n += 1) await this.openTab();
  }

  async openTab() {
    const { network, memory, locks, name } = this;
    const session = await Session.open(network.url, this.sessions.tab(), locks);
    const todos = await Todos.open({ url: network.url, token: session.tokenOf(session.account), store: memory.tab(), name, locks });
    todos.onchange = () => this.answer(todos);
    const { call } = todos;
    todos.call = async (...request) => {
      const [method, path, { headers, body, path: { id } = {} }] = request;
      const sent = { at: Date.now() % 1e6, by: name, method, path, id, ...headers, body };
      this.record.sent.push(sent);
      const answer = await call(...request);
      return Object.assign(sent, { status: answer.status, etag: answer.headers.get('ETag'), revision: answer.headers.get('Change-Revision'), conflict: answer.body?.conflict, title: answer.body?.title ?? answer.body?.current?.title }), answer;
    };
    this.tabs.push(todos);
    this.answer(todos);
  }

  /** As a crash: what is kept stays. */
  closeTab() {
    this.tabs.shift().close();
  }

  /** The user decides about what has a problem, in one of the tabs. */
  answer(todos) {
    if (todos !== this.tabs[0] || this.deciding) return;
    const edit = todos.edits.find(({ problem }) => problem);
    if (!edit) return;
    this.deciding = true;
    this.record.conflicts += 1;
    queueMicrotask(async () => {
      const { problem, kind, fields } = edit;
      if (problem.status !== 412) {
        // Removed for good, or by an undo of somebody's creation: nothing else may be refused here.
        assert.deepEqual([problem.status, ['update', 'restore'].includes(kind)], [404, true], JSON.stringify(edit));
      }
      // A retry sees what others have made of it.
      const again = problem.status === 412 && Math.random() < 0.5;
      if (kind === 'create') this.record.removed.add(this.record.first.get(fields.title));
      if (fields.title !== undefined) {
        if (again) this.record.saw.set(fields.title, problem.current.title);
        else if (!problem.fields || problem.fields.includes('title')) this.record.given.add(fields.title);
      }
      await (again ? todos.retry(edit) : todos.discard(edit));
      this.deciding = false;
      this.answer(todos);
    });
  }

  async act() {
    const { record } = this;
    const todos = any(this.tabs);
    const shown = [...todos.shown.values()];
    const todo = any(shown);
    const dice = Math.random();
    if (shown.length < 5 || (dice < 0.1 && shown.length < 30)) {
      const title = record.title(undefined);
      record.created.set(await todos.create({ title, tags: ['new'] }), title);
    } else if (dice < 0.6) await todos.update(todo, { title: record.title(todo.title) });
    else if (dice < 0.7) await todos.update(todo, { completed: !todo.completed });
    else if (dice < 0.8) await todos.update(todo, { tags_add: [`t${Math.floor(Math.random() * 5)}`], priority: any([null, 0, 4]) });
    else if (dice < 0.85) await todos.update(todo, { tags_remove: ['new'], due_at: any([null, '2030-01-01', new Date().toISOString()]) });
    else {
      await todos.remove(todo);
      record.removed.add(record.first.get(todo.title));
      if (dice < 0.93) {
        await sleep(200 * Math.random());
        await any(this.tabs).restore(todo);
      }
    }
  }
}

describe('devices that edit offline', () => {
  const service = new Service();
  let end = 0;
  const record = new Record();
  const devices = ['phone', 'laptop', 'desk'].map((name) => new Device(name, record));

  before(async () => {
    await service.start();
    for (const [index, device] of devices.entries()) await device.open(service.port, index === 0 ? 2 : 1);
  });

  after(async () => {
    end = 0;
    for (const { tabs, network } of devices) {
      for (const tab of tabs) tab.close();
      network?.close();
    }
    await service.end();
  });

  test('lose nothing, do nothing twice, and agree in the end', { timeout: 1000 * SECONDS + PATIENCE + 60_000 }, async () => {
    end = Date.now() + 1000 * SECONDS;
    const using = devices.map(async (device) => {
      while (Date.now() < end) {
        await device.act();
        await sleep(120 * Math.random());
      }
    });
    const breaking = devices.map(async (device) => {
      while (Date.now() < end) {
        device.network.mode = any(['up', 'up', 'down', 'deaf']);
        await sleep(3000 * Math.random());
        if (Date.now() < end && Math.random() < 0.2) {
          await device.openTab();
          device.closeTab();
        }
      }
      device.network.mode = 'up';
    });
    const killing = (async () => {
      for (let n = 0; n < KILLS; n += 1) {
        await sleep((1000 * SECONDS) / (KILLS + 1));
        await service.kill();
        await service.start();
      }
    })();
    await Promise.all([...using, ...breaking, killing]);

    // All have sent everything, and have everything.
    const tabs = devices.flatMap((device) => device.tabs);
    let there;
    for (const from = Date.now(); ; await sleep(100)) {
      const unsettled = tabs.flatMap(({ edits }) => edits);
      there = (await service.call('GET', '/todos?etags=true')).body;
      const equal = tabs.every(({ shown }) => isSame([...shown.values()], there));
      if (unsettled.length === 0 && equal) break;
      const state = tabs.map(({ status, edits, shown }) => ({ status, edits: edits.slice(0, 3), shown: shown.size }));
      assert.ok(Date.now() - from < PATIENCE, `${unsettled.length} edits are left, equal: ${equal}: ${JSON.stringify(state)}`);
    }

    const export_ = (await service.call('GET', '/export')).text;
    const changes = export_.trim().split('\n').map((line) => JSON.parse(line)).filter(({ revision }) => revision !== undefined);
    const published = new Set();
    const titles = new Map();
    const ops = new Map();
    const born = new Map();
    for (const { id, event, op, todo, revision } of changes) {
      if (op !== undefined) {
        assert.ok(!ops.has(op), `${op} was done twice: revisions ${ops.get(op)} and ${revision}`);
        ops.set(op, revision);
      }
      if (event === 'created') born.set(op, id);
      if (todo === null) continue;
      const before = titles.get(id);
      titles.set(id, todo.title);
      published.add(todo.title);
      if (before === todo.title) continue;
      // Through titles of the same user that went with this one, to the one that was there.
      let saw = todo.title;
      do saw = record.saw.get(saw);
      while (saw !== before && saw !== undefined);
      const way = () => record.sent.filter((one) => one.id === id || one.body?.title === before).map((one) => JSON.stringify(one)).join('\n');
      assert.ok(saw === before, `revision ${revision} of ${id}: ${todo.title} has replaced ${before} unseen\n${saw === before || way()}`);
    }
    // A title that is in no change was replaced before it was sent, given up with the user's knowledge, or the todo was deleted before.
    const neverSent = [...record.created].filter(([key]) => !born.has(key)).map(([, title]) => title);
    const isKnown = (title) => published.has(title) || record.given.has(title) || record.next.get(title).some(isKnown);
    for (const title of neverSent) assert.ok(record.removed.has(title), `${title} was never created, and nobody has removed it`);
    const lost = [...record.saw.keys()].filter((title) => !isKnown(title) && !neverSent.includes(record.first.get(title)));
    assert.deepEqual(lost, [], 'lost');
    console.log(`${record.n} titles, ${changes.length} changes, ${record.conflicts} conflicts, ${neverSent.length} todos deleted before they were sent, ${there.length} todos`);
    assert.ok(changes.length > 100 && record.conflicts > 0);
  });
});

function isSame(shown, there) {
  const sorted = (todos) => JSON.stringify(todos.map((todo) => Object.entries(todo).sort()).sort((a, b) => (String(a) < String(b) ? -1 : 1)));
  return sorted(shown) === sorted(there);
}
