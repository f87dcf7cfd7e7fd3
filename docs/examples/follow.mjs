// Keeps a copy of a user's todos up to date. For browsers and Node 20+, with nothing to install; docs/sync.md explains it.

const CHANGES = ['created', 'updated', 'deleted', 'restored'];
/** Nothing for so long, in ms: two heartbeats are missing, and the connection is dead. */
const SILENCE = 35_000;

/**
 * Runs until `signal` is aborted.
 *
 * url      of the service
 * token    async (refused) => an access token; a fresh one if the one before was refused
 * copy     where the copy is kept, in which nothing is that the user has not sent yet:
 *   since          the Sync-Token of what it has; null: nothing
 *   replace        async (todos, since): it has these todos from now on, and no others
 *   apply          async (entry, since): puts `entry.todo` in the place of the one with `entry.id`; null: removes that one
 *                  Both keep `since` in the same transaction.
 *   forget         async (): sets `since` to null. The todos stay until they are replaced.
 */
export async function follow({ url, token, copy, signal }) {
  let refused = false;
  for (let wait = 0; !signal.aborted; await pause(wait, signal)) {
    wait = 1000 + 4000 * Math.random();
    const watch = watchdog(signal);
    const get = async (path, headers) => {
      const response = await fetch(url + path, { headers, cache: 'no-store', signal: watch.signal });
      watch.heard();
      if (response.status === 401 && !refused) [refused, wait] = [true, 0];
      // It can also be a date.
      else wait = Math.max(wait, 1000 * (Number(response.headers.get('Retry-After')) || 0));
      if (!response.ok) throw new Error(`${path}: ${response.status}`);
      refused = false;
      return response;
    };
    try {
      const headers = { Authorization: `Bearer ${await token(refused)}` };
      if (copy.since === null) {
        const list = await get('/todos?etags=true', headers);
        let text = '';
        for await (const piece of pieces(list.body, watch.heard)) text += piece;
        await copy.replace(JSON.parse(text), list.headers.get('Sync-Token'));
      }
      const stream = await get('/events', { ...headers, 'Last-Event-ID': copy.since });
      for await (const { id, event, data } of events(stream.body, watch.heard)) {
        if (CHANGES.includes(event)) await copy.apply(data, id);
        if (event === 'reset') await copy.forget();
        if (event === 'end') refused = data.reason.startsWith('token_');
        if (event === 'reset' || refused) wait = 0;
      }
    } catch (error) {
      // No network, or an answer that is none: again, later.
      console.debug('todos are not followed:', error);
    } finally {
      watch.stop();
    }
  }
}

/** Reads text; calls `heard` for each piece. */
async function* pieces(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    yield value;
  }
}

/** Reads server-sent events. */
async function* events(body, heard) {
  let text = '';
  for await (const piece of pieces(body, heard)) {
    const parts = (text + piece).split('\n\n');
    text = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split('\n').map((line) => line.split(/: (.*)/, 2)));
      yield { ...fields, data: JSON.parse(fields.data) };
    }
  }
}

/** Aborts its signal after silence. Clocks of sleeping machines and hidden pages stand still: whoever wakes up looks, too. */
function watchdog(outer) {
  const own = new AbortController();
  let last = Date.now();
  const look = () => Date.now() - last > SILENCE && own.abort(new Error('nothing was heard'));
  const timer = setInterval(look, 5000);
  const wakings = ['online', 'pageshow', 'visibilitychange'];
  wakings.forEach((name) => globalThis.addEventListener?.(name, look, true));
  return {
    signal: AbortSignal.any([outer, own.signal]),
    heard: () => (last = Date.now()),
    stop: () => {
      own.abort();
      clearInterval(timer);
      wakings.forEach((name) => globalThis.removeEventListener?.(name, look, true));
    },
  };
}

const pause = (wait, signal) => new Promise((done) => {
  if (signal.aborted) return done();
  const end = () => (clearTimeout(timer), signal.removeEventListener('abort', end), done());
  const timer = setTimeout(end, wait);
  signal.addEventListener('abort', end);
});
