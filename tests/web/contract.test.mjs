// The OpenAPI document that the service at $BASE_URL serves, through the tools that people read it with.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import ts from 'typescript';

const { BASE_URL } = process.env;
const here = dirname(fileURLToPath(import.meta.url));
const LIMIT = { timeout: 120_000 };

let directory;
let document;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'todo-backend-contract-'));
  document = join(directory, 'openapi.json');
  const response = await fetch(`${BASE_URL}/openapi.json`);
  assert.equal(response.status, 200);
  await writeFile(document, await response.text());
});

after(() => rm(directory, { recursive: true, force: true }));

/** Runs a tool of node_modules: {code, out}. */
function run(tool, ...args) {
  const env = { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true', NO_COLOR: '1' };
  return new Promise((done) => {
    execFile(join(here, 'node_modules/.bin', tool), args, { cwd: directory, env, maxBuffer: 64 << 20 }, (error, out, err) => {
      done({ code: error ? (error.code ?? 1) : 0, out, err });
    });
  });
}

describe('The OpenAPI document', () => {
  test('is the one in docs/openapi.json', async () => {
    const kept = await readFile(join(here, '../../docs/openapi.json'), 'utf8');
    assert.deepEqual(JSON.parse(await readFile(document, 'utf8')), JSON.parse(kept), 'todo-backend openapi > docs/openapi.json');
  });

  test('has no errors or warnings in Redocly', LIMIT, async () => {
    const { out, err } = await run('redocly', 'lint', '--config', join(here, 'redocly.yaml'), '--format=json', document);
    const { totals, problems } = JSON.parse(out || '{}');
    const found = problems?.map(({ ruleId, message, location }) => `${ruleId}: ${message} ${location[0]?.pointer}`);
    assert.deepEqual(found, [], err);
    assert.deepEqual(totals, { errors: 0, warnings: 0, ignored: 0 });
  });

  test('has no errors, warnings or hints in Spectral', LIMIT, async () => {
    const ruleset = join(here, '.spectral.yaml');
    const { code, out, err } = await run('spectral', 'lint', '--quiet', '-f', 'json', '--fail-severity=hint', '-r', ruleset, document);
    const found = JSON.parse(out || '"nothing was said"');
    assert.deepEqual(found, [], err);
    assert.equal(code, 0, err);
  });

  test('becomes types that a strict TypeScript client compiles with and can rely on', LIMIT, async () => {
    // Else what has a default would be required, in requests too.
    const optional = '--default-non-nullable=false';
    const generated = await run('openapi-typescript', document, optional, '--output', join(directory, 'openapi.ts'));
    assert.equal(generated.code, 0, generated.out + generated.err);
    const client = join(directory, 'client.ts');
    await copyFile(join(here, 'client.ts'), client);
    await writeFile(join(directory, 'package.json'), '{"type":"module"}');
    const options = ['--module', 'nodenext', '--target', 'es2022', '--lib', 'es2022,dom,dom.iterable'];
    const compiled = await run('tsc', '--strict', '--noEmit', ...options, client);
    assert.equal(compiled.code, 0, compiled.out + compiled.err);

    const target = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 };
    const script = join(directory, 'client.mjs');
    await writeFile(script, ts.transpileModule(await readFile(client, 'utf8'), { compilerOptions: target }).outputText);
    const { walkthrough } = await import(`${pathToFileURL(script)}?base=${encodeURIComponent(BASE_URL)}`);
    assert.deepEqual(await walkthrough(), [
      'Invalid username or password',
      'body.title: String should have at least 1 character {"min_length":1}',
      'done: true',
      'due: 2025-01-31 typed',
      'page: true',
      'batch: 204 undefined,200 typed',
      'undone: 1 restored undefined',
      'conflict: deleted_at',
      'missed: restored typed false',
      'history: created title,completed,updated completed,updated due_at,tags',
      'deleted: undefined',
      'Todo not found',
      'pending: true',
    ]);
  });
});
