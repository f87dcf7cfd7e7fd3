// The list: only the rows that can be seen are there, so that 10,000 todos scroll as smoothly as ten.
import { signal, useSignal } from '@preact/signals';
import { useLayoutEffect, useRef } from 'preact/hooks';
import type { Shown } from '../client';
import { go, isNarrowed, NO_FILTER, place } from './place';
import { Field } from './field';
import { complete, dayOf, failed, idOf, isLate, keyOf, listed, move, notice, pending, remove, shown, status, store, timeOf } from './state';

/** Of each row, in px, as in style.css. */
const ROW = 48;
/** Rows above and below those that can be seen. */
const MARGIN = 8;

/** The row that the keyboard is at, by the todo's id. */
export const focused = signal<string | number>();
/** The row whose title is being edited. */
const editing = signal<string | number>();

export function focusRow(todo: Shown | undefined) {
  focused.value = todo && keyOf(todo.id);
  const focus = () => {
    const row = document.querySelector<HTMLElement>(`[data-row="${focused.peek()}"]`);
    // Unless something in it has the focus, such as its title.
    if (row && !row.contains(document.activeElement)) row.focus();
  };
  focus();
  // It may not be there yet, or somewhere else.
  requestAnimationFrame(focus);
}

export function List() {
  const box = useRef<HTMLDivElement>(null);
  const top = useSignal(0);
  const height = useSignal(800);
  const dragged = useSignal<{ key: string | number; by: number; y: number }>();

  useLayoutEffect(() => {
    const measure = () => box.current && (height.value = box.current.clientHeight);
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(box.current!);
    return () => observer.disconnect();
  }, []);

  const kept = useRef<{ todo: Shown; index: number } | undefined>(undefined);
  let todos = listed.value;
  if (editing.value !== undefined) {
    const index = todos.findIndex(({ id }) => keyOf(id) === editing.value);
    if (index >= 0) kept.current = { todo: todos[index]!, index };
    else if (kept.current && keyOf(kept.current.todo.id) === editing.value) {
      // It stays as long as somebody types in it, whatever others do: else what is typed on would be keys for another one.
      const todo = shown.value.get(idOf(kept.current.todo.id)) ?? kept.current.todo;
      todos = todos.toSpliced(kept.current.index, 0, todo);
    }
  }
  const first = Math.max(0, Math.floor(top.value / ROW) - MARGIN);
  const last = Math.min(todos.length, Math.ceil((top.value + height.value) / ROW) + MARGIN);
  const current = todos.findIndex(({ id }) => keyOf(id) === focused.value);
  const lastIndex = useRef(0);
  if (current >= 0) lastIndex.current = current;
  const rows = todos.slice(first, last).map((todo, index) => ({ todo, index: first + index }));
  // Else the keyboard would be nowhere when it is scrolled away.
  if (current >= 0 && (current < first || current >= last)) rows.push({ todo: todos[current]!, index: current });

  useLayoutEffect(() => {
    // Its row has gone, and the focus with it.
    if (focused.value !== undefined && current < 0 && document.activeElement === document.body) focusRow(todos[Math.min(lastIndex.current, todos.length - 1)]);
  });

  const goTo = (to: number) => {
    const index = Math.max(0, Math.min(todos.length - 1, to));
    const todo = todos[index];
    if (!todo || !box.current) return;
    const [above, below] = [index * ROW, (index + 1) * ROW - height.value];
    if (box.current.scrollTop > above) box.current.scrollTop = above;
    if (box.current.scrollTop < below) box.current.scrollTop = below;
    top.value = box.current.scrollTop;
    focusRow(todo);
  };

  const reorder = (from: number, to: number) => {
    const todo = todos[from];
    if (!todo || to === from || to < 0 || to >= todos.length) return;
    move(todos, todo, to).catch(failed);
    focusRow(todo);
  };

  const keys = (event: KeyboardEvent) => {
    const todo = todos[current];
    if (editing.value !== undefined || event.ctrlKey || event.metaKey) return;
    const isOnButton = (event.target as Element).closest('button') !== null;
    const neighbour = todos[current + 1] ?? todos[current - 1];
    const page = Math.max(1, Math.floor(height.value / ROW) - 1);
    const steps: Record<string, number> = {
      ArrowDown: current + 1, ArrowUp: current - 1, j: current + 1, k: current - 1, PageDown: current + page, PageUp: current - page, Home: 0, End: todos.length - 1,
    };
    const step = steps[event.key];
    if (event.altKey) {
      if (event.key !== 'ArrowUp' && event.key !== 'ArrowDown') return;
      if (place.value.sort === 'own') reorder(current, step!);
      else notice.value = { text: 'Todos are moved in “My order”.', action: { label: 'Show it', run: () => go({ sort: 'own' }) } };
    } else if (step !== undefined) goTo(step);
    else if (!todo || isOnButton) return;
    // A key that is held is no new wish.
    else if (event.repeat) return event.preventDefault();
    else if (event.key === ' ' || event.key === 'x') {
      complete(todo, !todo.completed).catch(failed);
      if (place.value.done !== 'all') focusRow(neighbour);
    } else if (event.key === 'Enter' || event.key === 'F2') editing.value = keyOf(todo.id);
    else if (event.key === 'o') go({ todo: String(todo.id) });
    else if (event.key === 'Delete' || event.key === '#') {
      remove(todo).catch(failed);
      focusRow(neighbour);
    } else return;
    event.preventDefault();
  };

  const start = (key: string | number) => (event: PointerEvent) => {
    if (event.button !== 0) return;
    event.preventDefault();
    (event.target as Element).setPointerCapture(event.pointerId);
    dragged.value = { key, by: 0, y: event.clientY };
  };
  const drag = (event: PointerEvent) => {
    if (dragged.value) dragged.value = { ...dragged.value, by: Math.round((event.clientY - dragged.value.y) / ROW) };
  };
  const drop = () => {
    const { from, to } = dragging;
    dragged.value = undefined;
    reorder(from, to);
  };
  /** Where it comes from and goes to: others may come and go meanwhile. */
  const from = dragged.value ? todos.findIndex(({ id }) => keyOf(id) === dragged.value?.key) : -1;
  const dragging = { from, to: from < 0 ? -1 : Math.max(0, Math.min(todos.length - 1, from + dragged.value!.by)) };
  const offset = (index: number) =>
    from < 0 || index === from ? 0 : index > from && index <= dragging.to ? -1 : index < from && index >= dragging.to ? 1 : 0;

  return (
    <div class="list" ref={box} onScroll={(event) => (top.value = event.currentTarget.scrollTop)} onKeyDown={keys} tabIndex={-1}>
      {todos.length === 0 ? <Empty /> : (
        <ul role="list" aria-label="Todos" style={{ height: `${todos.length * ROW}px` }}>
          {rows.map(({ todo, index }) => (
            <Row
              key={keyOf(todo.id)} todo={todo} position={index} count={todos.length} shift={offset(index)} isDragged={index === from} target={dragging.to}
              isStop={index === (current < 0 ? 0 : current)}
              onDrag={place.value.sort === 'own' ? { start: start(keyOf(todo.id)), move: drag, end: drop, cancel: () => (dragged.value = undefined) } : undefined}
            />
          ))}
        </ul>
      )}
    </div>
  );
}

function Empty() {
  if (shown.value.size === 0 && !status.value.current && status.value.error === undefined) return <p class="empty" aria-busy="true">Loading your todos…</p>;
  if (isNarrowed.value) {
    return <div class="empty"><p>Nothing here fits.</p><button onClick={() => go(NO_FILTER)}>Show all that is open</button></div>;
  }
  return shown.value.size === 0
    ? <div class="empty"><p>No todos yet.</p><button onClick={() => document.getElementById('new')?.focus()}>Add the first one</button></div>
    : <div class="empty"><p>All done.</p><button onClick={() => go({ done: 'all' })}>Show what is done</button></div>;
}

interface RowProps {
  todo: Shown;
  position: number;
  count: number;
  shift: number;
  isDragged: boolean;
  target: number;
  /** Tab comes here. */
  isStop: boolean;
  onDrag: { start: (event: PointerEvent) => void; move: (event: PointerEvent) => void; end: () => void; cancel: () => void } | undefined;
}

function Row({ todo, position, count, shift, isDragged, target, isStop, onDrag }: RowProps) {
  const state = pending.value.get(todo.id);
  const top = (isDragged ? target : position + shift) * ROW;
  return (
    <li
      class={`row p${todo.priority ?? ''}${todo.completed ? ' done' : ''}${isDragged ? ' dragged' : ''}`} style={{ transform: `translateY(${top}px)` }}
      data-row={keyOf(todo.id)} tabIndex={isStop ? 0 : -1} aria-setsize={count} aria-posinset={position + 1}
      aria-label={`${todo.title}${todo.completed ? ', done' : ''}`}
      onFocusIn={() => (focused.value = keyOf(todo.id))}
    >
      {onDrag && (
        <span class="handle" aria-hidden="true" onPointerDown={onDrag.start} onPointerMove={onDrag.move} onPointerUp={onDrag.end} onPointerCancel={onDrag.cancel}>⠿</span>
      )}
      <input
        type="checkbox" tabIndex={isStop ? 0 : -1} checked={todo.completed} aria-label={`Done: ${todo.title}`}
        onChange={(event) => complete(todo, event.currentTarget.checked).catch(failed)}
      />
      {editing.value === keyOf(todo.id) ? <TitleField todo={todo} /> : (
        <span class="title" dir="auto" onDblClick={() => (editing.value = keyOf(todo.id))} onClick={(event) => ((event as unknown as PointerEvent).pointerType === 'touch' ? go({ todo: String(todo.id) }) : focusRow(todo))}>{todo.title}</span>
      )}
      {state && <span class={`state ${state}`}>{state === 'problem' ? 'not saved' : 'waiting'}</span>}
      {(todo.tags ?? []).slice(0, 3).map((tag) => <button key={tag} class="tag" tabIndex={-1} dir="auto" onClick={() => go({ tag })}>{tag}</button>)}
      {(todo.tags?.length ?? 0) > 3 && <span class="tag">+{todo.tags!.length - 3}</span>}
      {todo.priority != null && <span class={`priority p${todo.priority}`} title="Priority">{PRIORITIES[todo.priority]}</span>}
      {todo.due_at && <time class={isLate(todo) ? 'late' : ''} dateTime={todo.due_at}>{`${dayOf(todo.due_at)} ${timeOf(todo.due_at)}`.trim()}</time>}
      <button class="icon" tabIndex={isStop ? 0 : -1} aria-label={`Details of ${todo.title}`} onClick={() => go({ todo: String(todo.id) })}>⋯</button>
    </li>
  );
}

export const PRIORITIES = ['lowest', 'low', 'medium', 'high', 'highest'];

function TitleField({ todo }: { todo: Shown }) {
  const close = () => editing.value === keyOf(todo.id) && (editing.value = undefined);
  const save = async (text: string, saw: Shown) => store().update(saw, { title: text.trim() });
  useLayoutEffect(() => () => void close(), []);
  return (
    <span class="title" onFocusOut={close}>
      <Field
        todo={todo} value={todo.title} maxLength={200} aria-label="Title" required save={save} done={() => {
          close();
          focusRow(todo);
        }}
      />
    </span>
  );
}
