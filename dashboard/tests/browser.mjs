// What the tests of the page share: Debian's Chromium, one line a check, and a judge of accessibility.
import { existsSync, mkdtempSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const executablePath = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);

export const claim = (condition, text) => { if (!condition) throw new Error(text); };
export const equal = (found, wanted, what) => claim(found === wanted, `${what}: ${found}, not ${wanted}`);

/** The answer of a stream that says one thing. */
export const stream = (event, data) => ({ status: 200, contentType: "text/event-stream", body: `retry: 60000\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n` });

/** A page in a browser of its own; `problems` are what its scripts and its console complained of. */
export async function browse() {
  const context = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), "elkfk-page-")), {
    executablePath, headless: true, viewport: { width: 1360, height: 850 }, colorScheme: "light", bypassCSP: false,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  const problems = [];
  page.on("pageerror", (error) => problems.push(`script error: ${error.message}`));
  page.on("console", (message) => { if (message.type() === "error") problems.push(`console: ${message.text()}`); });
  page.on("dialog", (dialog) => { problems.push(`text opened a dialog: ${dialog.message()}`); dialog.dismiss(); });

  let failed = 0;
  async function check(name, body) {
    const begun = Date.now();
    try {
      await body();
      console.log(`ok ${name} (${((Date.now() - begun) / 1000).toFixed(1)} s)`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED ${name}: ${error.message.split("\n").slice(0, 6).join(" | ")}`);
    }
  }
  const until = (body, arg, polling = "raf") => page.waitForFunction(body, arg, { timeout: 30_000, polling });
  /** Answers `path` with what `make` makes of it while `body` runs. */
  async function answering(path, make, body) {
    const pattern = (address) => address.pathname === path;
    await page.route(pattern, make);
    try { await body(); } finally { await page.unroute(pattern); }
  }
  async function accessible(name) {
    // Colours in the middle of a change of theme are those of neither.
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    const session = await context.newCDPSession(page);
    await session.send("Runtime.evaluate", { expression: axe });
    const { result } = await session.send("Runtime.evaluate", {
      expression: "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'best-practice']}).then(r => JSON.stringify([r.passes.map(p => p.id), r.violations.map(v => [v.id, v.nodes.slice(0, 3).map(n => n.html)])]))",
      awaitPromise: true, returnByValue: true,
    });
    const [passes, violations] = JSON.parse(result.value);
    claim(violations.length === 0, `${name}: ${JSON.stringify(violations)}`);
    claim(passes.includes("color-contrast"), `${name}: contrast was not judged`);
  }
  async function inBothThemes(name) {
    for (const theme of ["light", "dark"]) {
      await page.selectOption(".theme select", theme);
      await until((wanted) => { const [red] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number); return wanted === "dark" ? red < 64 : red > 192; }, theme);
      await accessible(`${name}, ${theme}`);
    }
    await page.selectOption(".theme select", "");
  }
  /** Ends the browser, and this process with 1 when a check failed. */
  async function finish() {
    await check("nothing went wrong on the way", async () => claim(problems.length === 0, [...new Set(problems)].join("; ")));
    await context.close();
    process.exit(failed ? 1 : 0);
  }
  return { page, context, problems, check, until, answering, accessible, inBothThemes, finish };
}
