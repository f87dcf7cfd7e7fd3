// The focus, when what has it goes away: else whoever uses keys, or hears the page, would begin at its top again.

let last: HTMLElement | undefined;

/** Where it goes: to the neighbour in a dialog, such as the next record; to the list elsewhere. */
function near({ nextSibling, previousSibling }: MutationRecord): HTMLElement | null {
  const dialog = [...document.querySelectorAll<HTMLElement>('dialog[open]')].at(-1);
  if (!dialog) return document.querySelector<HTMLElement>('.row[tabindex="0"]') ?? document.querySelector<HTMLElement>('.list');
  const neighbour = [nextSibling, previousSibling].find((node) => node instanceof HTMLElement && dialog.contains(node)) as HTMLElement | undefined;
  // Not its buttons: a key that is pressed twice would do it twice.
  if (neighbour && neighbour.tabIndex < 0) neighbour.tabIndex = -1;
  return neighbour ?? dialog;
}

addEventListener('focusin', ({ target }) => (last = target as HTMLElement));
// Whoever leaves it for nothing, by a click beside it, has no focus to be kept. Later than the observer, which knows what has only been moved.
addEventListener('focusout', ({ target }) => setTimeout(() => {
  if (target === last && last?.isConnected && document.activeElement !== last) last = undefined;
}));

new MutationObserver((records) => {
  if (document.activeElement !== document.body || !last) return;
  const record = records.find(({ removedNodes }) => [...removedNodes].some((node) => node.contains(last!)));
  if (record) (last.isConnected ? last : near(record))?.focus({ preventScroll: true });
}).observe(document.body, { childList: true, subtree: true });
