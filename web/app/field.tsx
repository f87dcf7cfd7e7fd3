// A field that keeps what is being typed, whatever happens to the todo meanwhile, and saves it when it is left.
import { signal } from '@preact/signals';
import { useLayoutEffect, useRef } from 'preact/hooks';
import type { Shown } from '../client';
import { failed } from './state';

/** Whether something is typed that is not saved yet. */
export const typing = signal(false);

type Props = {
  todo: Shown;
  value: string;
  /** Gets the todo as it was when the typing began: others may have changed it since. */
  save: (text: string, saw: Shown) => Promise<void>;
  as?: 'input' | 'textarea';
  /** Called after Enter and Escape, which gives up what was typed. */
  done?: () => void;
  required?: boolean;
  type?: string;
  rows?: number;
  max?: string;
  maxLength?: number;
  'aria-label'?: string;
};

export function Field({ todo, value, save, as = 'input', done, required = false, ...attributes }: Props) {
  const Tag = as as 'input';
  const field = useRef<HTMLInputElement>(null);
  const latest = useRef({ todo, value });
  latest.current = { todo, value };
  /** What was shown when the typing began. */
  const began = useRef<{ todo: Shown; value: string } | undefined>(undefined);
  const show = (text: string) => field.current && field.current.value !== text && (field.current.value = text);
  useLayoutEffect(() => {
    if (began.current) return;
    show(value);
    if (done && document.activeElement === field.current) field.current?.select();
  }, [value]);
  useLayoutEffect(() => {
    if (!done) return;
    field.current?.focus();
    field.current?.select();
  }, []);
  const begin = () => {
    typing.value = true;
    const shown = (began.current ??= latest.current);
    // What another field has just saved is about to be rendered.
    queueMicrotask(() => began.current === shown && latest.current.value === shown.value && (began.current = latest.current));
  };
  /** Saves what is typed; unless it is left, what can't be saved stays as it is. */
  const end = (isLeft = true) => {
    const { todo: saw, value: before } = began.current ?? {};
    const { validity, value: typed } = field.current ?? {};
    // A date that is half typed, or in the year 12345, is none.
    const text = validity?.badInput || validity?.rangeOverflow ? undefined : typed;
    const isChange = saw && text !== undefined && text !== before && !(required && text.trim() === '');
    if (!isChange && !isLeft) return;
    began.current = undefined;
    typing.value = false;
    if (!isChange) show(value);
    else save(text, saw).catch((error: Error) => failed(error, `“${text}” is not saved: `));
  };
  const leave = useRef(end);
  leave.current = end;
  // It may go while something is typed: others have changed what is listed, or the user goes back, or leaves the page.
  useLayoutEffect(() => {
    const end = () => document.visibilityState === 'hidden' && leave.current(false);
    const gone = () => leave.current();
    document.addEventListener('visibilitychange', end);
    addEventListener('pagehide', gone);
    return () => {
      document.removeEventListener('visibilitychange', end);
      removeEventListener('pagehide', gone);
      leave.current();
    };
  }, []);
  return (
    <Tag
      ref={field} dir="auto" {...(attributes as object)} defaultValue={value}
      onInput={begin} onBlur={() => end()}
      onKeyDown={(event: KeyboardEvent) => {
        // Not the Enter that ends the composition of a character.
        if (event.isComposing || event.keyCode === 229) return;
        if (event.key === 'Enter' && as === 'input') {
          end();
          done?.();
        }
        if (event.key === 'Escape' && done) {
          began.current = undefined;
          typing.value = false;
          done();
        }
        if (done) event.stopPropagation();
      }}
    />
  );
}
