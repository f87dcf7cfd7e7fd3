// events.mjs URL FOLDER: the page with a real sidecar and Kafka, for tests/e2e/page.rs, which breaks them when this says so. Screenshots go to FOLDER.
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PATIENCE, launch, open, until as within } from './browser.mjs';

const [url, folder] = process.argv.slice(2);
const browser = await launch({});
const { page } = await open(browser, { width: 1200, height: 760 });
await mkdir(folder, { recursive: true });

const add = async (title) => {
  await page.getByLabel('New todo').fill(title);
  await page.keyboard.press('Enter');
};
const panel = page.getByRole('complementary', { name: 'Events' });
/** What the panel says of a change. */
const way = (title) => panel.getByRole('listitem').filter({ has: page.getByText(title, { exact: true }) }).getByRole('list').last();
const until = (what, is) => within(what, is, 2 * PATIENCE);
const isDelivered = (title) => until(`${title} is delivered`, async () => /published \+\d+ ms[^]*delivered \+\d+ ms/.test(await way(title).innerText()));
const says = (term, value) => until(`${term}: ${value}`, async () => value.test(await panel.getByText(term, { exact: true }).locator('xpath=..').getByRole('definition').innerText()));

await page.goto(`${url}/app?view=events`);
await page.getByLabel('Name').fill('demo');
await page.getByLabel('Password').fill('demo123');
await page.getByRole('button', { name: 'Log in', exact: true }).click();
await says('Dapr sidecar', /ready/);
for (const title of ['Buy oat milk', 'Call the bank', 'Water the plants', 'Book a table for four']) {
  await add(title);
  await isDelivered(title);
}
// For a picture with something to see.
const { access_token } = await (await fetch(`${url}/auth/login?username=demo&password=demo123`, { method: 'POST' })).json();
const headers = { Authorization: `Bearer ${access_token}`, 'Content-Type': 'application/json' };
const more = [{ tags: ['shop'], due_at: '2030-01-31' }, { priority: 4, due_at: '2030-01-31T09:30:00Z' }, { tags: ['home', 'garden'], priority: 1 }];
const todos = await (await fetch(`${url}/todos`, { headers })).json();
for (const [index, fields] of more.entries()) await fetch(`${url}/todos/${todos[index].id}`, { method: 'PATCH', headers, body: JSON.stringify(fields) });
await page.locator('.row').first().getByRole('checkbox').click();
await until('all of it is delivered', async () => (await panel.locator('.way').allInnerTexts()).filter((text) => /delivered \+\d+ ms/.test(text)).length === 8);
await page.getByRole('button', { name: 'Dismiss' }).click();
await page.evaluate(() => document.activeElement.blur());
for (const colorScheme of ['light', 'dark']) {
  await page.emulateMedia({ colorScheme });
  await page.screenshot({ path: join(folder, `page-${colorScheme}.png`), animations: 'disabled' });
}
await page.emulateMedia({ colorScheme: 'light' });
await page.setViewportSize({ width: 390, height: 760 });
await page.getByRole('button', { name: 'Close events' }).click();
await page.screenshot({ path: join(folder, 'page-phone.png'), animations: 'disabled' });
await page.setViewportSize({ width: 1200, height: 760 });
await page.getByRole('button', { name: 'Events' }).click();
console.log('delivered');

await says('Dapr sidecar', /away/);
await add('without a sidecar');
await says('To be published', /^1$/);
assert.doesNotMatch(await way('without a sidecar').innerText(), /published \+/);
console.log('waiting for the sidecar');
await says('Dapr sidecar', /ready/);
await isDelivered('without a sidecar');

console.log('editing');
for (let n = 0; n < 30; n += 1) {
  await add(`edit ${n}`);
  await sleep(50);
}
await page.getByRole('status').filter({ hasText: 'Up to date' }).waitFor();
console.log('settled');
await browser.close();
