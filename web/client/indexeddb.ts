// A store in the browser's own database.
import type { Message, Store } from './store';

const RECORDS = 'records';
/** Of so many keys others are not told one by one. */
const MANY = 500;

/** Opens, or creates, the database with this name. All tabs of an origin share it. */
export async function openStore(name: string): Promise<Store> {
  let database = await connect(name);
  let isClosed = false;
  const channel = new BroadcastChannel(name);
  const tell = (message: object) => channel.postMessage(message);

  /** Begins a transaction. Browsers close connections of pages that sleep. */
  async function begin<T>(mode: IDBTransactionMode, work: (turn: IDBTransaction) => T): Promise<T> {
    // Strict: what is kept is on the disk, since the user believes it is.
    const start = () => database.transaction(RECORDS, mode, { durability: 'strict' });
    let turn: IDBTransaction;
    try {
      turn = start();
    } catch (error) {
      if (isClosed) throw error;
      database = await connect(name, false);
      turn = start();
    }
    return work(turn);
  }

  const transaction = (work: (records: IDBObjectStore) => void) => begin('readwrite', async (turn) => {
    const ended = new Promise<void>((done, failed) => {
      turn.oncomplete = () => done();
      turn.onabort = () => failed(turn.error ?? new Error('this browser keeps no more data'));
    });
    try {
      work(turn.objectStore(RECORDS));
      // The page may be about to go: what is not committed then is lost.
      turn.commit();
    } catch (error) {
      // Else what was put before would be kept.
      turn.abort();
      await ended.catch(() => {});
      throw error;
    }
    await ended;
  });

  return {
    async read(keys) {
      return begin('readonly', async (turn) => {
        const records = turn.objectStore(RECORDS);
        if (keys) {
          const found = await Promise.all(keys.map(async (key): Promise<[string, unknown]> => [key, await result(records.get(key))]));
          return new Map(found.filter(([, record]) => record !== undefined));
        }
        const [names, values] = await Promise.all([result(records.getAllKeys()), result(records.getAll())]);
        return new Map(names.map((key, index) => [String(key), values[index]]));
      });
    },
    async write(changed) {
      const keys = changed.size > MANY ? null : [...changed.keys()];
      const writing = transaction((records) => {
        for (const [key, record] of changed) record === undefined ? records.delete(key) : records.put(record, key);
      });
      // Before it is done, too, as this tab may be closed then: whoever reads now waits for it.
      if (keys) tell({ keys });
      await writing;
      tell({ keys });
    },
    async clear() {
      await transaction((records) => records.clear());
      tell({ keys: null });
    },
    tell,
    watch(hear) {
      const listener = ({ data }: MessageEvent<Message>) => hear(data);
      channel.addEventListener('message', listener);
      return () => channel.removeEventListener('message', listener);
    },
    close() {
      isClosed = true;
      channel.close();
      database.close();
    },
  };
}

/** Not a new one in place of one that somebody has deleted: a part of the records would look like all of them. */
async function connect(name: string, mayBeNew = true): Promise<IDBDatabase> {
  const opening = indexedDB.open(name, 1);
  opening.onupgradeneeded = () => (mayBeNew ? opening.result.createObjectStore(RECORDS) : opening.transaction?.abort());
  const database = await result(opening);
  // Who deletes the database is not held up.
  database.onversionchange = () => database.close();
  return database;
}

const result = <T>(request: IDBRequest<T>) =>
  new Promise<T>((done, failed) => {
    request.onsuccess = () => done(request.result);
    request.onerror = () => failed(request.error);
  });
