// What lies on top of the page: it has the focus while it is open, and gives it back.
import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';

export function Dialog({ title, className = '', close, children }: { title: string; className?: string; close: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    dialog.current?.showModal();
    return () => (before?.isConnected ? before : document.querySelector<HTMLElement>('.row[tabindex="0"]'))?.focus();
  }, []);
  return (
    <dialog
      ref={dialog} class={className} aria-label={title} onClose={close} onKeyDown={(event) => event.stopPropagation()}
      onClick={(event) => event.target === dialog.current && dialog.current?.close()}
    >
      <div class="content">
        <header><h2>{title}</h2><button class="icon" aria-label="Close" onClick={() => dialog.current?.close()}>✕</button></header>
        {children}
      </div>
    </dialog>
  );
}

/** Asks before something that can't be taken back. */
export const isSure = (question: string) => confirm(question);
