// Calls of the service, with types from its OpenAPI document: only what the document has compiles.
import type { components, paths } from './openapi';

export type Schemas = components['schemas'];
export type Method = 'get' | 'post' | 'put' | 'patch' | 'delete';

type Content = { 'application/json': unknown } | { 'application/x-www-form-urlencoded': unknown };
type Media<T extends Content> = T[keyof T];
type Operation<P extends keyof paths, M extends Method> = NonNullable<paths[P][M]>;
type Json<T> = T extends { content: { 'application/json': infer B } } ? B : undefined;
type Body<O> = O extends { requestBody?: infer R } ? (NonNullable<R> extends { content: infer C extends Content } ? Media<C> : never) : undefined;
type Path<O> = O extends { parameters: { path: infer P } } ? P : undefined;
type Query<O> = O extends { parameters: { query?: infer Q } } ? Q : undefined;

/** One member for each status that the document has for an operation, told apart by it. */
export type Answer<O> = O extends { responses: infer R } ? { [S in keyof R]: { status: S; body: Json<R[S]>; headers: Headers } }[keyof R] : never;

/** What is sent. `body` goes as JSON, except that a URLSearchParams is a form. */
export interface Send<O> {
  path?: Path<O>;
  query?: Query<O>;
  body?: Body<O> | URLSearchParams;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** Returns an access token; a fresh one if this one was refused. */
export type Token = (refused?: string) => Promise<string>;

/** Calls an operation. Rejects if there is no answer within {@link PATIENCE}. */
export type Call = <P extends keyof paths, M extends Method>(method: M, path: P, send?: Send<Operation<P, M>>) => Promise<Answer<Operation<P, M>>>;

/** How long an answer may take, in ms. */
export const PATIENCE = 30_000;

/** Calls the service at `url`. With `token`, it is asked for a fresh one and the call repeated if the first one is refused. */
export function caller(url: string, token?: Token): Call {
  const base = url.replace(/\/+$/, '');
  return async (method, path, send = {}) => {
    const { query, body } = send;
    const values: Record<string, unknown> = { ...(send.path as object | undefined) };
    const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(values[name])));
    const search = new URLSearchParams();
    for (const [name, some] of Object.entries(query ?? {})) {
      for (const value of [some].flat()) if (value !== undefined) search.append(name, String(value));
    }
    const isForm = body instanceof URLSearchParams;
    const init: RequestInit = { method: method.toUpperCase(), cache: 'no-store' };
    if (body !== undefined) init.body = isForm ? body : JSON.stringify(body);
    for (let refused: string | undefined; ; ) {
      const headers = new Headers(send.headers);
      if (body !== undefined && !isForm) headers.set('Content-Type', 'application/json');
      const access = await token?.(refused);
      if (access !== undefined) headers.set('Authorization', `Bearer ${access}`);
      const signal = AbortSignal.any([AbortSignal.timeout(PATIENCE), ...(send.signal ? [send.signal] : [])]);
      const response = await fetch(`${base}${filled}${search.size > 0 ? `?${search}` : ''}`, { ...init, headers, signal });
      if (response.status === 401 && access !== undefined && refused === undefined) {
        refused = access;
        continue;
      }
      const text = await response.text();
      const isJson = /^application\/([\w.-]+\+)?json\b/.test(response.headers.get('Content-Type') ?? '');
      // What the service does not say itself, such as a proxy's page, has no body here.
      return { status: response.status, body: isJson && text !== '' ? JSON.parse(text) : undefined, headers: response.headers } as never;
    }
  };
}

/** What an error says. */
export function explained(body: unknown): string {
  const detail = (body as { detail?: string | Schemas['ValidationError'][]; error_description?: string } | undefined)?.detail;
  return Array.isArray(detail) ? detail.map(({ loc, msg }) => `${loc.slice(1).join('.')}: ${msg}`).join('; ') : (detail ?? 'The service has refused it.');
}
