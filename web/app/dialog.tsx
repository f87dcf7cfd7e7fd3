// What lies on top of the page: it has the focus while it is open, and gives it back.
import { signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { Notice } from './notice';

/** How many are open: whoever says something says it there. */
export const dialogs = signal(0);

export function Dialog({ title, className = '', close, children }: { title: string; className?: string; close: () => unknown; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
    dialogs.value += 1;
    return () => {
      dialogs.value -= 1;
    };
  }, []);
  return (
    <dialog
      ref={dialog} class={className} tabIndex={-1} aria-label={title} onClose={close} onKeyDown={(event) => event.stopPropagation()}
      onClick={(event) => event.target === dialog.current && dialog.current?.close()}
    >
      <div class="content">
        <header><h2>{title}</h2><button class="icon" aria-label="Close" onClick={() => dialog.current?.close()}>✕</button></header>
        {children}
      </div>
      <Notice />
    </dialog>
  );
}

/** Asks before something that can't be taken back. */
export const isSure = (question: string) => confirm(question);
