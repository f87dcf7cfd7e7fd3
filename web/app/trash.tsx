// What was deleted: it can be brought back, or removed for good.
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { Schemas } from '../client';
import { Dialog, isSure } from './dialog';
import { closes } from './place';
import { ask, edits, failed, notice, shown, store } from './state';

export function Trash() {
  const todos = useSignal<Schemas['TrashedTodo'][] | string>('Loading…');
  const read = () => void ask(store().call('get', '/trash'))
    .then(({ body }) => (todos.value = body as Schemas['TrashedTodo'][]), () => (todos.value = 'The trash needs the service, which cannot be reached.'));
  // Whatever is deleted or comes back changes it, once that is sent.
  useEffect(read, [shown.value.size, edits.value.length]);
  const bring = (todo: Schemas['TrashedTodo']) => {
    // It may still offer what is done now.
    notice.value = undefined;
    store().restore(todo).catch(failed);
  };
  const empty = async () => {
    if (!isSure('Remove everything in the trash for good?')) return;
    try {
      for (let more = true; more; ) more = ((await ask(store().call('delete', '/trash'))).body as Schemas['Deleted']).has_more;
    } catch (error) {
      failed(error);
    }
    read();
  };
  const list = typeof todos.value === 'string' ? todos.value : todos.value.filter(({ id }) => !shown.value.has(id));
  return (
    <Dialog title="Trash" className="drawer" close={closes('trash')}>
      {typeof list === 'string' ? <p>{list}</p> : list.length === 0 ? <p>The trash is empty.</p> : (
        <>
          <div class="buttons"><button class="danger" onClick={empty}>Empty the trash</button></div>
          <ul class="records">
            {list.slice(0, 500).map((todo) => (
              <li key={todo.id}>
                <span><span dir="auto">{todo.title}</span><small>deleted <time dateTime={todo.deleted_at}>{new Date(todo.deleted_at).toLocaleString()}</time></small></span>
                <button aria-label={`Restore ${todo.title}`} onClick={() => bring(todo)}>Restore</button>
                <button class="danger" aria-label={`Remove ${todo.title} for good`} onClick={() => isSure(`Remove “${todo.title}” for good?`) && ask(store().call('delete', '/trash/{id}', { path: { id: todo.id } })).then(read, failed)}>Remove</button>
              </li>
            ))}
          </ul>
          {list.length > 500 && <p>And {list.length - 500} older ones.</p>}
        </>
      )}
    </Dialog>
  );
}
