// The page.
import { effect, signal } from '@preact/signals';
import { render } from 'preact';
import { useEffect } from 'preact/hooks';
import { Account, Login } from './account';
import { Details, Problems } from './details';
import { Dialog, dialogs } from './dialog';
import { Events } from './events';
import './focus';
import { focusRow, List, PRIORITIES } from './list';
import { Notice } from './notice';
import { lowestOrder } from './order';
import { closes, go, isNarrowed, NO_FILTER, openedAt, place } from './place';
import { account, draft, failed, listed, notice, ORDERS, problems, session, shown, start, status, store, tags, unsent } from './state';
import { Trash } from './trash';

function App() {
  if (session.value === undefined) return <><main class="login" aria-busy="true"><h1>Todos</h1></main><Notice /></>;
  if (account.value === undefined) return <><Login /><Notice /></>;
  const { view } = place.value;
  return (
    <>
      <Header />
      <main class={view === 'events' ? 'with-events' : ''}>
        <div class="column">
          <Problems edits={problems.value} />
          <Add />
          <Filters />
          <List />
        </div>
        {view === 'events' && <Events />}
      </main>
      <Details />
      {view === 'trash' && <Trash />}
      {view === 'account' && <Account />}
      {view === 'keys' && <Keys />}
      {dialogs.value === 0 && <Notice />}
      <Keyboard />
    </>
  );
}

function Header() {
  const { current: isCopy, error, unsent: why } = status.value;
  const current = isCopy && why === undefined;
  const asks = problems.value.length;
  const text = current ? (asks > 0 ? `${asks} for you to decide` : unsent.value === 0 ? 'Up to date' : 'Saving…') : unsent.value > 0 ? `Offline, ${unsent.value} to send` : error === undefined ? 'Connecting…' : 'Offline';
  return (
    <header class="top">
      <h1>Todos</h1>
      <span class={`status ${current && asks === 0 ? 'current' : ''}`} role="status" title={why ?? error}>{text}</span>
      <nav aria-label="Views">
        <button aria-pressed={place.value.view === 'events'} onClick={() => go({ view: place.value.view === 'events' ? 'todos' : 'events' })}>Events</button>
        <button onClick={() => go({ view: 'trash' })}>Trash</button>
        <button onClick={() => go({ view: 'account' })} dir="auto">{account.value?.username}</button>
        <button onClick={() => go({ view: 'keys' })} aria-label="Keys">?</button>
      </nav>
    </header>
  );
}

function Add() {
  const add = async (event: SubmitEvent) => {
    event.preventDefault();
    const field = document.getElementById('new') as HTMLInputElement;
    const title = field.value.trim();
    if (title === '') return;
    draft.text = field.value = '';
    // It belongs to what is listed: else it would vanish at once.
    const { tag, priority } = place.value;
    try {
      const id = await store().create({ title, order: lowestOrder(shown.value.values()) - 1, ...(tag && { tags: [tag] }), ...(priority && { priority: Number(priority) }) });
      if (!listed.value.some((todo) => todo.id === store().id(id))) notice.value = { text: `Added “${title}”, which the filters hide.`, action: { label: 'Show', run: () => go(NO_FILTER) } };
    } catch (error) {
      draft.text = field.value ||= title;
      failed(error);
    }
  };
  return (
    <form class="add" onSubmit={add}>
      <input id="new" defaultValue={draft.text} onInput={(event) => (draft.text = event.currentTarget.value)} dir="auto" maxLength={200} placeholder="What is to be done?" aria-label="New todo" autoComplete="off" enterkeyhint="done" />
      <button>Add</button>
    </form>
  );
}

/** On a phone, there is no room for all of them. */
const areFolded = signal(true);

function Filters() {
  const { q, done, tag, priority, due, sort } = place.value;
  const choose = (name: 'done' | 'tag' | 'priority' | 'due' | 'sort') => (event: { currentTarget: HTMLSelectElement }) => go({ [name]: event.currentTarget.value });
  return (
    <div class={`filters${areFolded.value ? ' folded' : ''}`} role="search">
      <input id="search" type="search" dir="auto" placeholder="Search" aria-label="Search" value={q} onInput={(event) => go({ q: event.currentTarget.value }, true)} />
      <button class="fold" aria-expanded={!areFolded.value} onClick={() => (areFolded.value = !areFolded.value)}>Filters{isNarrowed.value ? ' •' : ''}</button>
      <select aria-label="Which" value={done} onChange={choose('done')}>
        <option value="open">Open</option><option value="done">Done</option><option value="all">All</option>
      </select>
      <select aria-label="Due" value={due} onChange={choose('due')}>
        <option value="">Any date</option><option value="late">Overdue</option><option value="today">Due today</option><option value="some">With a date</option>
      </select>
      <select aria-label="Priority" value={priority} onChange={choose('priority')}>
        <option value="">Any priority</option>
        {PRIORITIES.map((name, value) => <option key={name} value={value}>{name}</option>)}
      </select>
      <select aria-label="Tag" value={tag} onChange={choose('tag')}>
        <option value="">Any tag</option>
        {[...new Set([...tags.value, ...(tag ? [tag] : [])])].map((name) => <option key={name} value={name}>{name}</option>)}
      </select>
      <select aria-label="Order" value={sort} onChange={choose('sort')}>
        {Object.entries(ORDERS).map(([name, { label }]) => <option key={name} value={name}>{label}</option>)}
      </select>
      <span class="count" role="status">{listed.value.length === 1 ? '1 todo' : `${listed.value.length} todos`}</span>
    </div>
  );
}

const KEYS: [string, string][] = [
  ['n', 'New todo'], ['/', 'Search'], ['↑ ↓ or k j', 'Go through the list'], ['Page Up, Page Down, Home, End', 'Go further'], ['Space or x', 'Done, or not'], ['Enter or F2', 'Edit the title'],
  ['o', 'Details and history'], ['Delete or #', 'Delete'], ['u', 'Undo what was just done'], ['Alt ↑ ↓', 'Move, in my order'], ['e', 'Events'], ['t', 'Trash'], ['a', 'Account'], ['?', 'These keys'], ['Escape', 'Close, or back to the list'],
];

function Keys() {
  return (
    <Dialog title="Keys" close={closes('keys')}>
      <label class="check"><input type="checkbox" checked={haveKeys.value} onChange={(event) => haveKeys.value = event.currentTarget.checked} />Single keys work everywhere</label>
      <dl class="keys">{KEYS.map(([keys, what]) => <div key={keys}><dt><kbd>{keys}</kbd></dt><dd>{what}</dd></div>)}</dl>
    </Dialog>
  );
}

/** Who speaks to the machine, or hits keys by accident, switches them off (WCAG 2.1.4). */
const haveKeys = signal(localStorage.getItem('keys') !== 'off');
effect(() => localStorage.setItem('keys', haveKeys.value ? 'on' : 'off'));

/** Keys that work everywhere, except where something is typed. */
function Keyboard() {
  useEffect(() => {
    const keys = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      const isTyping = target.matches('input:not([type=checkbox]), textarea, select');
      if (event.key === 'Escape' && isTyping && !document.querySelector('dialog[open]')) focusRow(listed.value[0]);
      if (!haveKeys.value || isTyping || event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
      const views: Record<string, string> = { e: place.value.view === 'events' ? 'todos' : 'events', t: 'trash', a: 'account', '?': 'keys' };
      const view = views[event.key];
      if (view) go({ view });
      else if (event.key === 'n') document.getElementById('new')?.focus();
      else if (event.key === '/') document.getElementById('search')?.focus();
      else if (event.key === 'u' && notice.value?.action) {
        notice.value.action.run();
        notice.value = undefined;
      } else return;
      event.preventDefault();
    };
    addEventListener('keydown', keys);
    return () => removeEventListener('keydown', keys);
  }, []);
  return null;
}

effect(() => {
  const open = problems.value.length;
  document.title = open > 0 ? `(${open}) Todos` : 'Todos';
});

render(<App />, document.getElementById('app')!);
start().catch((error: unknown) => {
  notice.value = { text: `This browser keeps no data for this page, which it needs. Perhaps this is a private window. (${String(error)})` };
});
// Works without a network from the second visit on. The address changes with the page's script: else an old worker would stay.
navigator.serviceWorker?.register(new URL(`${new URL(openedAt).pathname.split('/').pop()}/sw.js?${import.meta.url.split('/').pop()}`, openedAt), { scope: openedAt }).catch(() => {});
