// A user's todos, also without a network: a copy of what the service has, the queue of edits that are not settled, and what keeps
// both in step with the service. Tabs share them by their store; one of them, the leader, follows the service and sends.
import { caller, explained, type Call, type Schemas, type Token } from './api';
import { follow, pause } from './follow.mjs';
import * as queue from './queue';
import type { Edit, Fields, Id, Queue, Shown, Todo } from './queue';
import { locks as browserLocks, type Locks, type Message, type Store } from './store';

/** How long a request may take, in ms, before it is sent again. */
const PATIENCE = 30_000;
/** The service remembers keys of requests for 24 h. */
const KEPT = 24 * 3600 * 1000;
/** So many answers 500 in a row are about the request. */
const FAILURES = 5;

export interface Options {
  /** Of the service. */
  url: string;
  token: Token;
  /** One for each account of each service. */
  store: Store;
  /** What tabs of the same account share. */
  name: string;
  locks?: Locks;
  /** Whether to hear how far events have come: {@link Todos.ondelivery}. */
  deliveries?: boolean;
}

export interface Status {
  /** The copy has all that there was a moment ago, and what comes is added at once. */
  current: boolean;
  /** Why not, if that is known. */
  error?: string | undefined;
}

export interface Delivery {
  revision: number;
  published_at?: string;
  delivered_at?: string;
}

/** A key that nobody else has. Pages that are not served safely have no `crypto.randomUUID`. */
export const unique = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');

/** Whether the user can still say what becomes of it. */
const isPending = ({ edits }: Queue, { place, key }: Edit) => edits.get(place)?.key === key && edits.get(place)?.problem !== undefined;

const NEW = { title: '', description: null, completed: false };

export class Todos {
  /** Called when anything is different. */
  onchange = () => {};
  ondelivery = (_: Delivery) => {};
  /** Called for each entry that has been added to the copy, in the leading tab. */
  onentry = (_: Schemas['Entry']) => {};
  status: Status = { current: false };
  readonly call: Call;

  readonly #options: Options;
  readonly #end = new AbortController();
  readonly #copy = new Map<number, Todo>();
  #since: string | undefined;
  #queue: Queue = { edits: new Map(), ids: new Map() };
  #shown: Map<Id, Shown> | undefined;
  /** The last revision that is known to be in the copy. */
  #applied = 0;
  #place = 0;
  /** Edits that are shown and not kept yet. */
  readonly #unwritten = new Set<string>();
  #leads = false;
  /** Of the request that is being sent. */
  #sending: AbortController | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #wake = () => {};

  private constructor(options: Options) {
    this.#options = options;
    this.call = caller(options.url, options.token);
  }

  /** Opens what the store has. What follows happens by itself until {@link close}. */
  static async open(options: Options): Promise<Todos> {
    const todos = new Todos(options);
    const unwatch = options.store.watch((message) => todos.#hear(message));
    todos.#end.signal.addEventListener('abort', unwatch);
    await todos.#reload();
    options.store.tell({ hello: true });
    void todos.#lead();
    return todos;
  }

  /** Stops; what is not sent stays in the store. */
  close() {
    this.#end.abort();
    this.#sending?.abort();
    this.#wake();
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

  /** Creates a todo, and returns the id that it has for the time being. */
  async create(fields: Schemas['NewTodo']): Promise<Id> {
    const [key, now] = [unique(), new Date().toISOString()];
    await this.#add({ kind: 'create', id: key, key, fields, saw: { ...NEW, id: key, created_at: now, updated_at: now } });
    return key;
  }

  /** Changes a todo that is shown. */
  async update(id: Id, fields: Fields): Promise<void> {
    const saw = this.shown.get(this.id(id));
    if (saw) await this.#add({ kind: 'update', id, key: unique(), fields, saw });
  }

  /** Moves a todo that is shown to the trash. */
  async remove(id: Id): Promise<void> {
    const saw = this.shown.get(this.id(id));
    if (saw) await this.#add({ kind: 'delete', id, key: unique(), fields: {}, saw });
  }

  /** Brings a todo back from the trash. */
  async restore(saw: Shown): Promise<void> {
    await this.#add({ kind: 'restore', id: saw.id, key: unique(), fields: {}, saw });
  }

  /** Sends an edit with a problem again, with these fields: after a conflict, whatever others have made of the todo. */
  retry(edit: Edit, fields: Fields = edit.fields): Promise<void> {
    return this.#change((queue) => {
      const { problem, sent: _, ...rest } = edit;
      // Perhaps it was decided in another tab.
      if (!problem || !isPending(queue, edit)) return;
      const seen = problem.current && { saw: { ...problem.current, etag: problem.etag }, etag: problem.etag };
      queue.edits.set(edit.place, { ...rest, ...seen, key: unique(), fields });
    });
  }

  /** Gives up an edit with a problem, and what builds on it. */
  discard(edit: Edit): Promise<void> {
    return this.#change((changing) => {
      if (isPending(changing, edit)) queue.drop(changing, edit);
    });
  }

  async #add(edit: Omit<Edit, 'place' | 'etag'>) {
    // By the clock, which all tabs share, and behind everything that this one knows.
    this.#place = Math.max(this.#place + 1, Date.now() * 1000, ...this.edits.map(({ place }) => parseInt(place) + 1));
    const place = `${String(this.#place).padStart(17, '0')} ${edit.key}`;
    const id = this.id(edit.id);
    const added = { ...edit, id, place, fields: queue.normal(edit.fields) };
    const etag = queue.base(this.#queue, added);
    // Shown at once, and known to whatever happens meanwhile.
    this.#unwritten.add(place);
    this.#take(new Map([[`edit/${place}`, { ...added, etag }]]));
    const written = this.#change(() => new Map([[`edit/${place}`, this.#queue.edits.get(place)]])).catch((error: unknown) => {
      this.#take(new Map([[`edit/${place}`, undefined]]));
      throw error;
    });
    await written.finally(() => this.#unwritten.delete(place));
  }

  /** Changes queue and copy: `work` changes the queue that it is given, and returns other records. All are kept in one transaction, then shown. */
  #change(work: (queue: { edits: Map<string, Edit>; ids: Map<string, number> }) => Map<string, unknown> | void): Promise<void> {
    const turn = this.#turn.then(async () => {
      const draft = { edits: new Map(this.#queue.edits), ids: new Map(this.#queue.ids) };
      const records = work(draft) ?? new Map<string, unknown>();
      const { edits, ids } = this.#queue;
      for (const place of new Set([...edits.keys(), ...draft.edits.keys()])) {
        if (edits.get(place) !== draft.edits.get(place)) records.set(`edit/${place}`, draft.edits.get(place));
      }
      for (const [key, id] of draft.ids) if (!ids.has(key)) records.set(`id/${key}`, id);
      if (records.size === 0) return;
      await this.#options.store.write(records);
      this.#take(records);
    });
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** Shows records of the store. */
  #take(records: ReadonlyMap<string, any>) {
    for (const [key, record] of records) {
      const [kind, name = ''] = key.split('/', 2);
      const index = kind === 'todo' ? Number(name) : name;
      const map: Map<unknown, unknown> = kind === 'todo' ? this.#copy : kind === 'edit' ? this.#queue.edits : this.#queue.ids;
      if (kind === 'since') this.#since = record;
      else if (record === undefined) map.delete(index);
      else map.set(index, record);
    }
    this.#shown = undefined;
    this.#wake();
    this.onchange();
  }

  /** Reads what the store has, or these keys. */
  #reload(keys?: readonly string[] | null): Promise<void> {
    const turn = this.#turn.then(async () => {
      const records = await this.#options.store.read(keys ?? undefined);
      if (!keys) {
        this.#copy.clear();
        const unwritten = [...this.#queue.edits].filter(([place]) => this.#unwritten.has(place));
        this.#queue = { edits: new Map(unwritten), ids: new Map() };
        this.#since = undefined;
      }
      this.#take(new Map([...(keys ?? []).map((key): [string, unknown] => [key, undefined]), ...records]));
    });
    this.#turn = turn.catch(() => {});
    return turn;
  }

  #hear({ keys, hello, status, delivery }: Message) {
    if (keys !== undefined) this.#reload(keys).catch(() => {});
    if (hello && this.#leads) this.#options.store.tell({ status: this.status });
    if (delivery) this.ondelivery(delivery as Delivery);
    if (status) this.#report(status as Status);
  }

  #report(status: Status) {
    this.status = status;
    this.#wake();
    this.onchange();
  }

  async #lead() {
    const { url, token, store, name, locks = browserLocks, deliveries } = this.#options;
    const { signal } = this.#end;
    const work = async () => {
      // What others have written last may not have been heard yet.
      await this.#reload();
      this.#leads = true;
      await Promise.all([
        this.#send(signal),
        follow({
          url, token, signal,
          copy: this.#follower(),
          report: ({ current, error }) => {
            // A list must not be older than an answer.
            if (!current) this.#sending?.abort();
            this.#report({ current, error: error?.message });
            store.tell({ status: this.status });
          },
          ...(deliveries && { delivered: (delivery: Delivery) => (this.ondelivery(delivery), store.tell({ delivery })) }),
        }),
      ]);
    };
    await locks.request(name, { signal }, work).catch(() => {});
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
        return [...todos.#queue.edits.values()].every(({ sent }) => sent === undefined);
      },
      forget: () => todos.#change(() => new Map([['since', undefined]])),
      replace: (list: Todo[], since: string) => todos.#change((changing) => {
        const records = new Map<string, unknown>([...todos.#copy.keys()].map((id) => [`todo/${id}`, undefined]));
        for (const todo of list) records.set(`todo/${todo.id}`, todo);
        queue.settle(changing, Infinity);
        for (const edit of changing.edits.values()) {
          if (edit.kind === 'create' && edit.sent !== undefined && Date.now() - edit.sent > KEPT && !edit.problem) {
            changing.edits.set(edit.place, { ...edit, problem: { status: 0, detail: 'It may have been created already.' } });
          }
        }
        todos.#applied = 0;
        return records.set('since', since);
      }),
      apply: async (entries: Schemas['Entry'][], since: string) => {
        await todos.#change((changing) => {
          const records = new Map<string, unknown>([['since', since]]);
          for (const entry of entries) {
            records.set(`todo/${entry.id}`, entry.todo ?? undefined);
            todos.#applied = entry.revision;
            const edit = entry.op && [...changing.edits.values()].find(({ key, answer }) => key === entry.op && !answer);
            if (edit) queue.answered(changing, edit, entry, entry.revision);
          }
          queue.settle(changing, todos.#applied);
          return records;
        });
        entries.forEach((entry) => todos.onentry(entry));
      },
    };
  }

  /** Sends edits, one at a time, while the copy is current. */
  async #send(signal: AbortSignal) {
    for (let failures = 0; !signal.aborted; ) {
      const woken = new Promise<void>((wake) => (this.#wake = wake));
      const first = this.status.current ? queue.next(this.#queue) : undefined;
      if (!first) {
        await woken;
        continue;
      }
      const request = (this.#sending = new AbortController());
      const timeout = setTimeout(() => request.abort(), PATIENCE);
      let wait = 0;
      try {
        let edit: Edit | undefined;
        await this.#change((changing) => {
          const present = changing.edits.get(first.place);
          edit = present && queue.send(changing, present, Date.now());
        });
        const later = edit && (await this.#request(edit, request.signal));
        if (later) wait = later.wait;
        failures = later ? failures + 1 : 0;
        if (edit && later?.status === 500 && failures >= FAILURES) await this.#refused(edit, { status: 500, detail: 'The service failed.' });
      } catch {
        // Nobody knows whether it arrived.
        failures += 1;
      }
      clearTimeout(timeout);
      if (failures > 0) await pause(Math.max(wait, Math.min(5000, 250 * 2 ** failures) * (0.5 + Math.random() / 2)), signal);
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
    const done = async (todo?: Todo) => {
      const revision = Number(said.get('Change-Revision') ?? 0);
      await this.#change((changing) => {
        const present = changing.edits.get(edit.place);
        // Else its entry was faster.
        if (present?.key === edit.key && !present.answer) queue.answered(changing, present, { id: todo?.id ?? id, revision, etag, todo }, this.#applied);
      });
      return undefined;
    };
    const later = () => ({ status, wait: 1000 * Number(said.get('Retry-After')) || 0 });
    if (status === 200 || status === 201) return done(answer.body as Todo);
    // What it wanted is so already.
    if (status === 204 || (status === 404 && edit.kind === 'delete') || (status === 409 && edit.kind === 'restore')) return done();
    if (status === 401 || status === 408 || status === 429 || status >= 500) return later();
    let problem: queue.Problem = { status, detail: explained(answer.body) };
    if (status === 412) {
      const { current, conflict } = answer.body as Schemas['PreconditionFailedBody'];
      problem = { ...problem, current, conflict, etag };
    }
    if (status === 404 && edit.kind === 'update') {
      // Others have deleted it: whoever changes it wants to have it. Without a key, which would repeat an answer of then.
      const restored = await this.call('post', '/todos/{id}/restore', { path: { id }, signal });
      if (restored.status !== 404) return later();
    }
    await this.#refused(edit, problem);
    return undefined;
  }

  #refused(edit: Edit, problem: queue.Problem) {
    return this.#change(({ edits }) => {
      const present = edits.get(edit.place);
      if (present?.key === edit.key && !present.answer) edits.set(edit.place, { ...present, problem });
    });
  }
}
