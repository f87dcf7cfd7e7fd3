// Where a client keeps what it must not lose.

/** Records by their keys. Other tabs of the same browser have the same ones. */
export interface Store {
  /** All records, or those of `keys` that are there. */
  read(keys?: readonly string[]): Promise<Map<string, unknown>>;
  /** Writes all of them in one transaction, or none; `undefined` removes a record. Resolves when they are kept, and tells the other tabs. */
  write(records: ReadonlyMap<string, unknown>): Promise<void>;
  /** Removes everything, and tells the other tabs. */
  clear(): Promise<void>;
  /** Tells the other tabs something that is not kept. */
  tell(message: object): void;
  /** Hears what other tabs tell, and of their writes as `{ keys }`; no keys: read everything again. Returns how to stop that. */
  watch(hear: (message: Message) => void): () => void;
  /** Nobody uses it here any more. */
  close(): void;
}

export interface Message {
  keys?: readonly string[] | null;
  [name: string]: unknown;
}

/** Sees to it that one tab at a time does something: `navigator.locks`, unless a test has its own. */
export interface Locks {
  request<T>(name: string, options: { signal?: AbortSignal }, work: () => Promise<T>): Promise<T>;
}

/** Pages that are not served safely have no locks: there, only one tab should be open. */
export const locks: Locks = globalThis.navigator?.locks ?? { request: (_name, _options, work) => work() };

/** Calls what somebody else has set: a fault of theirs is reported, and stops nothing here. */
export function guarded<T extends unknown[]>(callback: (...given: T) => void, ...given: T) {
  try {
    callback(...given);
  } catch (error) {
    console.error(error);
  }
}
