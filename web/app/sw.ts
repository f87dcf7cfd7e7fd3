// Keeps the page for times without a network. What it asks of the service goes past this.
const worker = self as unknown as {
  addEventListener(name: string, work: (event: { request: Request; waitUntil(work: Promise<unknown>): void; respondWith(work: Promise<Response>): void }) => void): void;
  skipWaiting(): Promise<void>;
  clients: { claim(): Promise<void> };
  registration: { scope: string };
};
/** What is kept is the same for everybody. */
const ANY = { ignoreVary: true };
/** The page: this scope. Its files are below it. */
const page = worker.registration.scope;
const CACHE = `todo-page ${page}`;

/** Loads the page and the files that it names, and keeps them in place of the ones before. */
async function refresh(response: Response) {
  if (!response.ok) throw new Error(String(response.status));
  const cache = await caches.open(CACHE);
  const files = [...(await response.clone().text()).matchAll(/(?:src|href)="([^"]+)"/g)].map(([, path]) => new URL(path!, page).href);
  await cache.addAll(files.filter((file) => file.startsWith(page)));
  await cache.put(page, response);
  for (const { url } of await cache.keys()) if (url !== page && !files.includes(url)) await cache.delete(url);
}

worker.addEventListener('install', (event) => {
  event.waitUntil(fetch(page, { cache: 'no-cache' }).then(refresh).then(() => worker.skipWaiting()));
});

worker.addEventListener('activate', (event) => event.waitUntil(worker.clients.claim()));

worker.addEventListener('fetch', (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.mode === 'navigate' && origin + pathname === page) event.respondWith(open(event));
  else if (request.url.startsWith(`${page}/`)) event.respondWith(caches.match(request, ANY).then((kept) => kept ?? fetch(request)));
});

/** The newest page, or, if it does not come soon, the one that is kept. */
async function open(event: { waitUntil(work: Promise<unknown>): void }): Promise<Response> {
  const kept = await caches.match(page, ANY);
  const fresh = fetch(page, { cache: 'no-cache' }).then((response) => {
    if (!response.ok) throw new Error(String(response.status));
    return response;
  });
  event.waitUntil(fresh.then((response) => refresh(response.clone())).catch(() => {}));
  if (!kept) return fresh;
  const late = new Promise<Response>((done) => setTimeout(done, 3000, kept));
  return Promise.race([fresh, late]).catch(() => kept);
}
