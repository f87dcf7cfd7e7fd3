// Keeps a copy of a user's todos up to date. For browsers (of 2024 or newer) and Node 20.3+, with nothing to install; docs/sync.md
// explains it, and what else a client needs.

const CHANGES = ['created', 'updated', 'deleted', 'restored'];
/** Nothing for so long, in ms: two heartbeats are missing, and the connection is dead. */
const SILENCE = 35_000;
/** The longest wait, in ms, whatever the service asks for. */
const LONGEST = 300_000;

/**
 * Runs until `signal` is aborted, and rejects only if the service is not there (403, 404).
 *
 * url      of the service
 * token    async (refused) => an access token; a fresh one if the one before was refused. If it rejects, it is asked again later:
 *          who has to log in again aborts `signal`
 * copy     where the copy is kept. Nobody else changes it, and nothing is in it that the user has not sent yet
 *   since          the Sync-Token of what it has; null or undefined: nothing. Read after each of these:
 *   replace        async (todos, since): it has these todos from now on, and no others
 *   apply          async (entry, since): puts `entry.todo` in the place of the one with `entry.id`; null: removes that one
 *                  Todos have their `etag`. Both keep `since` in the same transaction
 *   forget         async (): there is no `since` any more. The todos stay until they are replaced
 * report   ({ connected, current, error }): `current`: the copy has all that there was when the stream began, and all since
 */
export async function follow({ url, token, copy, signal, report = () => {} }) {
  const base = url.replace(/\/+$/, '');
  let [refused, eager] = [false, true];
  for (let wait = 0; !signal.aborted; await pause(wait, signal)) {
    wait = 1000 + 4000 * Math.random();
    // Goes on at once, but not again and again.
    const hurry = () => eager && ([wait, eager] = [0, false]);
    let watch;
    try {
      const headers = { Authorization: `Bearer ${await token(refused)}` };
      refused = false;
      watch = watchdog(signal);
      const get = async (path, more) => {
        const response = await fetch(base + path, { headers: { ...headers, ...more }, cache: 'no-store', signal: watch.signal });
        watch.heard();
        if (response.ok) return response;
        if (response.status === 401) [refused] = [true, hurry()];
        // It can also be a date.
        const after = 1000 * Number(response.headers.get('Retry-After'));
        if (after > wait) wait = Math.min(after, LONGEST);
        throw Object.assign(new Error(`${path}: ${response.status}`), { status: response.status });
      };
      if (copy.since == null) {
        const list = await get('/todos?etags=true');
        const since = list.headers.get('Sync-Token');
        if (since === null) throw new Error('the list has no Sync-Token: is it hidden by CORS, or by a proxy?');
        let text = '';
        for await (const piece of pieces(list.body, watch.heard)) text += piece;
        await copy.replace(JSON.parse(text), since);
      }
      const stream = await get('/events', { 'Last-Event-ID': copy.since });
      let head;
      for await (const { id, event, data } of events(stream.body, watch.heard)) {
        if (event === 'ready') head = data.head;
        if (event === 'heartbeat') eager = true;
        if (CHANGES.includes(event)) {
          await copy.apply({ ...data, todo: data.todo && { ...data.todo, etag: data.etag } }, id);
          eager = true;
        }
        if (event === 'reset') await copy.forget();
        if (event === 'end') refused = data.reason.startsWith('token_');
        if (event === 'reset' || refused) hurry();
        if (event === 'reset' || event === 'end') break;
        if (copy.since === head) head = undefined;
        report({ connected: true, current: head === undefined });
      }
      report({ connected: false, current: false });
    } catch (error) {
      if (signal.aborted) return;
      report({ connected: false, current: false, error });
      if ([403, 404].includes(error.status)) throw error;
      // The service does not understand `since`.
      if (error.status === 422) await copy.forget();
    } finally {
      watch?.stop();
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

/** Reads server-sent events that have data. */
async function* events(body, heard) {
  let text = '';
  for await (const piece of pieces(body, heard)) {
    const parts = (text + piece).replaceAll('\r\n', '\n').split('\n\n');
    text = parts.pop();
    for (const part of parts) {
      // A line that begins with a colon is a comment.
      const lines = part.split('\n').map((line) => [line, line.indexOf(':')]).filter(([, colon]) => colon > 0);
      const fields = Object.fromEntries(lines.map(([line, colon]) => [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, '')]));
      if (fields.data !== undefined) yield { ...fields, data: JSON.parse(fields.data) };
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
