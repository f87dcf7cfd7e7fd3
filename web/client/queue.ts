// The edits that are not settled yet: what they make of the todos that the service has, which of them become one request, and
// what an answer means for those behind it. Nothing here waits, sends or keeps anything. docs/sync.md has the rules, 8 to 14.
import type { Schemas } from './api';

export type Todo = Schemas['Todo'];
/** The service's, or, of a todo that the service does not know yet, the key of the edit that creates it. */
export type Id = number | string;
/** A todo with all edits. */
export type Shown = Omit<Todo, 'id'> & { id: Id };
/** As in PATCH; `null` unsets. Text that the service keeps in another form would look like somebody else's change: see {@link normal}. */
export type Fields = Schemas['TodoPatch'];

/** Something that the user has done and the copy does not show yet. Never changed in place. */
export interface Edit {
  /** The order of edits. */
  readonly place: string;
  /** The Idempotency-Key. */
  readonly key: string;
  readonly kind: 'create' | 'update' | 'delete' | 'restore';
  readonly id: Id;
  /** Of a creation, what it has, of an update, what becomes of it. */
  readonly fields: Fields;
  /** What the user saw; for a creation, what it begins with. */
  readonly saw: Shown;
  /** The entity tag of what the user saw; nothing if the service has not said one yet. */
  readonly etag?: string | undefined;
  /** When it was sent for the first time, in ms since 1970. Whether it arrived is not known as long as there is no `answer`. */
  readonly sent?: number;
  /** The service has made the change. The edit stays until the copy has it, too. */
  readonly answer?: Answered;
  /** It was sent, and then the copy was replaced: if it was done before, the copy has it. */
  readonly listed?: boolean;
  /** The service has refused it: the user says what becomes of it, and what is behind it waits. */
  readonly problem?: Problem;
}

export interface Answered {
  id: number;
  revision: number;
  etag?: string | null | undefined;
  todo?: Todo | null | undefined;
}

export interface Problem {
  /** The status of the answer. 0: it was sent so long ago that sending it again could create the todo twice. */
  status: number;
  detail: string;
  /** For 412: what others have made of the todo, and its entity tag. */
  current?: Todo;
  etag?: string | undefined;
  /** The fields that it is about: for 412, those that the user and others have changed, for 422, those that the service refuses. Without it, all of
   * the todo counts, as for a deletion. */
  fields?: string[] | undefined;
}

export interface Queue {
  /** By their places, in their order. */
  readonly edits: Map<string, Edit>;
  /** What the service has made of the ids of the client's own. */
  readonly ids: Map<string, Created>;
  /** The last answer about each todo, of this tab: for edits that were added while it was being kept. */
  readonly answers: Map<Id, Answered & { place: string }>;
}

export interface Created {
  id: number;
  etag?: string | null | undefined;
}

export const inOrder = ({ edits }: Queue) => [...edits.values()];

export const idOf = ({ ids }: Queue, id: Id): Id => ids.get(id as string)?.id ?? id;

/** Adds an edit, or another state of it. */
export function put({ edits }: Queue, edit: Edit) {
  const isLast = edits.has(edit.place) || edit.place > ([...edits.keys()].at(-1) ?? '');
  edits.set(edit.place, edit);
  if (isLast) return;
  // Another tab has added it earlier than this one knows.
  const sorted = [...edits].sort(([a], [b]) => (a < b ? -1 : 1));
  edits.clear();
  for (const [place, each] of sorted) edits.set(place, each);
}

/** The todos of the copy with all edits. */
export function show(copy: ReadonlyMap<number, Todo>, queue: Queue): Map<Id, Shown> {
  const shown = new Map<Id, Shown>(copy);
  const deleted = new Map<Id, Shown>();
  for (const edit of inOrder(queue)) {
    const id = idOf(queue, edit.id);
    const present = shown.get(id);
    if (edit.kind !== 'delete') {
      // What comes back is what was deleted, and not what was seen before others changed it.
      shown.set(id, { ...changed(present ?? deleted.get(id) ?? edit.saw, edit.fields), id });
    } else if (present) {
      deleted.set(id, present);
      shown.delete(id);
    }
  }
  return shown;
}

/** A todo as it becomes. */
export function changed<T extends object>(todo: T, { tags_add, tags_remove, ...fields }: Fields): T {
  const result: Record<string, unknown> = { ...todo, ...fields };
  if (tags_add || tags_remove) result['tags'] = tagged((result['tags'] as string[] | null) ?? [], tags_remove, tags_add);
  for (const name of ['due_at', 'priority', 'tags', 'order']) {
    if (result[name] == null || (result[name] as unknown[]).length === 0) delete result[name];
  }
  return result as T;
}

const created = ({ title, description, completed, due_at, priority, tags, order }: Shown): Fields => ({
  title, description, completed, ...(due_at && { due_at }), ...(priority != null && { priority }), ...(tags && { tags }), ...(order != null && { order }),
});

const tagged = (tags: string[], remove: string[] = [], add: string[] = []) =>
  [...new Set([...tags.filter((tag) => !remove.includes(tag)), ...add])];

/** Fields in the form in which the service keeps them. */
export function normal<T extends Fields>(fields: T): T {
  const result = { ...fields };
  if (result.due_at?.includes('T')) result.due_at = new Date(result.due_at).toISOString();
  for (const name of ['tags', 'tags_add', 'tags_remove'] as const) {
    const tags = result[name];
    if (tags) result[name] = [...new Set(tags.map((tag) => tag.trim().normalize('NFC')).filter(Boolean))];
  }
  return result;
}

/** The edit that is to be sent next. */
export function next(queue: Queue): Edit | undefined {
  const waiting = new Set<Id>();
  return inOrder(queue).find((edit) => {
    const id = idOf(queue, edit.id);
    if (edit.answer || waiting.has(id)) return false;
    if (edit.problem) waiting.add(id);
    return !edit.problem;
  });
}

/** Makes one edit of `first` and those behind it that can go with it, and notes when it is sent. Returns it, unless nothing is left to do. */
export function send(queue: Queue, first: Edit, now: number): Edit | undefined {
  let edit: Edit | undefined = first;
  if (first.kind !== 'create' && typeof idOf(queue, first.id) === 'string') {
    // Its creation and a deletion have come to nothing, and another tab had not heard of that.
    queue.edits.delete(first.place);
    if (first.kind === 'delete') return undefined;
    edit = { ...first, kind: 'create', fields: created(changed(first.saw, first.fields)) };
  }
  if (first.sent === undefined) {
    const behind = inOrder(queue).filter(({ place, id }) => place > first.place && idOf(queue, id) === idOf(queue, first.id));
    for (const later of behind) {
      // Another tab has added the first one late.
      if (later.sent !== undefined || later.problem) break;
      const both: Edit | null | undefined = merged(edit, later);
      if (both === undefined) break;
      queue.edits.delete(later.place);
      if (both === null) queue.edits.delete(first.place);
      edit = both ?? undefined;
      if (!edit) return undefined;
    }
  }
  if (first.sent === undefined && edit.kind !== 'create') {
    const answer = queue.answers.get(idOf(queue, edit.id));
    if (answer && answer.place < edit.place) edit = { ...edit, etag: seen(edit, answer) };
    // Nothing is changed blindly: what was created here was seen as it was created.
    const id = idOf(queue, edit.id);
    edit = { ...edit, etag: edit.etag ?? [...queue.ids.values()].find((created) => created.id === id)?.etag ?? undefined };
  }
  edit = { ...edit, sent: first.sent ?? now };
  queue.edits.set(edit.place, edit);
  return edit;
}

/** Two edits as one; null: they come to nothing; undefined: each has to be sent. */
function merged(edit: Edit, later: Edit): Edit | null | undefined {
  const kinds = `${edit.kind} ${later.kind}`;
  if (kinds === 'create delete' || kinds === 'delete restore' || kinds === 'restore delete') return null;
  if (kinds === 'create update') return { ...edit, fields: changed(edit.fields, later.fields) };
  // What was seen of different versions must be compared with different versions.
  if (kinds !== 'update update' || edit.etag !== later.etag) return undefined;
  const { tags_add, tags_remove, ...fields } = edit.fields;
  const { tags_add: add, tags_remove: remove, ...rest } = later.fields;
  const both: Fields = { ...fields, ...rest };
  if (rest.tags !== undefined) return { ...edit, fields: both };
  if (fields.tags !== undefined) both.tags = tagged(fields.tags ?? [], remove, add);
  else {
    if (tags_remove || remove) both.tags_remove = tagged(tags_remove ?? [], [], remove);
    if (tags_add || add) both.tags_add = tagged(tags_add ?? [], remove, add);
  }
  return { ...edit, fields: both };
}

/** The service has made the change of an edit, as it says in its answer, or in an entry with the edit's key. */
export function answered(queue: Queue, edit: Edit, answer: Answered, applied: number) {
  if (edit.kind === 'create') queue.ids.set(edit.id as string, { id: answer.id, etag: answer.etag });
  queue.answers.set(answer.id, { ...answer, place: edit.place });
  if (answer.revision > applied) queue.edits.set(edit.place, { ...edit, answer });
  else queue.edits.delete(edit.place);
  for (const later of inOrder(queue)) {
    if (later.place > edit.place && idOf(queue, later.id) === answer.id && later.sent === undefined) {
      queue.edits.set(later.place, { ...later, etag: seen(later, answer) });
    }
  }
}

/** A change has come: what was answered before it is not the newest any more. */
export function heard({ answers }: Queue, { id, revision }: { id: number; revision: number }) {
  if ((answers.get(id)?.revision ?? revision) < revision) answers.delete(id);
}

/** The entity tag for an edit behind one that was answered: the answer's, if the fields that it changes are there as the user saw them. */
export function seen({ fields, saw, etag, kind }: Edit, answer: Answered): string | undefined {
  const { todo } = answer;
  if (!todo) return etag;
  return isSame({ kind, fields }, todo, saw) ? (answer.etag ?? etag) : etag;
}

/** The fields, of these, that two versions of a todo have not in common. */
export function differences(one: object, other: object, names: readonly string[] = FIELDS): string[] {
  const as = (of: object, name: string) => JSON.stringify((of as Record<string, unknown>)[name]);
  return names.filter((name) => as(one, name) !== as(other, name));
}

/** Whether the fields that an edit changes are the same in two todos. */
const isSame = (edit: Pick<Edit, 'kind' | 'fields'>, one: object, other: object) => differences(one, other, touched(edit)).length === 0;

/** What the user has to decide about when others have changed these fields of a todo, too: not about what both want, nor about a todo's place in the
 * list, where the last move counts. */
export function asked(edit: Edit, current: Todo, conflict: readonly string[] = touched(edit)): string[] {
  const found = edit.kind === 'delete' ? differences(current, edit.saw) : differences(current, changed(current, edit.fields), conflict);
  return found.filter((name) => name !== 'order');
}

/** What is left of an edit without the fields that its problem is about, if anything is. */
export function rest({ kind, fields, problem }: Edit): Fields | undefined {
  const about = problem?.fields;
  if (!about || (kind !== 'update' && kind !== 'create')) return undefined;
  const left = Object.entries(fields).filter(([name]) => !about.includes(name) && !about.includes(name.replace(/_(add|remove)$/, '')));
  const hasAny = kind === 'create' ? left.some(([name]) => name === 'title') : left.length > 0;
  return hasAny ? Object.fromEntries(left) : undefined;
}

/** An edit as a new request, with these fields; after a conflict, of one who has seen what others have made of the todo. */
export function again({ problem, sent, listed, ...edit }: Edit, key: string, fields: Fields, current = problem?.current, etag = problem?.etag): Edit {
  const seen = current && { saw: { ...current, ...(etag !== undefined && { etag }) }, etag };
  return { ...edit, ...seen, key, fields: normal(fields) };
}

/** An edit of what the user saw a while ago as one of what is there now, if what it changes has not changed meanwhile. */
export const renewed = (edit: Edit, now: Shown | undefined): Edit => (now && isSame(edit, now, edit.saw) ? { ...edit, saw: now } : edit);

/** The fields that an edit changes. */
const touched = ({ kind, fields }: Pick<Edit, 'kind' | 'fields'>) =>
  kind === 'update' ? Object.keys(fields).map((name) => name.replace(/_(add|remove)$/, '')) : FIELDS;

/** The entity tag of what the user saw of the fields that an edit changes: edits before it are on top of the copy, and may be of an older version,
 * the first one of the oldest. */
export function base(queue: Queue, edit: Edit): string | undefined {
  let etag = edit.saw.etag;
  for (const before of inOrder(queue)) {
    if (idOf(queue, before.id) !== idOf(queue, edit.id)) continue;
    if (before.answer) etag = seen({ ...edit, etag }, before.answer);
    // What is shown of a todo that was deleted, or comes back, has its own entity tag: that of the deletion may be newer, if it was sent again.
    else if (before.kind === 'delete' || before.kind === 'restore') continue;
    else if (touched(before).some((name) => touched(edit).includes(name))) return before.etag;
  }
  return etag;
}

const FIELDS = ['title', 'description', 'completed', 'due_at', 'priority', 'tags', 'order'];

/** The copy has everything up to a revision. */
export function settle(queue: Queue, revision: number) {
  for (const { place, answer } of queue.edits.values()) if (answer && answer.revision <= revision) queue.edits.delete(place);
}

/** Takes an edit out, and what builds on a todo that it would have created. */
export function drop(queue: Queue, edit: Edit) {
  queue.edits.delete(edit.place);
  if (edit.kind !== 'create') return;
  for (const { place, id } of queue.edits.values()) if (id === edit.id) queue.edits.delete(place);
}
