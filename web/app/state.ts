// What the page knows: who is logged in, their todos, and which of them are shown. Views read it; they change it by the functions here.
import { computed, signal } from '@preact/signals';
import { checked, LoggedOut, Refused, Session, Todos, type Delivery, type Edit, type Id, type Schemas, type Shown, type Status } from '../client';
import { openStore } from '../client/indexeddb';
import { placed } from './order';
import { openedAt, place, reset } from './place';

/** Of the service: beside this page, unless the page is served from elsewhere. */
export const service = new URL(document.querySelector<HTMLMetaElement>('meta[name=service]')?.content || '.', openedAt).href.replace(/\/$/, '');

export const session = signal<Session>();
export const account = signal<Schemas['Account']>();
/** The session was ended by somebody else, or has expired. */
export const ended = signal(false);
const todos = signal<Todos>();
/** Counts what has changed, since a Todos says only that something has. */
const changes = signal(0);

export const status = computed<Status>(() => (changes.value, todos.value?.status ?? { current: false }));
export const edits = computed<Edit[]>(() => (changes.value, todos.value?.edits ?? []));
export const shown = computed<ReadonlyMap<Id, Shown>>(() => (changes.value, todos.value?.shown ?? new Map()));
/** Edits that the user has to decide about. */
export const problems = computed(() => edits.value.filter(({ problem }) => problem));
/** Edits that are in this browser only, as far as is known. */
export const unanswered = computed(() => edits.value.filter(({ answer }) => !answer).length);
/** Those of them that are to be sent. */
export const unsent = computed(() => edits.value.filter(({ answer, problem }) => !answer && !problem).length);
/** The todos with edits that are not settled: what their rows show. */
export const pending = computed(() => {
  const states = new Map<Id, 'waiting' | 'problem'>();
  for (const { id, problem, answer } of edits.value) if (!answer) states.set(idOf(id), problem ? 'problem' : 'waiting');
  return states;
});

/** What happened lately, the newest first: for the event panel. */
export interface Happened extends Delivery {
  event: string;
  title: string | undefined;
  at: string;
}
export const happened = signal<Happened[]>([]);
const MAX_HAPPENED = 50;
const MINUTE = 60_000;

export interface Notice {
  text: string;
  action?: { label: string; run: () => void };
}
export const notice = signal<Notice>();

export const idOf = (id: Id): Id => todos.peek()?.id(id) ?? id;
/** Stays when a todo gets the service's id. */
export const keyOf = (id: Id): Id => todos.peek()?.keyOf(id) ?? id;

let opening: Promise<void> = Promise.resolve();
/** What is typed of the next todo: it stays when the session ends. */
export const draft = { text: '' };
/** Whose filters, view and draft these are. */
let latest: number | undefined;

export async function start() {
  const opened = await Session.open(service, await openStore(`todo-session ${service}`));
  opened.onchange = () => {
    ended.value = opened.account === undefined && account.peek() !== undefined && !leaving;
    opening = opening.then(openTodos).catch(failed);
  };
  session.value = opened;
  const first = openTodos();
  opening = first.catch(() => {});
  await first;
}

async function openTodos() {
  const opened = session.peek();
  const present = opened?.account;
  if (present?.id === account.peek()?.id) return;
  if (todos.peek()) {
    // What is being typed is kept with the rest.
    (document.activeElement as HTMLElement | null)?.blur();
    void todos.peek()?.close();
  }
  notice.value = undefined;
  todos.value = undefined;
  happened.value = [];
  if (opened && present) {
    if (latest !== undefined && latest !== present.id) forget();
    latest = present.id;
    const name = storeOf(present);
    const mine = await Todos.open({ url: service, token: opened.tokenOf(present), store: await openStore(name), name, deliveries: true });
    mine.onchange = () => (changes.value += 1);
    mine.onentries = (entries) => entries.forEach((entry) => heard({ ...entry, title: entry.todo?.title ?? shown.peek().get(entry.id)?.title }));
    mine.ondelivery = (delivery) => {
      happened.value = happened.value.map((one) => (one.revision === delivery.revision ? { ...one, ...delivery } : one));
    };
    todos.value = mine;
  }
  account.value = present;
}

const storeOf = ({ id }: Schemas['Account']) => `todos ${service} ${id}`;

function heard({ revision, event, title, at }: Happened) {
  // Of what was missed it is not told how far it has come.
  if (Date.now() - Date.parse(at) > MINUTE || happened.value.some((one) => one.revision === revision)) return;
  happened.value = [{ revision, event, title, at }, ...happened.value].slice(0, MAX_HAPPENED);
}

let leaving = false;

function forget() {
  draft.text = '';
  reset();
}

/** Ends the session, and removes what this browser has of the account. */
export async function logout(end = (opened: Session): Promise<unknown> => opened.logout()) {
  const [present, opened, mine] = [account.peek(), session.peek(), todos.peek()];
  if (!present || !opened) return;
  leaving = true;
  try {
    await end(opened).catch(async (error: unknown) => {
      // If only the answer was lost, the session has ended.
      if (!(error instanceof Refused)) await opened.call('get', '/auth/me').catch(() => {});
      if (opened.account) throw error;
    });
    await opening;
    await mine?.clear();
    forget();
  } finally {
    leaving = false;
  }
}

/** Shows why something failed. */
export function failed(error: unknown, what = '') {
  if (error instanceof LoggedOut) return;
  const later = error instanceof Refused && error.retryAfter > 0 ? ` Try again in ${error.retryAfter} s.` : '';
  const isGone = error instanceof TypeError || (error as Error).name === 'TimeoutError';
  const text = isGone ? 'The service cannot be reached.' : (error as Error).message;
  notice.value = { text: what + text + later };
}

/** The todos, for those who change them. */
export const store = () => {
  const present = todos.peek();
  if (!present) throw new LoggedOut('Nobody is logged in.');
  return present;
};

/** Calls the service; what is not a success is thrown. */
export const ask = async <A extends Parameters<typeof checked>[0]>(answer: Promise<A>): Promise<A> => checked(await answer);

/** The todo as it is shown now. */
const seen = (todo: Shown) => shown.peek().get(idOf(todo.id)) ?? todo;

/** Says what was done, and offers to take it back. */
const offerUndo = (text: string, undo: (mine: Todos) => Promise<void>) => {
  // Whoever is logged in then.
  const mine = store();
  notice.value = { text, action: { label: 'Undo', run: () => void undo(mine).catch(failed) } };
};

export function remove(todo: Shown) {
  offerUndo(`Deleted “${todo.title}”.`, (mine) => mine.restore(todo));
  return store().remove(todo);
}

export function complete(todo: Shown, completed: boolean) {
  if (completed) offerUndo(`Completed “${todo.title}”.`, (mine) => mine.update(seen(todo), { completed: false }));
  return store().update(todo, { completed });
}

/** Moves a todo of `list`, which is in the user's own order, to another place in it. */
export async function move(list: readonly Shown[], todo: Shown, to: number) {
  // All at once: what the user does next builds on all of it.
  await Promise.all(placed(list, todo, to).map(([other, order]) => store().update(other, { order })));
}

const compare = new Intl.Collator(undefined, { numeric: true }).compare;
/** Sorts by values, which are made once for each; those that are not there come last. */
const by = <T>(value: (todo: Shown) => T | null | undefined, order: (a: T, b: T) => number) => (todos: Shown[]): Shown[] => {
  const valued = todos.map((todo) => ({ todo, value: value(todo) }));
  valued.sort(({ todo: a, value: one }, { todo: b, value: other }) =>
    (one == null || other == null ? Number(one == null) - Number(other == null) : order(one, other)) || byId(a, b));
  return valued.map(({ todo }) => todo);
};
/** As the service has it; what it does not have yet comes last. */
const byId = ({ id: a, created_at: one }: Shown, { id: b, created_at: other }: Shown) =>
  typeof a === 'number' && typeof b === 'number' ? a - b : Number(typeof a === 'string') - Number(typeof b === 'string') || (one < other ? -1 : 1);

export const ORDERS: Record<string, { label: string; sort: (todos: Shown[]) => Shown[] }> = {
  own: { label: 'My order', sort: by(({ order }) => order, (a, b) => a - b) },
  due: { label: 'Due date', sort: by(({ due_at }) => due_at && `${dayOf(due_at)} ${timeOf(due_at)}`, (a, b) => (a < b ? -1 : Number(a > b))) },
  priority: { label: 'Priority', sort: by(({ priority }) => priority, (a, b) => b - a) },
  title: { label: 'Title', sort: by(({ title }) => title, compare) },
  changed: { label: 'Last change', sort: by(({ updated_at }) => updated_at, (a, b) => (a < b ? 1 : a > b ? -1 : 0)) },
};

/** The day of a moment, in this browser's time zone. */
const localDay = (moment: Date) => new Date(moment.getTime() - moment.getTimezoneOffset() * 60_000).toISOString().slice(0, 10);

export const today = () => localDay(new Date());

/** The day of a due date. */
export const dayOf = (due: string) => (due.includes('T') ? localDay(new Date(due)) : due);

/** Its time there, if it has one: 09:30. */
export const timeOf = (due: string) => (due.includes('T') ? new Date(due).toTimeString().slice(0, 5) : '');

/** Whether it should have been done before. */
export const isLate = ({ due_at: due, completed }: Shown) =>
  !completed && due != null && (due.includes('T') ? Date.parse(due) < Date.now() : due < today());

const folded = (text: string) => text.normalize('NFKC').toLowerCase();

/** The todos that are listed, in their order. */
export const listed = computed<Shown[]>(() => {
  const { q, done, tag, priority, due, sort } = place.value;
  const text = folded(q);
  const day = today();
  const found = [...shown.value.values()].filter((todo) =>
    (done === 'all' || todo.completed === (done === 'done'))
    && (tag === '' || todo.tags?.includes(tag))
    && (priority === '' || String(todo.priority ?? '') === priority)
    && (due === '' || (todo.due_at && (due === 'late' ? isLate(todo) : due === 'today' ? dayOf(todo.due_at) === day : true)))
    && (text === '' || folded(todo.title).includes(text) || folded(todo.description ?? '').includes(text)));
  return ((Object.hasOwn(ORDERS, sort) && ORDERS[sort]) || ORDERS['own']!).sort(found);
});

/** All tags, those that are used most first. */
export const tags = computed(() => {
  const counts = new Map<string, number>();
  for (const { tags = [] } of shown.value.values()) for (const tag of tags ?? []) counts.set(tag, (counts.get(tag) ?? 0) + 1);
  return [...counts].sort(([a, n], [b, m]) => m - n || compare(a, b)).map(([tag]) => tag);
});
