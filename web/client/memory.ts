// A store for programs and tests.
import type { Message, Store } from './store';

/** Keeps records as long as the page is open, or the process runs. Several clients can share one, as tabs do. */
export class Memory {
  readonly #records = new Map<string, unknown>();
  readonly #watchers = new Map<object, (message: Message) => void>();

  /** The store as another tab has it. */
  tab(): Store {
    const self = {};
    const tell = (message: Message) => {
      for (const [other, hear] of this.#watchers) if (other !== self) queueMicrotask(() => hear(structuredClone(message)));
    };
    return {
      read: async (keys = [...this.#records.keys()]) =>
        new Map(keys.filter((key) => this.#records.has(key)).map((key) => [key, structuredClone(this.#records.get(key))])),
      write: async (records) => {
        for (const [key, record] of structuredClone(records)) {
          if (record === undefined) this.#records.delete(key);
          else this.#records.set(key, record);
        }
        tell({ keys: [...records.keys()] });
      },
      clear: async () => {
        this.#records.clear();
        tell({ keys: null });
      },
      tell,
      watch: (hear) => {
        this.#watchers.set(self, hear);
        return () => this.#watchers.delete(self);
      },
      close: () => this.#watchers.delete(self),
    };
  }
}
