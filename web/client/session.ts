// Logging in, and staying so: one refresh token for all tabs of a browser, an access token in the memory of each.
import { caller, explained, type Call, type Schemas, type Token } from './api';
import { guarded, locks as browserLocks, type Locks, type Store } from './store';

/** The session has ended: the user has to log in again. */
export class LoggedOut extends Error {}

/** The service has refused something, and says why. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    /** What the service says, if it was the service. */
    readonly body: unknown,
    /** When it may be tried again, in seconds. */
    readonly retryAfter = 0,
  ) {
    super(explained(body));
  }
}

interface Kept {
  refresh_token: string;
  account: Schemas['Account'];
}

type Tokens = Schemas['AccessToken'];

/** Before its end, in ms, an access token is not used any more. */
const MARGIN = 10_000;

export class Session {
  /** Called when the account is another one, or none any more; also when that happened in another tab. */
  onchange = () => {};
  /** Who is logged in. */
  account: Schemas['Account'] | undefined;
  /** Calls the service as this account. */
  readonly call: Call;

  readonly #url: string;
  readonly #store: Store;
  readonly #locks: Locks;
  readonly #anonymous: Call;
  #access: { token: string; until: number } | undefined;
  #refreshing: Promise<string> | undefined;

  private constructor(url: string, store: Store, locks: Locks) {
    [this.#url, this.#store, this.#locks] = [url, store, locks];
    this.#anonymous = caller(url);
    this.call = caller(url, (refused) => this.#token(refused));
  }

  /** Opens the session that a store has; perhaps nobody is logged in. */
  static async open(url: string, store: Store, locks: Locks = browserLocks): Promise<Session> {
    const session = new Session(url, store, locks);
    session.account = (await session.#kept())?.account;
    store.watch(async () => session.#set((await session.#kept())?.account));
    return session;
  }

  /** Creates an account; log in to it then. */
  async register(username: string, password: string): Promise<void> {
    checked(await this.#anonymous('post', '/auth/register', { body: { username, password } }));
  }

  async login(username: string, password: string): Promise<void> {
    const tokens = await this.#grant({ grant_type: 'password', username, password });
    const { body } = checked(await caller(this.#url, async () => tokens.access_token)('get', '/auth/me'));
    // Not while another tab refreshes: it would keep the session before.
    await this.#alone(() => this.#keep(tokens, body as Schemas['Account']));
  }

  /** Ends the session; everywhere: all sessions and access tokens of the account. Here it ends even if the service is not there. */
  async logout(everywhere = false): Promise<void> {
    if (everywhere) checked(await this.call('post', '/auth/logout-all'));
    await this.#alone(async () => {
      const kept = await this.#kept();
      const revoked = kept && !everywhere && this.#anonymous('post', '/auth/revoke', { body: new URLSearchParams({ token: kept.refresh_token }) });
      await Promise.resolve(revoked).catch(() => {});
      await this.#forget();
    });
  }

  /** Access tokens of an account, for what belongs to it: others who log in here do not get to see it. Rejects with {@link LoggedOut} only if the
   * service has ended the session, or somebody has. */
  tokenOf({ id }: Schemas['Account']): Token {
    return async (refused) => {
      const token = await this.#token(refused);
      if (this.account?.id !== id) throw new LoggedOut('Somebody else is logged in.');
      return token;
    };
  }

  /** An access token; another one if this one was refused. */
  async #token(refused?: string): Promise<string> {
    if (this.#access && this.#access.token !== refused && Date.now() < this.#access.until) return this.#access.token;
    return (this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = undefined)));
  }

  /** Tabs take turns, and each begins with the token that the one before has left. */
  #refresh(): Promise<string> {
    return this.#alone(async () => {
      const kept = await this.#kept();
      if (!kept) throw new LoggedOut('Nobody is logged in.');
      const { refresh_token, account } = kept;
      const tokens = await this.#grant({ grant_type: 'refresh_token', refresh_token }).catch(async (error: unknown) => {
        if (!(error instanceof Refused && (error.body as { error?: string } | undefined)?.error === 'invalid_grant')) throw error;
        await this.#forget();
        throw new LoggedOut(error.message);
      });
      await this.#keep(tokens, account);
      return tokens.access_token;
    });
  }

  async #grant(form: Record<string, string>): Promise<Tokens> {
    return checked(await this.#anonymous('post', '/auth/token', { body: new URLSearchParams(form) })).body as Tokens;
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    return this.#locks.request(`session ${this.#url}`, {}, work);
  }

  async #kept() {
    return (await this.#store.read(['session'])).get('session') as Kept | undefined;
  }

  /** The next refresh token is kept before the access token is used: what is lost in between can be asked for again. */
  async #keep({ access_token, expires_in, refresh_token }: Tokens, account: Schemas['Account']) {
    await this.#store.write(new Map([['session', { refresh_token, account }]]));
    this.#set(account);
    this.#access = { token: access_token, until: Date.now() + 1000 * (expires_in ?? 60) - MARGIN };
  }

  async #forget() {
    await this.#store.write(new Map([['session', undefined]]));
    this.#set(undefined);
  }

  #set(account: Schemas['Account'] | undefined) {
    const before = this.account?.id;
    this.account = account;
    if (before === account?.id) return;
    this.#access = undefined;
    guarded(this.onchange);
  }
}

/** An answer that is a success; others are thrown. */
export function checked<A extends { status: unknown; body: unknown; headers: Headers }>(answer: A): A {
  const status = answer.status as number;
  if (status >= 200 && status < 300) return answer;
  throw new Refused(status, answer.body, Number(answer.headers.get('Retry-After')));
}
