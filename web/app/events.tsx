// What the service does with a change: committed, published to the Dapr sidecar, delivered by Kafka and the sidecar to the service's own subscription.
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { Schemas } from '../client';
import { go } from './place';
import { happened, store } from './state';

const POLL = 2000;

export function Events() {
  const ready = useSignal<Schemas['Ready'] | undefined>(undefined);
  useEffect(() => {
    const look = () => void store().call('get', '/health/ready').then(({ body }) => (ready.value = body as Schemas['Ready']), () => (ready.value = undefined));
    look();
    const timer = setInterval(look, POLL);
    return () => clearInterval(timer);
  }, []);
  const { sidecar, store: database, pending_events } = ready.value ?? {};
  return (
    <aside class="events" aria-label="Events">
      <header><h2>Events</h2><button class="icon" aria-label="Close events" onClick={() => go({ view: 'todos' })}>✕</button></header>
      <dl>
        <div><dt>Database</dt><dd>{database ?? 'not reached'}</dd></div>
        <div><dt>Dapr sidecar</dt><dd>{sidecar ?? 'not known'}</dd></div>
        <div><dt>To be published</dt><dd>{pending_events ?? 'not known'}</dd></div>
      </dl>
      {sidecar === 'away' && <p class="hint">There is no Dapr sidecar: events wait until there is one.</p>}
      {happened.value.length === 0 ? <p class="hint">Change something, here or elsewhere: its event appears here.</p> : (
        <ol>
          {happened.value.map(({ revision, event, title, at, published_at, delivered_at }) => (
            <li key={revision}>
              <p><b>{event}</b> <span dir="auto">{title}</span></p>
              <ol class="way">
                <li class="reached">committed <time dateTime={at}>{new Date(at).toLocaleTimeString()}</time></li>
                <li class={published_at ? 'reached' : ''}>published{published_at ? ` +${since(at, published_at)} ms` : ' …'}</li>
                <li class={delivered_at ? 'reached' : ''}>delivered{delivered_at ? ` +${since(at, delivered_at)} ms` : ' …'}</li>
              </ol>
            </li>
          ))}
        </ol>
      )}
    </aside>
  );
}

const since = (from: string, to: string) => Math.max(0, Date.parse(to) - Date.parse(from));
