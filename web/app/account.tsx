// Logging in, and what belongs to the account: its password, its sessions, its tokens for scripts, and its end.
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { Refused, type Schemas } from '../client';
import { Dialog, isSure } from './dialog';
import { closes } from './place';
import { account, ask, ended, failed, logout, notice, service, session, today, unanswered } from './state';

export function Login() {
  const isNew = useSignal(false);
  const busy = useSignal(false);
  const wrong = useSignal('');
  const name = useRef<HTMLInputElement>(null);
  useEffect(() => name.current?.focus(), []);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (busy.value) return;
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const [name, password] = [String(form.get('username')), String(form.get('password'))];
    busy.value = true;
    wrong.value = '';
    try {
      if (isNew.value) await session.value!.register(name, password);
      await session.value!.login(name, password);
      ended.value = false;
      // What the user does should stay here, also when the disk is nearly full.
      void navigator.storage?.persist?.();
    } catch (error) {
      wrong.value = error instanceof TypeError ? 'The service cannot be reached.' : (error as Error).message;
    }
    busy.value = false;
  };
  return (
    <main class="login">
      <h1>Todos</h1>
      {ended.value && <p role="status">You have been logged out. Log in again to go on.</p>}
      <form onSubmit={submit}>
        <label>Name<input ref={name} name="username" autoComplete="username" required maxLength={64} autoCapitalize="none" spellcheck={false} /></label>
        <label>Password
          <input name="password" type="password" required autoComplete={isNew.value ? 'new-password' : 'current-password'} minLength={isNew.value ? 8 : undefined} />
        </label>
        {isNew.value && <p class="hint">At least 8 characters. Long is better than complicated.</p>}
        {wrong.value !== '' && <p class="wrong" role="alert">{wrong.value}</p>}
        <button aria-disabled={busy.value}>{isNew.value ? 'Create account' : 'Log in'}</button>
        <button type="button" class="link" onClick={() => (isNew.value = !isNew.value)}>{isNew.value ? 'I have an account' : 'Create an account'}</button>
      </form>
      <p class="hint">{service}</p>
    </main>
  );
}

/** Something of the service that is read when it is shown, and again after `reload`. */
function useRead<T>(read: () => Promise<{ body: unknown }>) {
  const value = useSignal<T | string>('Loading…');
  const reload = () => void read().then(({ body }) => (value.value = body as T), (error: Error) => (value.value = error instanceof TypeError ? 'This needs the service, which cannot be reached.' : error.message));
  useEffect(reload, []);
  return { value: value.value, reload };
}

export function Account() {
  const call = session.value!.call;
  const go = async (everywhere: boolean) => {
    if (unanswered.value > 0 && !isSure(`${unanswered.value} changes are only in this browser, and would be lost. Log out?`)) return;
    await logout((opened) => opened.logout(everywhere)).catch(failed);
  };
  const download = async () => {
    try {
      const token = await session.value!.tokenOf(account.value!)();
      const response = await fetch(`${service}/export`, { headers: { Authorization: `Bearer ${token}` } });
      if (!response.ok) throw new Refused(response.status, undefined);
      const href = URL.createObjectURL(await response.blob());
      Object.assign(document.createElement('a'), { href, download: `todos-${today()}.ndjson` }).click();
      setTimeout(() => URL.revokeObjectURL(href), 60_000);
    } catch (error) {
      failed(error);
    }
  };
  const password = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const [current_password, new_password] = ['old', 'new'].map((name) => String(new FormData(form).get(name)));
    try {
      await ask(call('post', '/auth/password', { body: { current_password: current_password!, new_password: new_password! } }));
      form.reset();
      notice.value = { text: 'You have a new password. Other sessions have ended.' };
    } catch (error) {
      failed(error);
    }
  };
  const end = async (event: SubmitEvent) => {
    event.preventDefault();
    const password = String(new FormData(event.currentTarget as HTMLFormElement).get('password'));
    if (!isSure('Delete the account with all its todos, for good?')) return;
    try {
      await logout(async (opened) => {
        await ask(opened.call('delete', '/auth/me', { body: { password } }));
        await opened.logout();
      });
    } catch (error) {
      failed(error);
    }
  };
  return (
    <Dialog title={`Account ${account.value?.username}`} className="drawer" close={closes('account')}>
      <div class="buttons">
        <button onClick={() => go(false)}>Log out</button>
        <button onClick={() => go(true)}>Log out everywhere</button>
        <button onClick={download}>Export all todos</button>
      </div>
      <Sessions />
      <Tokens />
      <section>
        <h3>Password</h3>
        <form onSubmit={password}>
          <label>Present password<input name="old" type="password" required autoComplete="current-password" /></label>
          <label>New password<input name="new" type="password" required minLength={8} autoComplete="new-password" /></label>
          <button>Change password</button>
        </form>
      </section>
      <section>
        <h3>End of the account</h3>
        <form onSubmit={end}>
          <label>Password<input name="password" type="password" required autoComplete="current-password" /></label>
          <button class="danger">Delete account</button>
        </form>
      </section>
    </Dialog>
  );
}

const when = (time: string) => <time dateTime={time}>{new Date(time).toLocaleString()}</time>;

function Sessions() {
  const call = session.value!.call;
  const { value, reload } = useRead<Schemas['SessionDetails'][]>(() => ask(call('get', '/auth/sessions')));
  return (
    <section>
      <h3>Sessions</h3>
      {typeof value === 'string' ? <p>{value}</p> : (
        <ul class="records">
          {value.map(({ id, user_agent, used_at, current }) => (
            <li key={id}>
              <span title={user_agent ?? ''}>{browserOf(user_agent)}{current ? ' (this one)' : ''}<small>last seen {when(used_at)}</small></span>
              {!current && <button onClick={() => ask(call('delete', '/auth/sessions/{id}', { path: { id } })).then(reload, failed)}>End</button>}
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

/** What a person calls a client. */
function browserOf(agent: string | null | undefined): string {
  if (!agent) return 'an unknown client';
  const [, browser] = /(Firefox|Edg|OPR|Chrome|Safari)/.exec(agent) ?? [];
  const [, system] = /(Android|iPhone|iPad|Mac OS X|Windows|CrOS|Linux)/.exec(agent) ?? [];
  const names: Record<string, string> = { Edg: 'Edge', OPR: 'Opera', 'Mac OS X': 'macOS', CrOS: 'ChromeOS' };
  return browser && system ? `${names[browser] ?? browser} on ${names[system] ?? system}` : agent;
}

function Tokens() {
  const call = session.value!.call;
  const { value, reload } = useRead<Schemas['PersonalTokenDetails'][]>(() => ask(call('get', '/auth/tokens')));
  const made = useSignal('');
  const create = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const given = new FormData(form);
    try {
      const { body } = await ask(call('post', '/auth/tokens', { body: { name: String(given.get('name')), scope: given.get('scope') as 'read' | 'write' } }));
      made.value = (body as { token: string }).token;
      form.reset();
      reload();
    } catch (error) {
      failed(error);
    }
  };
  return (
    <section>
      <h3>Tokens for scripts</h3>
      {typeof value === 'string' ? <p>{value}</p> : (
        <ul class="records">
          {value.map(({ id, name, scope, used_at }) => (
            <li key={id}>
              <span><span dir="auto">{name}</span> ({scope})<small>{used_at ? <>last used {when(used_at)}</> : 'never used'}</small></span>
              <button onClick={() => ask(call('delete', '/auth/tokens/{id}', { path: { id } })).then(reload, failed)}>Revoke</button>
            </li>
          ))}
        </ul>
      )}
      {made.value !== '' && <p role="status">Copy it now, it is not shown again: <code>{made.value}</code></p>}
      <form onSubmit={create}>
        <label>Name<input name="name" required maxLength={100} /></label>
        <label>May<select name="scope"><option value="read">read</option><option value="write">read and write</option></select></label>
        <button>Create token</button>
      </form>
    </section>
  );
}
