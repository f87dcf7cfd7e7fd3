// The user's own order: the field `order`, smaller is first; todos without it come last, by id, as the service sorts them.
import type { Shown } from '../client';

/** Of so many todos that have no order yet, each is given one to put another among them. */
const MAX_ORDERED = 500;

/** What is put before all others has less. */
export function lowestOrder(todos: Iterable<Shown>) {
  let lowest = 0;
  for (const { order } of todos) if (order != null && order < lowest) lowest = order;
  return lowest;
}

/** The orders to give so that `todo` is at the place `to` of `list`, which is sorted by them: mostly one, between those of its neighbours. */
export function placed(list: readonly Shown[], todo: Shown, to: number): [Shown, number][] {
  const rest = list.filter((other) => other !== todo);
  const [above, below] = [rest[to - 1], rest[to]];
  const [high, low] = [above?.order, below?.order];
  const middle = high == null ? (low ?? 0) - 1 : low == null ? high + 1 : (high + low) / 2;
  if ((above === undefined || high != null) && (high == null || middle > high) && (low == null || middle < low)) return [[todo, middle]];
  // Those above it that have none get one, too, and those behind it as far as they are in the way.
  const moved = [...rest.slice(0, to), todo, ...rest.slice(to)];
  const unordered = rest.slice(0, to).findIndex(({ order }) => order == null);
  const first = unordered < 0 ? to : unordered;
  if (to - first > MAX_ORDERED) throw new Error(`Above it are ${to - first} todos that nobody has put in an order yet: choose a place higher up.`);
  const given: [Shown, number][] = [];
  let last = moved[first - 1]?.order ?? lowestOrder(list) - 1;
  for (const [index, other] of moved.entries()) {
    if (index < first) continue;
    if (index > to && (other.order == null || other.order > last)) break;
    last += 1;
    given.push([other, last]);
  }
  return given;
}
