// What was just done, and can be taken back; what has failed.
import { useEffect, useRef } from 'preact/hooks';
import { notice } from './state';

/** How long it is shown, in ms, unless somebody is at it. */
const SHOWN = 10_000;

export function Notice() {
  const { text, action } = notice.value ?? {};
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (text === undefined) return;
    const timer = setInterval(() => box.current?.matches(':hover, :focus-within') || (notice.value = undefined), SHOWN);
    return () => clearInterval(timer);
  }, [notice.value]);
  return (
    <div class="notice" role="status" aria-live="polite" ref={box}>
      {text !== undefined && (
        <p>
          <span dir="auto">{text}</span>
          {action && <button onClick={() => (action.run(), (notice.value = undefined))}>{action.label}</button>}
          <button class="icon" aria-label="Dismiss" onClick={() => (notice.value = undefined)}>✕</button>
        </p>
      )}
    </div>
  );
}
