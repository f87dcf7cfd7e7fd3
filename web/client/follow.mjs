// Keeps a copy of a user's todos up to date. For browsers (of 2024 or newer) and Node 20.3+, with nothing to install or to
// build; docs/sync.md explains it, and what else a client needs.

const CHANGES = ['created', 'updated', 'deleted', 'restored'];
/** Nothing for so long, in ms: two heartbeats are missing, and the connection is dead. */
const SILENCE = 35_000;
/** The longest wait, in ms, whatever the service asks for. */
const LONGEST = 300_000;

/**
 * @typedef {import('./openapi').components['schemas']} Schemas
 * @typedef {Schemas['Entry']} Entry
 * @typedef {Schemas['Todo'] & { etag: string }} Todo
 */

/**
 * Where the copy is kept. Nobody else changes it, and nothing is in it that the user has not sent yet.
 * `replace` and `apply` keep `since` in the same transaction.
 *
 * @typedef {object} Copy
 * @property {string | null | undefined} since the Sync-Token of what it has, nothing: it has nothing. Read after each of these
 * @property {(todos: Todo[], since: string) => Promise<void>} replace it has these todos from now on, and no others
 * @property {(entries: Entry[], since: string) => Promise<void>} apply for each of them: puts `todo` in the place of the one with
 *   its `id`, or removes that one if `todo` is null. Todos have their `etag`
 * @property {() => Promise<void>} forget there is no `since` any more. The todos stay until they are replaced
 * @property {() => Promise<unknown>} [listing] a list is about to be asked for: what is answered meanwhile may not be in it
 * @property {boolean} [net] whether it is enough to hear of the last change of each todo, and not of each change
 */

/**
 * @typedef {object} Options
 * @property {string} url of the service
 * @property {(refused?: string) => Promise<string>} token an access token; a fresh one if this one was refused. If it rejects, it is
 *   asked again later: who has to log in again aborts `signal`
 * @property {Copy} copy
 * @property {AbortSignal} signal
 * @property {(report: { current: boolean, error?: Error & { status?: number } }) => void} [report] `current`: the copy has all that
 *   there was a moment ago, and what comes is added at once
 * @property {(delivery: { revision: number, published_at?: string, delivered_at?: string }) => void} [delivered] hears how far events
 *   have come
 */

/**
 * Runs until `signal` is aborted.
 *
 * @param {Options} options
 */
export async function follow({ url, token, copy, signal, report = () => {}, delivered }) {
  const base = url.replace(/\/+$/, '');
  /** @type {string | undefined} */
  let refused;
  let eager = true;
  for (let wait = 0; !signal.aborted; await pause(wait, signal)) {
    wait = 1000 + 4000 * Math.random();
    // Goes on at once, but not again and again.
    const hurry = () => eager && ([wait, eager] = [0, false]);
    const watch = watchdog(signal);
    try {
      const access = await token(refused);
      refused = undefined;
      const get = async (/** @type {string} */ path, more = {}) => {
        const headers = { Authorization: `Bearer ${access}`, ...more };
        const response = await fetch(base + path, { headers, cache: 'no-store', signal: watch.signal });
        watch.heard();
        if (response.ok && response.body) return { headers: response.headers, text: pieces(response.body, watch.heard) };
        if (response.status === 401) [refused] = [access, hurry()];
        // It can also be a date.
        const after = 1000 * Number(response.headers.get('Retry-After'));
        if (after > wait) wait = Math.min(after, LONGEST);
        throw Object.assign(new Error(`${path}: ${response.status}`), { status: response.status });
      };
      if (copy.since == null) {
        await copy.listing?.();
        const list = await get('/todos?etags=true');
        const since = list.headers.get('Sync-Token');
        if (since === null) throw new Error('the list has no Sync-Token: is it hidden by CORS, or by a proxy?');
        await copy.replace(await json(list.text), since);
      } else {
        for (let more = true; more; ) {
          const missed = await get(`/changes?since=${encodeURIComponent(copy.since)}${copy.net ? '&net=true' : ''}`);
          const { changes, next, has_more } = await json(missed.text);
          await copy.apply(changes.map(tagged), next);
          more = has_more;
        }
      }
      report({ current: true });
      const stream = await get(delivered ? '/events?delivery=true' : '/events', { 'Last-Event-ID': copy.since }).catch((error) => {
        throw Object.assign(error, { isOfStream: error.status !== undefined && error.status !== 401 });
      });
      reading: for await (const happened of events(stream.text)) {
        const changes = happened.filter(({ event }) => CHANGES.includes(event));
        const last = changes.at(-1);
        if (last) await copy.apply(changes.map(({ data }) => tagged(data)), last.id);
        for (const { event, data } of happened) {
          if (event === 'delivery') delivered?.(data);
          else if (event !== 'ready' && event !== 'reset' && event !== 'end') eager = true;
          if (event === 'reset') await copy.forget();
          if (event === 'end' && data.reason.startsWith('token_')) refused = access;
          if (event === 'reset' || refused) hurry();
          if (event === 'reset' || event === 'end') break reading;
        }
      }
      report({ current: false });
    } catch (thrown) {
      if (signal.aborted) return;
      const error = /** @type {Error & { status?: number, isOfStream?: boolean }} */ (thrown);
      // Without a stream, it is asked for changes again soon.
      report({ current: error.isOfStream === true, error });
      // There is a gap, or the service does not understand `since`.
      if (error.status === 410 || error.status === 422) await copy.forget().then(hurry, () => {});
    } finally {
      watch.stop();
    }
  }
}

const tagged = (/** @type {any} */ entry) => ({ ...entry, todo: entry.todo && { ...entry.todo, etag: entry.etag } });

/**
 * Reads text; calls `heard` for each piece.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @param {() => void} heard
 */
async function* pieces(body, heard) {
  const reader = body.pipeThrough(/** @type {ReadableWritablePair<string, Uint8Array>} */ (new TextDecoderStream())).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    yield value;
  }
}

const json = async (/** @type {AsyncIterable<string>} */ text) => {
  let all = '';
  for await (const piece of text) all += piece;
  return JSON.parse(all);
};

/**
 * Reads server-sent events that have data: those of each piece.
 *
 * @param {AsyncIterable<string>} pieces
 */
async function* events(pieces) {
  let text = '';
  for await (const piece of pieces) {
    const parts = (text + piece).replaceAll('\r\n', '\n').split('\n\n');
    text = parts.pop() ?? '';
    const found = parts.map((part) => {
      // A line that begins with a colon is a comment.
      const lines = part.split('\n').map((line) => ({ line, colon: line.indexOf(':') })).filter(({ colon }) => colon > 0);
      return Object.fromEntries(lines.map(({ line, colon }) => [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, '')]));
    });
    yield found.flatMap(({ id = '', event = '', data }) => (data === undefined ? [] : [{ id, event, data: JSON.parse(data) }]));
  }
}

/**
 * Aborts its signal after silence. Clocks of sleeping machines and hidden pages stand still: whoever wakes up looks, too.
 *
 * @param {AbortSignal} outer
 */
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

/**
 * Waits so many ms, or until `signal` is aborted.
 *
 * @param {number} wait
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export const pause = (wait, signal) => new Promise((done) => {
  if (signal.aborted) return done();
  const end = () => (clearTimeout(timer), signal.removeEventListener('abort', end), done());
  const timer = setTimeout(end, wait);
  signal.addEventListener('abort', end);
});
