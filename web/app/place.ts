// Where the user is: the view and its filters, which are in the address, so that they can be reloaded, linked to and gone back from.
import { computed, signal } from '@preact/signals';

export interface Place {
  view: string;
  /** The todo whose details are open. */
  todo: string;
  q: string;
  done: string;
  tag: string;
  priority: string;
  due: string;
  sort: string;
}

const NOWHERE: Place = { view: 'todos', todo: '', q: '', done: 'open', tag: '', priority: '', due: '', sort: 'own' };

/** The address without what follows: of the page itself. */
export const openedAt = new URL(location.pathname, location.href).href;

const address = signal(location.search);
addEventListener('popstate', () => (address.value = location.search));

export const place = computed<Place>(() => ({ ...NOWHERE, ...Object.fromEntries(new URLSearchParams(address.value)) }));

/** Whether anything narrows the list, besides that what is done is not in it. */
export const isNarrowed = computed(() => (['q', 'tag', 'priority', 'due', 'done'] as const).some((name) => place.value[name] !== NOWHERE[name]));

/** Closes what is open, so that going back does not open it again. */
export const leave = (change: Partial<Place>) => go(change, true);

/** Closes a view, unless the user is somewhere else already: dialogs say late that they are closed. */
export const closes = (view: string) => () => place.peek().view === view && leave({ view: 'todos' });

/** Goes somewhere; `replace`: without a step to go back, as while somebody types. */
export function go(change: Partial<Place>, replace = false) {
  const next = { ...place.peek(), ...change };
  const search = new URLSearchParams(Object.entries(next).filter(([name, value]) => value !== NOWHERE[name as keyof Place]));
  const url = openedAt + (search.size > 0 ? `?${search}` : '');
  history[replace ? 'replaceState' : 'pushState'](null, '', url);
  address.value = location.search;
}

/** The view and the filters that the page begins with. */
export const reset = () => {
  history.replaceState(null, '', openedAt);
  address.value = '';
};

export const { todo: _, view: __, ...NO_FILTER } = NOWHERE;
