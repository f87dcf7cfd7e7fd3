// A user's todos, also without a network: a copy of what the service has, the queue of edits that are not settled, and what keeps
// both in step with the service. Tabs share them by their store; one of them, the leader, follows the service and sends.
import { caller, explained, type Call, type Schemas, type Token } from './api';
import { follow, pause } from './follow.mjs';
import * as queue from './queue';
import type { Created, Edit, Fields, Id, Queue, Shown, Todo } from './queue';
import { guarded, locks as browserLocks, type Locks, type Message, type Store } from './store';

/** The service remembers keys of requests for 24 h. */
const KEPT = 24 * 3600 * 1000;
/** So many answers 500 in a row are about the request. */
const FAILURES = 5;
/** Of so many changes other tabs are told at once. */
const MAX_TOLD = 50;
/** Between attempts to lead, in ms. */
const RETRY = 2000;
/** How long {@link Todos.clear} waits for other tabs to stop, in ms. */
const CLEAR = 3000;

export interface Options {
  /** Of the service. */
  url: string;
  /** Of the account that the store is for: `session.tokenOf(account)`. */
  token: Token;
  /** One for each account of each service. */
  store: Store;
  /** What tabs of the same account share. */
  name: string;
  locks?: Locks;
  /** Whether to hear how far events have come: {@link Todos.ondelivery}, {@link Todos.onentries}. */
  deliveries?: boolean;
}

export interface Status {
  /** The copy has all that there was a moment ago, and what comes is added at once. */
  current: boolean;
  /** Why not, if that is known; or why changes come a few seconds late. */
  error?: string | undefined;
  /** Why edits could not be sent, as long as that is so. */
  unsent?: string | undefined;
}

export interface Delivery {
  revision: number;
  published_at?: string;
  delivered_at?: string;
}

/** A key that nobody else has. Pages that are not served safely have no `crypto.randomUUID`. */
export const unique = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');

/** Whether the user can still say what becomes of it: perhaps it was decided in another tab. */
const isPending = ({ edits }: Queue, { place, key }: Edit) => edits.get(place)?.key === key && edits.get(place)?.problem !== undefined;

const NEW = { title: '', description: null, completed: false };

export class Todos {
  /** Called when anything is different. */
  onchange = () => {};
  ondelivery = (_: Delivery) => {};
  /** Called with changes that have come, if deliveries are heard of: with the last ones, if they were many. */
  onentries = (_: Schemas['Entry'][]) => {};
  status: Status = { current: false };
  readonly call: Call;

  readonly #options: Options;
  readonly #end = new AbortController();
  readonly #unwatch: () => void;
  readonly #copy = new Map<number, Todo>();
  #since: string | undefined;
  #queue: Queue = { edits: new Map(), ids: new Map(), answers: new Map() };
  #shown: Map<Id, Shown> | undefined;
  readonly #keys = new Map<number, string>();
  /** The last revision that is known to be in the copy. */
  #applied = 0;
  #place = 0;
  /** Edits that are shown and not kept yet. */
  readonly #unwritten = new Set<string>();
  #leads = false;
  /** The request that is being sent. */
  #sending: AbortController | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #wake = () => {};

  private constructor(options: Options) {
    this.#options = options;
    this.call = caller(options.url, options.token);
    this.#unwatch = options.store.watch((message) => this.#hear(message));
  }

  /** Opens what the store has. What follows happens by itself until {@link close}. */
  static async open(options: Options): Promise<Todos> {
    const todos = new Todos(options);
    await todos.#reload();
    options.store.tell({ hello: true });
    void todos.#lead();
    return todos;
  }

  /** Stops. What is not sent stays in the store, and is sent when it is opened again; resolves when it is kept. */
  async close(): Promise<void> {
    this.#end.abort();
    this.#sending?.abort();
    this.#wake();
    this.#unwatch();
    await this.#turn;
  }

  /** Closes, and removes everything from this browser, also what is not sent. Other tabs should have been closed before. */
  async clear(): Promise<void> {
    await this.close();
    const { store, name, locks = browserLocks } = this.#options;
    const clear = () => store.clear();
    // Whoever leads would put changes into what is empty.
    await locks.request(name, { signal: AbortSignal.timeout(CLEAR) }, clear).catch(clear);
  }

  /** The todos as the user should see them. */
  get shown(): ReadonlyMap<Id, Shown> {
    return (this.#shown ??= queue.show(this.#copy, this.#queue));
  }

  /** What is not settled, in order: without `answer`, it is not known to be done; with `problem`, the user is asked. */
  get edits(): Edit[] {
    return queue.inOrder(this.#queue);
  }

  /** The service's id of a todo, as soon as it has one. */
  id(id: Id): Id {
    return queue.idOf(this.#queue, id);
  }

  /** An id that stays when the service's replaces the one of the client's own: for what is rendered. */
  keyOf(id: Id): Id {
    return this.#keys.get(id as number) ?? id;
  }

  /** Creates a todo, and returns the id that it has for the time being. These four resolve when the edit is kept in this browser. */
  async create(fields: Schemas['NewTodo']): Promise<Id> {
    const [id, now] = [unique(), new Date().toISOString()];
    await this.#add({ kind: 'create', id, fields, saw: { ...NEW, id, created_at: now, updated_at: now } }, id);
    return id;
  }

  /** Changes a todo, of which the user has seen this. */
  update(saw: Shown, fields: Fields): Promise<void> {
    return this.#add({ kind: 'update', id: saw.id, fields, saw });
  }

  /** Moves a todo to the trash, of which the user has seen this. */
  remove(saw: Shown): Promise<void> {
    return this.#add({ kind: 'delete', id: saw.id, fields: {}, saw });
  }

  /** Brings a todo back from the trash. */
  restore(saw: Shown): Promise<void> {
    return this.#add({ kind: 'restore', id: saw.id, fields: {}, saw });
  }

  /** Sends an edit with a problem again, with these fields: after a conflict, whatever others have made of the todo. */
  retry(edit: Edit, fields: Fields = edit.fields): Promise<void> {
    return this.#change((changing) => {
      if (!isPending(changing, edit)) return;
      const { problem, ...same } = edit;
      // What the service has failed at may have been done: the same request finds out.
      const isUnknown = problem && problem.status >= 500 && fields === edit.fields;
      queue.put(changing, isUnknown ? same : queue.again(edit, unique(), fields));
    });
  }

  /** Gives up what an edit's problem is about. If nothing is left of the edit then, what builds on it goes, too. */
  discard(edit: Edit): Promise<void> {
    return this.#change((changing) => {
      if (!isPending(changing, edit)) return;
      const rest = queue.rest(edit);
      if (rest) queue.put(changing, queue.again(edit, unique(), rest));
      else queue.drop(changing, edit);
    });
  }

  async #add(given: Omit<Edit, 'place' | 'etag' | 'key'>, key = unique()) {
    // By the clock, which all tabs share, and behind everything that this one knows.
    this.#place = Math.max(this.#place + 1, Date.now() * 1000, parseInt(this.edits.at(-1)?.place ?? '0') + 1);
    const place = `${String(this.#place).padStart(17, '0')} ${key}`;
    const edit = queue.renewed({ ...given, key, place, fields: queue.normal(given.fields) }, this.shown.get(this.id(given.id)));
    // Shown at once, and known to whatever happens meanwhile.
    this.#unwritten.add(place);
    this.#take(new Map([[`edit/${place}`, { ...edit, etag: queue.base(this.#queue, edit) }]]));
    const written = this.#change(() => new Map([[`edit/${place}`, this.#queue.edits.get(place)]])).catch((error: unknown) => {
      this.#take(new Map([[`edit/${place}`, undefined]]));
      throw error;
    });
    await written.finally(() => this.#unwritten.delete(place));
  }

  /** Changes queue and copy: `work` changes the queue that it is given, and returns other records. All are kept in one transaction, then shown. */
  #change(work: (queue: Queue) => Map<string, unknown> | void): Promise<void> {
    if (this.#end.signal.aborted) return Promise.reject(new Error('closed'));
    const turn = this.#turn.then(async () => {
      const { edits, ids, answers } = this.#queue;
      const draft = { edits: new Map(edits), ids: new Map(ids), answers };
      const records = work(draft) ?? new Map<string, unknown>();
      for (const place of new Set([...edits.keys(), ...draft.edits.keys()])) {
        if (edits.get(place) !== draft.edits.get(place)) records.set(`edit/${place}`, draft.edits.get(place));
      }
      for (const [id, created] of draft.ids) if (!ids.has(id)) records.set(`id/${id}`, created);
      if (records.size === 0) return;
      await this.#options.store.write(records);
      this.#take(records);
    });
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** Shows records of the store. */
  #take(records: ReadonlyMap<string, unknown>) {
    for (const [key, record] of records) {
      const [kind, name = ''] = key.split('/', 2);
      if (kind === 'since') this.#since = record as string | undefined;
      else if (kind === 'todo') assign(this.#copy, Number(name), record as Todo | undefined);
      else if (kind === 'id') {
        assign(this.#queue.ids, name, record as Created | undefined);
        if (record) this.#keys.set((record as Created).id, name);
      }
      else if (record === undefined) this.#queue.edits.delete(name);
      else queue.put(this.#queue, record as Edit);
    }
    this.#shown = undefined;
    this.#changed();
  }

  #changed() {
    this.#wake();
    guarded(this.onchange);
  }

  /** Reads what the store has, or these keys. */
  #reload(keys?: readonly string[] | null): Promise<void> {
    const turn = this.#turn.then(async () => {
      const records = await this.#options.store.read(keys ?? undefined);
      if (!keys) {
        this.#copy.clear();
        const unwritten = [...this.#queue.edits].filter(([place]) => this.#unwritten.has(place));
        this.#queue = { edits: new Map(unwritten), ids: new Map(), answers: this.#queue.answers };
        this.#since = undefined;
      }
      this.#take(new Map([...(keys ?? []).map((key): [string, unknown] => [key, undefined]), ...records]));
    });
    this.#turn = turn.catch(() => {});
    return turn;
  }

  #hear({ keys, hello, status, delivery, entries }: Message) {
    if (keys !== undefined) this.#reload(keys).catch((error: unknown) => this.#report({ current: false, error: String(error) }));
    if (hello && this.#leads) {
      this.#options.store.tell({ status: this.status });
      // A tab that was closed at once may have kept an edit and told nobody.
      this.#reload().catch(() => {});
    }
    if (entries) guarded(this.onentries, entries as Schemas['Entry'][]);
    if (delivery) guarded(this.ondelivery, delivery as Delivery);
    if (status && !this.#leads) this.#report(status as Status);
  }

  #report(status: Status) {
    this.status = status;
    if (this.#leads) this.#options.store.tell({ status });
    this.#changed();
  }

  async #lead() {
    const { name, locks = browserLocks } = this.#options;
    const { signal } = this.#end;
    while (!signal.aborted) {
      await locks.request(name, { signal }, () => this.#work()).catch((error: Error) => !signal.aborted && this.#report({ current: false, error: error.message }));
      this.#leads = false;
      await pause(RETRY, signal);
    }
  }

  /** What the leader does, until it is closed, or something fails that can't. */
  async #work() {
    const { url, token, deliveries, store } = this.#options;
    const stop = new AbortController();
    const signal = AbortSignal.any([this.#end.signal, stop.signal]);
    const delivered = (delivery: Delivery) => {
      guarded(this.ondelivery, delivery);
      store.tell({ delivery });
    };
    try {
      this.#leads = true;
      // What the leader before has said is not so any more, and what others have written last may not have been heard yet.
      this.#report({ current: false });
      await this.#reload();
      const report = ({ current, error }: { current: boolean; error?: Error }) => this.#report({ current, error: error?.message, unsent: this.status.unsent });
      await Promise.all([this.#send(signal), follow({ url, token, signal, copy: this.#follower(), report, ...(deliveries && { delivered }) })]);
    } finally {
      stop.abort();
      this.#wake();
    }
  }

  /** The copy, for {@link follow}. */
  #follower() {
    const todos = this;
    return {
      get since() {
        return todos.#since;
      },
      /** The key of an edit whose answer is missing may come by. */
      get net() {
        return todos.edits.every(({ sent }) => sent === undefined);
      },
      forget: () => todos.#change(() => new Map([['since', undefined]])),
      // A list must not be older than an answer.
      listing() {
        todos.#sending?.abort();
        return todos.#turn;
      },
      replace: (list: Todo[], since: string) => todos.#change((changing) => {
        const records = new Map<string, unknown>([...todos.#copy.keys()].map((id) => [`todo/${id}`, undefined]));
        for (const todo of list) records.set(`todo/${todo.id}`, todo);
        queue.settle(changing, Infinity);
        changing.answers.clear();
        for (const edit of changing.edits.values()) {
          if (edit.sent === undefined || edit.problem) continue;
          const isOld = edit.kind === 'create' && Date.now() - edit.sent > KEPT;
          const problem = isOld && { problem: { status: 0, detail: 'It may have been created already.' } };
          queue.put(changing, { ...edit, listed: true, ...problem });
        }
        todos.#applied = 0;
        return records.set('since', since);
      }),
      apply: async (entries: Schemas['Entry'][], since: string) => {
        await todos.#change((changing) => {
          // Another tab has cleared it.
          if (todos.#since === undefined) throw new Error('there is no copy');
          const records = new Map<string, unknown>([['since', since]]);
          for (const entry of entries) {
            records.set(`todo/${entry.id}`, entry.todo ?? undefined);
            todos.#applied = entry.revision;
            queue.heard(changing, entry);
            const edit = entry.op && queue.inOrder(changing).find(({ key, answer }) => key === entry.op && !answer);
            if (edit) queue.answered(changing, edit, entry, entry.revision);
          }
          queue.settle(changing, todos.#applied);
          return records;
        });
        const { deliveries, store } = todos.#options;
        const last = entries.slice(-MAX_TOLD);
        if (!deliveries || last.length === 0) return;
        guarded(todos.onentries, last);
        store.tell({ entries: last });
      },
    };
  }

  /** Sends edits, one at a time, while the copy is current. */
  async #send(signal: AbortSignal) {
    let [failures, failed] = [0, ''];
    const say = (unsent?: string) => this.status.unsent !== unsent && this.#report({ ...this.status, unsent });
    while (!signal.aborted) {
      const woken = new Promise<void>((wake) => (this.#wake = wake));
      const first = this.status.current ? queue.next(this.#queue) : undefined;
      if (!first) {
        failures = 0;
        if (this.status.current) say();
        await woken;
        continue;
      }
      const request = (this.#sending = new AbortController());
      let wait = 0;
      try {
        let edit: Edit | undefined;
        await this.#change((changing) => {
          const present = changing.edits.get(first.place);
          edit = present && queue.send(changing, present, Date.now());
        });
        const later = edit && (await this.#request(edit, AbortSignal.any([signal, request.signal])));
        failures = later ? failures + 1 : 0;
        if (edit && later) {
          wait = later.wait;
          failed = later.status === 500 ? `${failed}${edit.key} ` : '';
          if (failed === `${edit.key} `.repeat(FAILURES)) await this.#refused(edit, { status: 500, detail: 'The service failed.' });
        }
      } catch (error) {
        // Nobody knows whether it arrived.
        failures += 1;
        if (!request.signal.aborted && !signal.aborted) say((error as Error).message);
      }
      if (failures === 0) say();
      else await pause(Math.max(wait, Math.min(5000, 250 * 2 ** failures) * (0.5 + Math.random() / 2)), signal);
    }
  }

  /** Sends an edit. Returns nothing if it is known what became of it, or when to send it again. */
  async #request(edit: Edit, signal: AbortSignal): Promise<{ status: number; wait: number } | undefined> {
    const id = Number(this.id(edit.id));
    const headers: Record<string, string> = { 'Idempotency-Key': edit.key };
    if (edit.etag !== undefined && edit.kind !== 'restore') headers['If-Match'] = edit.etag;
    const send = { path: { id }, headers, signal };
    const answer =
      edit.kind === 'create' ? await this.call('post', '/todos', { headers, signal, body: edit.fields as Schemas['NewTodo'] })
      : edit.kind === 'update' ? await this.call('patch', '/todos/{id}', { ...send, body: edit.fields, headers: { ...headers, Prefer: 'merge' } })
      : edit.kind === 'delete' ? await this.call('delete', '/todos/{id}', send)
      : await this.call('post', '/todos/{id}/restore', send);
    const { status, headers: said } = answer;
    const etag = said.get('ETag') ?? undefined;
    const later = () => ({ status, wait: Math.min(300_000, 1000 * Number(said.get('Retry-After')) || 0) });
    const done = async (todo?: Todo) => {
      // Unless its entry was faster.
      await this.#present(edit, (changing, present) => {
        const isInCopy = present.listed && said.has('Idempotent-Replayed');
        const revision = isInCopy ? 0 : Number(said.get('Change-Revision') ?? 0);
        queue.answered(changing, present, { id: todo?.id ?? id, revision, etag, todo }, this.#applied);
      });
      return undefined;
    };
    if (status === 204) return done();
    // A page of a proxy, and not the service's answer.
    if (answer.body === undefined) return later();
    if (status === 200 || status === 201) return done(answer.body as Todo);
    // What it wanted is so already.
    if (status === 404 && edit.kind === 'delete') return done();
    if (status === 401 || status === 408 || status === 429 || status >= 500) return later();
    let problem: queue.Problem = { status, detail: explained(answer.body) };
    if (status === 412) {
      const { current, conflict } = answer.body as Schemas['PreconditionFailedBody'];
      const fields = queue.asked(edit, current, conflict);
      if (fields.length === 0) {
        await this.#present(edit, (changing, present) => {
          // What was answered before is older than this.
          changing.answers.delete(current.id);
          queue.put(changing, queue.again(present, unique(), present.fields, current, etag));
        });
        return undefined;
      }
      problem = { ...problem, current, etag, ...(edit.kind === 'update' && { fields }) };
    }
    if (status === 422) problem = { ...problem, fields: refused(answer.body) };
    if (status === 404 && edit.kind === 'update') {
      // Others have deleted it: whoever changes it wants to have it. Without a key, which would repeat an answer of then.
      const restored = await this.call('post', '/todos/{id}/restore', { path: { id }, signal });
      if (restored.status !== 404 && restored.status !== 409) return later();
      // 409: it is back already, or there are too many todos.
      if (restored.status === 409) problem = { status: 409, detail: explained(restored.body) };
    }
    if (problem.status === 409 && (edit.kind === 'restore' || edit.kind === 'update')) {
      const { status: found, body } = await this.call('get', '/todos/{id}', { path: { id }, signal });
      if (found === 200 && body) return edit.kind === 'restore' ? done() : later();
    }
    await this.#refused(edit, problem);
    return undefined;
  }

  #refused(edit: Edit, problem: queue.Problem) {
    return this.#present(edit, (changing, present) => {
      if (problem.current) changing.answers.delete(problem.current.id);
      queue.put(changing, { ...present, problem });
    });
  }

  /** Changes an edit that was sent, unless it is known meanwhile what became of it. */
  #present(edit: Edit, work: (changing: Queue, present: Edit) => void) {
    return this.#change((changing) => {
      const present = changing.edits.get(edit.place);
      if (present?.key === edit.key && !present.answer) work(changing, present);
    });
  }
}

/** The fields of the body that the service does not take. */
function refused(body: unknown): string[] | undefined {
  const { detail } = body as { detail?: string | Schemas['ValidationError'][] };
  const names = Array.isArray(detail) ? detail.map(({ loc: [part, name] }) => (part === 'body' ? name : undefined)) : [];
  return names.length > 0 && names.every((name) => typeof name === 'string') ? names : undefined;
}

const assign = <K, V>(map: Map<K, V>, key: K, value: V | undefined) => (value === undefined ? map.delete(key) : map.set(key, value));
