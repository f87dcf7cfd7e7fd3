// Builds the page into the service's sources, where cargo takes it from: `npm run build`. With --check, says what is not as it would be built.
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = fileURLToPath(new URL('.', import.meta.url));
const assets = join(here, '../src/api/page/assets');

/** The files of the page, by name. */
export async function page() {
  const options = { bundle: true, minify: true, target: ['es2022', 'chrome123', 'firefox120', 'safari17.5'], write: false, legalComments: 'none', charset: 'utf8' };
  const scripts = { format: 'esm', jsx: 'automatic', jsxImportSource: 'preact', ...options };
  const built = await Promise.all([
    build({ ...scripts, stdin: { contents: "import './main.tsx';", resolveDir: join(here, 'app'), loader: 'ts' } }),
    build({ ...options, format: 'iife', entryPoints: [join(here, 'app/sw.ts')] }),
    build({ ...options, entryPoints: [join(here, 'app/style.css')] }),
  ]);
  const [main, worker, style] = built.map(({ outputFiles }) => outputFiles[0].text);
  const files = { 'main.js': main, 'sw.js': worker, 'main.css': style };
  for (const name of ['index.html', 'manifest.webmanifest', 'icon.svg']) files[name] = await readFile(join(here, 'app', name), 'utf8');
  return files;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const files = await page();
  await mkdir(assets, { recursive: true });
  if (process.argv.includes('--check')) {
    const kept = Object.fromEntries(await Promise.all((await readdir(assets)).map(async (name) => [name, await readFile(join(assets, name), 'utf8')])));
    const different = [...new Set([...Object.keys(files), ...Object.keys(kept)])].filter((name) => files[name] !== kept[name]);
    if (different.length > 0) {
      console.error(`not as built from web/app: ${different.join(', ')} (npm run --prefix web build)`);
      process.exit(1);
    }
  } else {
    for (const [name, text] of Object.entries(files)) await writeFile(join(assets, name), text);
  }
}
