// Swagger UI as its user sees it: fields to fill, buttons to press, answers to read.

export class Swagger {
  constructor(page) {
    this.page = page;
  }

  /** Opens the page at `origin`. */
  static async open(page, origin) {
    await page.goto(`${origin}/docs`);
    await page.locator('.opblock').first().waitFor();
    return new Swagger(page);
  }

  /** The block of an operation, opened. */
  async operation(tag, id) {
    const block = this.page.locator(`#operations-${tag}-${id}`);
    const isOpen = await block.evaluate((element) => element.classList.contains('is-open'));
    if (!isOpen) await block.locator('.opblock-summary-control').click();
    await block.locator('button.execute').waitFor();
    return block;
  }

  /** Closes it: with each that is open, all that the page does takes longer. */
  async close(tag, id) {
    const block = this.page.locator(`#operations-${tag}-${id}`);
    await block.locator('.opblock-summary-control').click();
    await block.locator('button.execute').waitFor({ state: 'detached' });
  }

  /** Fills in an operation, presses Execute, and reads the answer that is shown: {status, url, headers, body}. */
  async execute(tag, id, { path = {}, body } = {}) {
    const block = await this.operation(tag, id);
    const clear = block.locator('button.btn-clear');
    if (await clear.count()) await clear.click();
    const table = block.locator('.live-responses-table');
    await table.waitFor({ state: 'detached' });
    for (const [name, value] of Object.entries(path)) {
      await block.locator(`tr[data-param-name="${name}"] input`).fill(String(value));
    }
    if (body !== undefined) await block.locator('textarea.body-param__text').fill(JSON.stringify(body));
    await block.locator('button.execute').click();
    const status = table.locator('tr.response .response-col_status').first();
    await status.waitFor();
    const headers = await table.locator('h5:has-text("Response headers") + pre').first().innerText();
    const shown = table.locator('.response-col_description .highlight-code code');
    const text = (await shown.count()) ? await shown.first().innerText() : undefined;
    return {
      // "200", or "200 Undocumented".
      status: (await status.innerText()).trim().replace(/\s+/g, ' '),
      url: (await block.locator('.request-url pre').innerText()).trim(),
      headers: Object.fromEntries(headers.trim().split('\n').map((line) => line.trim().split(/: (.*)/s).slice(0, 2))),
      body: text === undefined ? undefined : JSON.parse(text),
    };
  }

  /** Opens the dialog of Authorize, does `work` in the part of one security scheme, and closes it. */
  async authorization(scheme, work) {
    await this.page.locator('.auth-wrapper > .btn.authorize').click();
    const dialog = this.page.locator('.dialog-ux');
    await work(dialog.locator('.auth-container').filter({ has: this.page.locator('h4', { hasText: scheme }) }));
    await dialog.locator('.close-modal').click();
    await dialog.waitFor({ state: 'detached' });
  }

  async authorizeWithToken(token) {
    await this.authorization('bearer', async (part) => {
      await part.locator('#auth-bearer-value').fill(token);
      await part.getByRole('button', { name: 'Apply credentials' }).click();
      await part.getByRole('button', { name: 'Remove authorization' }).waitFor();
    });
  }

  async logout(scheme) {
    await this.authorization(scheme, async (part) => {
      await part.getByRole('button', { name: 'Remove authorization' }).click();
      await part.getByRole('button', { name: /^Apply/ }).waitFor();
    });
  }
}
