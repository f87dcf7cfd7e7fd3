// All of a todo, and what has happened to it.
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { differences, rest, type Edit, type Fields, type Schemas, type Shown } from '../client';
import { Dialog } from './dialog';
import { Field, typing } from './field';
import { PRIORITIES } from './list';
import { leave, place } from './place';
import { ask, dayOf, failed, idOf, pending, remove, shown, status, store, tags, timeOf, today } from './state';

export function Details() {
  const last = useRef<Shown | undefined>(undefined);
  const { todo: id } = place.value;
  if (id === '') {
    last.current = undefined;
    return null;
  }
  const own = idOf(/^\d+$/.test(id) ? Number(id) : id);
  const present = shown.value.get(own);
  // Others may delete it while something is typed here, which brings it back.
  const todo = present ?? (last.current && idOf(last.current.id) === own ? last.current : undefined);
  last.current = todo;
  const close = () => leave({ todo: '' });
  const missing = status.value.current ? 'This todo is not here (any more). Perhaps it is in the trash.' : 'Loading…';
  return (
    <Dialog title="Details" className="drawer" close={close}>
      {todo ? <Form todo={todo} isThere={present !== undefined} close={close} /> : <p>{missing}</p>}
    </Dialog>
  );
}

function Form({ todo, isThere, close }: { todo: Shown; isThere: boolean; close: () => void }) {
  const save = async (fields: Fields, saw = todo) => store().update(saw, fields);
  const set = (fields: Fields) => void save(fields).catch(failed);
  const [day, time] = todo.due_at ? [dayOf(todo.due_at), timeOf(todo.due_at)] : ['', ''];
  const due = (day: string, time: string, saw: Shown) => save({ due_at: day === '' ? null : time === '' ? day : new Date(`${day}T${time}`).toISOString() }, saw);
  const own = todo.tags ?? [];
  return (
    <div class="form">
      <label>Title<Field todo={todo} value={todo.title} maxLength={200} required save={(text, saw) => save({ title: text.trim() }, saw)} /></label>
      <label class="check"><input type="checkbox" checked={todo.completed} onChange={(event) => set({ completed: event.currentTarget.checked })} />Done</label>
      <label>Description
        <Field as="textarea" todo={todo} value={todo.description ?? ''} rows={5} maxLength={10_000} save={(text, saw) => save({ description: text === '' ? null : text }, saw)} />
      </label>
      <div class="pair">
        <label>Due<Field todo={todo} type="date" max="9999-12-30" value={day} save={(text, saw) => due(text, time, saw)} /></label>
        <label>at<Field todo={todo} type="time" value={time} save={(text, saw) => due(day || (text && today()), text, saw)} /></label>
      </div>
      <label>Priority
        <select value={todo.priority ?? ''} onChange={(event) => set({ priority: event.currentTarget.value === '' ? null : Number(event.currentTarget.value) })}>
          <option value="">none</option>
          {PRIORITIES.map((name, value) => <option key={name} value={value}>{name}</option>)}
        </select>
      </label>
      <div class="tags">
        {own.map((tag) => (
          <span key={tag} class="tag" dir="auto">{tag}<button aria-label={`Remove tag ${tag}`} onClick={() => set({ tags_remove: [tag] })}>✕</button></span>
        ))}
        <label>Add tag
          <input
            dir="auto" maxLength={50} list="tags" onChange={(event) => {
              const tag = event.currentTarget.value.trim();
              event.currentTarget.value = '';
              if (tag !== '' && !own.includes(tag)) set({ tags_add: [tag] });
            }}
          />
        </label>
        <datalist id="tags">{tags.value.filter((tag) => !own.includes(tag)).map((tag) => <option key={tag} value={tag} />)}</datalist>
      </div>
      <p class="hint">{saved(todo, isThere)}</p>
      {isThere && <div class="buttons"><button class="danger" onClick={() => (close(), remove(todo).catch(failed))}>Delete</button></div>}
      {typeof todo.id === 'number' && <History id={todo.id} version={todo.etag ?? ''} />}
    </div>
  );
}

/** Whether a todo is saved as it is shown, in words. */
function saved(todo: Shown, isThere: boolean): string {
  const state = pending.value.get(todo.id);
  if (!isThere) return 'It was deleted elsewhere. What you change here brings it back.';
  if (state === 'problem') return 'A change was not saved: see above the list.';
  if (typing.value) return 'What you type is saved when you leave the field.';
  return state === 'waiting' ? 'Changes wait to be sent.' : 'Everything is saved.';
}

function History({ id, version }: { id: number; version: string }) {
  const entries = useSignal<Schemas['HistoryEntry'][] | string>('Loading…');
  useEffect(() => {
    ask(store().call('get', '/todos/{id}/history', { path: { id }, query: { limit: 1000 } }))
      .then(({ body }) => (entries.value = (body as Schemas['HistoryEntry'][]).toReversed()), () => (entries.value = 'The history needs the service.'));
  }, [id, version]);
  const list = entries.value;
  return (
    <section aria-label="History">
      <h3>History</h3>
      {typeof list === 'string' ? <p>{list}</p> : (
        <ol class="history">
          {list.map(({ revision, event, at, actor, changes }) => (
            <li key={revision}>
              <b>{event}</b> by {actor}, <time dateTime={at}>{new Date(at).toLocaleString()}</time>
              <ul>
                {Object.entries(changes ?? {}).filter(([field, [, after]]) => event !== 'created' || (field !== 'order' && after !== false)).map(([field, [before, after]]) => (
                  <li key={field}>{NAMES[field] ?? field}: {event !== 'created' && <><del dir="auto">{worded(before, field)}</del> → </>}<ins dir="auto">{worded(after, field)}</ins></li>
                ))}
              </ul>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}

const NAMES: Record<string, string> = { completed: 'done', due_at: 'due', order: 'place in my order' };

/** The value of a field, in words. */
function worded(value: unknown, field: string): string {
  if (value === null || value === undefined || value === '') return 'nothing';
  if (Array.isArray(value)) return value.join(', ') || 'nothing';
  if (field === 'priority') return PRIORITIES[value as number] ?? String(value);
  if (field === 'due_at') return `${dayOf(String(value))} ${timeOf(String(value))}`.trim();
  if (field === 'order') return String(Math.round((value as number) * 100) / 100);
  return value === true ? 'yes' : value === false ? 'no' : String(value);
}

/** Edits that the user has to decide about. */
export function Problems({ edits }: { edits: Edit[] }) {
  if (edits.length === 0) return null;
  return (
    <section class="problems" aria-label="Not saved" role="alert">
      <h2>{edits.length === 1 ? 'One change was not saved' : `${edits.length} changes were not saved`}</h2>
      <ul>{edits.map((edit) => <li key={edit.place}><Problem edit={edit} /></li>)}</ul>
    </section>
  );
}

function Problem({ edit }: { edit: Edit }) {
  const { problem, kind, fields, saw } = edit;
  if (!problem) return null;
  const keep = (fields?: Fields) => store().retry(edit, fields).catch(failed);
  const give = () => store().discard(edit).catch(failed);
  const wanted = fields as Record<string, unknown>;
  const title = <b dir="auto">{String(wanted['title'] ?? saw.title)}</b>;
  if (problem.status === 412) {
    const theirs = problem.current as unknown as Record<string, unknown>;
    const names = problem.fields ?? differences(theirs, saw);
    return (
      <>
        <p>{title} was changed elsewhere, too{kind === 'delete' ? ', before you deleted it' : ''}.</p>
        <table>
          <thead><tr><th scope="col">Field</th><th scope="col">Yours</th><th scope="col">Theirs</th></tr></thead>
          <tbody>
            {names.map((name) => <tr key={name}><th scope="row">{NAMES[name] ?? name}</th><td dir="auto">{kind === 'delete' ? 'deleted' : mine(wanted, name)}</td><td dir="auto">{worded(theirs[name], name)}</td></tr>)}
          </tbody>
        </table>
        <div class="buttons">
          <button onClick={() => keep()}>{kind === 'delete' ? 'Delete it anyway' : 'Keep yours'}</button>
          <button onClick={give}>Keep theirs</button>
        </div>
      </>
    );
  }
  const correct = (event: SubmitEvent) => {
    event.preventDefault();
    const title = new FormData(event.currentTarget as HTMLFormElement).get('title') as string | null;
    void keep(title === null ? undefined : { ...fields, title: title.trim() });
  };
  return (
    <form onSubmit={correct}>
      <p>{title}: {problem.status === 404 ? 'it was removed for good elsewhere' : problem.detail}</p>
      {wanted['title'] !== undefined && problem.status === 422 && <label>Title<input name="title" dir="auto" defaultValue={String(wanted['title'])} /></label>}
      <div class="buttons">
        {problem.status !== 404 && <button>Try again</button>}
        <button type="button" onClick={give}>{rest(edit) ? 'Leave that out' : 'Give it up'}</button>
      </div>
    </form>
  );
}

const mine = (fields: Record<string, unknown>, name: string) =>
  name === 'tags' && fields['tags'] === undefined
    ? [...((fields['tags_add'] as string[]) ?? []).map((tag) => `+${tag}`), ...((fields['tags_remove'] as string[]) ?? []).map((tag) => `−${tag}`)].join(' ')
    : worded(fields[name], name);
