// Serves the page from its sources, from an origin of its own, for a service anywhere: `make web`. Each load of the page builds it again.
import http from 'node:http';
import { page } from './build.mjs';

const service = (process.env.SERVICE_URL || 'http://localhost:8000').replace(/\/+$/, '');
const port = Number(process.env.WEB_PORT || 5173);
const types = { html: 'text/html', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml', webmanifest: 'application/manifest+json' };
// As the service has it, except that the service is elsewhere.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; "
  + `form-action 'none'; frame-ancestors 'none'; connect-src 'self' ${new URL(service).origin}`;

let files;

const server = http.createServer(async (request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  if (pathname === '/') return response.writeHead(302, { Location: 'app' }).end();
  const name = pathname === '/app' ? 'index.html' : pathname.replace(/^\/app\//, '');
  try {
    if (name === 'index.html' || !files) files = await page();
    const text = files[name];
    if (text === undefined) return response.writeHead(404).end();
    const type = `${types[name.split('.').at(-1)]}; charset=utf-8`;
    response.writeHead(200, { 'Content-Type': type, 'Cache-Control': 'no-store', 'Content-Security-Policy': policy, 'Service-Worker-Allowed': '../app' });
    if (name !== 'index.html') return response.end(text);
    // Other names each time: the page's worker keeps files by their names.
    const named = text.replace(/"app\/(main\.\w+)"/g, `"app/$1?${Date.now()}"`);
    response.end(named.replace('name="service" content=""', `name="service" content="${service}"`));
  } catch (error) {
    console.error(`web: ${error.message}`);
    // No failure: the worker would show the page before instead.
    response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8', 'Content-Security-Policy': policy });
    response.end(`<!DOCTYPE html><title>The page does not build</title><pre>${error.message.replaceAll('<', '&lt;')}</pre>`);
  }
});
server.on('error', (error) => {
  console.error(`web: ${error.message}; set WEB_PORT to a free port`);
  process.exit(1);
});
server.listen(port, 'localhost', () => {
  const own = `http://localhost:${server.address().port}`;
  console.log(`web: the page is at ${own}/app, for the service at ${service} (SERVICE_URL), which has to allow ${own} (CORS_ALLOWED_ORIGINS; DEBUG=True does)`);
});
