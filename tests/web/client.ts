// The walkthrough with types generated from the OpenAPI document. contract.test.mjs compiles it strictly beside the
// generated `openapi.ts`, and runs it: types that compile but do not tell the truth would be of no use.
import type { components, paths } from './openapi.js';

type Schemas = components['schemas'];
type Method = 'get' | 'post' | 'put' | 'patch' | 'delete';
type Operation<P extends keyof paths, M extends Method> = NonNullable<paths[P][M]>;
type Json<T> = T extends { content: { 'application/json': infer B } } ? B : undefined;
type RequestBody<O> = O extends { requestBody?: infer R } ? Json<NonNullable<R>> : undefined;
type Parameters<O> = O extends { parameters: { path: infer P } } ? P : undefined;
type Query<O> = O extends { parameters: { query?: infer Q } } ? Q : undefined;
/** One member for each status of the document, told apart by it. */
type Answer<O> = O extends { responses: infer R } ? { [S in keyof R]: { status: S; body: Json<R[S]>; headers: Headers } }[keyof R] : never;

/** Calls an operation. Only what the document has compiles. */
async function call<P extends keyof paths, M extends Method>(
  method: M,
  path: P,
  send: { body?: RequestBody<Operation<P, M>>; path?: Parameters<Operation<P, M>>; query?: Query<Operation<P, M>>; token?: string } = {},
): Promise<Answer<Operation<P, M>>> {
  const parameters: Record<string, unknown> = { ...send.path };
  const filled = String(path).replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(parameters[name])));
  const headers: Record<string, string> = {};
  if (send.body !== undefined) headers['Content-Type'] = 'application/json';
  if (send.token !== undefined) headers['Authorization'] = `Bearer ${send.token}`;
  const body = send.body === undefined ? null : JSON.stringify(send.body);
  const query = new URLSearchParams();
  for (const [name, values] of Object.entries(send.query ?? {})) {
    for (const value of [values].flat()) query.append(name, String(value));
  }
  const response = await fetch(`${base}${filled}?${query}`, { method: method.toUpperCase(), headers, body });
  const text = await response.text();
  const { status, headers: answered } = response;
  return { status, body: text === '' ? undefined : JSON.parse(text), headers: answered } as Answer<Operation<P, M>>;
}

const base: string = new URL(import.meta.url).searchParams.get('base') ?? '';

function check(right: boolean, what: string): asserts right {
  if (!right) throw new Error(what);
}

export async function walkthrough(): Promise<string[]> {
  const steps: string[] = [];
  const wrong = await call('post', '/auth/login', { body: { username: 'admin', password: 'no' } });
  check(wrong.status === 401, `wrong password: ${wrong.status}`);
  steps.push(wrong.body.detail);

  // An account of its own: other tests use the same service at the same time.
  const account = { username: 'walkthrough', password: 'a long password' };
  const registered = await call('post', '/auth/register', { body: account });
  check(registered.status === 201, `register: ${registered.status}`);
  const login = await call('post', '/auth/login', { body: account });
  check(login.status === 200, `login: ${login.status}`);
  const token: string = login.body.access_token;

  const made = await call('post', '/todos', { token, body: { title: 'typed', description: null } });
  check(made.status === 201, `create: ${made.status}`);
  const todo: Schemas['Todo'] = made.body;
  const id: number = todo.id;

  const invalid = await call('post', '/todos', { token, body: { title: '' } });
  check(invalid.status === 422, `invalid: ${invalid.status}`);
  for (const problem of invalid.body.detail) {
    const where: (string | number)[] = problem.loc;
    steps.push(`${where.join('.')}: ${problem.msg} ${JSON.stringify(problem.ctx)}`);
  }

  const list = await call('get', '/todos', { token });
  check(list.status === 200, `list: ${list.status}`);
  const found: Schemas['Todo'] | undefined = list.body.find((other) => other.id === id);
  check(found?.title === 'typed', 'the new todo is listed');

  const changed = await call('put', '/todos/{id}', { token, path: { id }, body: { completed: true } });
  check(changed.status === 200, `update: ${changed.status}`);
  const done: boolean = changed.body.completed;
  steps.push(`done: ${done}`);

  const patch: Schemas['TodoPatch'] = { due_at: '2025-01-31', tags_add: ['typed'] };
  const patched = await call('patch', '/todos/{id}', { token, path: { id }, body: patch });
  check(patched.status === 200, `patch: ${patched.status}`);
  const tags: string[] | undefined = patched.body.tags;
  steps.push(`due: ${patched.body.due_at} ${tags}`);

  const query = { tag: ['typed'], due_before: '2025-02-01', sort: '-due_at,id', completed: true, limit: 10 };
  const page = await call('get', '/todos', { token, query });
  check(page.status === 200, `page: ${page.status}`);
  steps.push(`page: ${page.body.map((other) => other.id === id)}`);

  const operations: Schemas['Operation'][] = [{ op: 'delete', id }, { op: 'restore', id }];
  const batch = await call('post', '/batch', { token, body: { operations } });
  check(batch.status === 200, `batch: ${batch.status}`);
  steps.push(`batch: ${batch.body.results.map(({ status, todo }) => `${status} ${todo?.title}`)}`);

  const cleared = await call('delete', '/todos', { token, query: { completed: true } });
  check(cleared.status === 200, `clear: ${cleared.status}`);
  const revision = Number(cleared.headers.get('Change-Revision'));
  const undone = await call('post', '/changes/{revision}/undo', { token, path: { revision }, query: { batch: true } });
  check(undone.status === 200, `undo: ${undone.status}`);
  steps.push(`undone: ${cleared.body.deleted} ${undone.body.changes.map(({ event, todo }) => `${event} ${todo}`)}`);
  const again = await call('post', '/changes/{revision}/undo', { token, path: { revision } });
  check(again.status === 409, `undo again: ${again.status}`);
  steps.push(`conflict: ${again.body.conflict}`);

  const since: string = (undone.headers.get('Sync-Token') ?? '').replace(/\d+$/, String(revision - 1));
  const missed = await call('get', '/changes', { token, query: { since, net: true } });
  check(missed.status === 200, `changes: ${missed.status}`);
  const more: boolean = missed.body.has_more;
  steps.push(`missed: ${missed.body.changes.map(({ event, todo }) => `${event} ${todo?.title}`)} ${more}`);
  const history = await call('get', '/todos/{id}/history', { token, path: { id } });
  check(history.status === 200, `history: ${history.status}`);
  steps.push(`history: ${history.body.map(({ event, changes }) => `${event} ${Object.keys(changes ?? {})}`).slice(0, 3).join()}`);

  const deleted = await call('delete', '/todos/{id}', { token, path: { id } });
  check(deleted.status === 204, `delete: ${deleted.status}`);
  const nothing: undefined = deleted.body;
  steps.push(`deleted: ${nothing}`);
  const gone = await call('get', '/todos/{id}', { token, path: { id } });
  check(gone.status === 404, `read: ${gone.status}`);
  steps.push(gone.body.detail);

  const ready = await call('get', '/health/ready');
  const pending: number = ready.body.pending_events;
  steps.push(`pending: ${pending >= 0}`);
  return steps;
}

/** What the document must not allow; never called. Each line fails to compile, or the compiler complains about the comment. */
export async function refused(): Promise<void> {
  // @ts-expect-error a title is needed
  await call('post', '/todos', { body: { description: 'no title' } });
  // @ts-expect-error a title is a string
  await call('post', '/todos', { body: { title: 1 } });
  // @ts-expect-error completed is a boolean
  await call('put', '/todos/{id}', { path: { id: 1 }, body: { completed: 'yes' } });
  // @ts-expect-error an id is a number
  await call('get', '/todos/{id}', { path: { id: 'one' } });
  // @ts-expect-error a limit is a number
  await call('get', '/todos', { query: { limit: 'ten' } });
  // @ts-expect-error there is no such parameter
  await call('get', '/todos', { query: { colour: 'red' } });
  // @ts-expect-error there is no such path
  await call('get', '/todo', {});
  const made = await call('post', '/todos', { body: { title: 'x' } });
  if (made.status === 201) {
    // @ts-expect-error a todo has no such field
    made.body.colour;
    // @ts-expect-error it may be null
    made.body.description.length;
  }
  // @ts-expect-error no such status
  check(made.status === 200, '');
}

/** That the types are neither wider nor narrower than this. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
type Flat<T> = { [K in keyof T]: T[K] };
type Optional = { due_at?: string | null; priority?: number | null; tags?: string[] | null; order?: number | null };
export const exact: [
  Same<Flat<Schemas['NewTodo']>, Flat<{ title: string; description?: string | null; completed?: boolean } & Optional>>,
  Same<Flat<Schemas['TodoUpdate']>, Flat<{ title?: string; description?: string | null; completed?: boolean } & Optional>>,
  Same<Pick<Schemas['Todo'], 'id' | 'title' | 'description' | 'completed' | 'created_at' | 'updated_at'>, {
    id: number; title: string; description: string | null; completed: boolean; created_at: string; updated_at: string;
  }>,
  Same<Flat<Schemas['Error']>, { detail: string }>,
] = [true, true, true, true];
