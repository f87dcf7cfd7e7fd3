// A field that keeps what is being typed, whatever happens to the todo meanwhile, and saves it when it is left.
import { useLayoutEffect, useRef } from 'preact/hooks';
import type { Shown } from '../client';

type Props = {
  todo: Shown;
  value: string;
  /** Gets the todo as it was when the typing began: others may have changed it since. */
  save: (text: string, saw: Shown) => void;
  as?: 'input' | 'textarea';
  /** Called after Enter and Escape, which gives up what was typed. */
  done?: () => void;
  required?: boolean;
  type?: string;
  rows?: number;
  maxLength?: number;
  'aria-label'?: string;
};

export function Field({ todo, value, save, as = 'input', done, required = false, ...attributes }: Props) {
  const Tag = as as 'input';
  const field = useRef<HTMLInputElement>(null);
  /** As it is shown: what another field has just saved is in it. */
  const latest = useRef({ todo, value });
  latest.current = { todo, value };
  const began = useRef<{ todo: Shown; value: string } | undefined>(undefined);
  const show = (text: string) => field.current && field.current.value !== text && (field.current.value = text);
  useLayoutEffect(() => {
    if (document.activeElement !== field.current) show(value);
  }, [value]);
  useLayoutEffect(() => {
    if (!done) return;
    field.current?.focus();
    field.current?.select();
  }, []);
  const end = () => {
    const { todo: saw, value: before } = began.current ?? {};
    began.current = undefined;
    // A date that is half typed is none.
    const text = field.current?.validity.badInput ? undefined : field.current?.value;
    if (!saw || text === undefined || text === before || (required && text.trim() === '')) show(value);
    else save(text, saw);
  };
  return (
    <Tag
      ref={field} dir="auto" {...(attributes as object)} defaultValue={value}
      onInput={() => queueMicrotask(() => (began.current ??= latest.current))} onBlur={end}
      onKeyDown={(event: KeyboardEvent) => {
        // Not the Enter that ends the composition of a character.
        if (event.isComposing || event.keyCode === 229) return;
        if (event.key === 'Enter' && as === 'input') {
          end();
          done?.();
        }
        if (event.key === 'Escape' && done) {
          began.current = undefined;
          done();
        }
        if (done) event.stopPropagation();
      }}
    />
  );
}
