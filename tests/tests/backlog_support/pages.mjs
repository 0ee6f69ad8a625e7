// usage: node pages.mjs BROWSER.mjs URL PATH SELECTOR FILE.png
// A picture of a view, 1280 wide and as high as what is in it, once SELECTOR is there and has had a moment to draw.
// The window is 1600 wide, so that whole sentences are in it.
const [browser, url, path, selector, file] = process.argv.slice(2);
const { browse } = await import(browser);
const { page, context } = await browse();
const session = await context.newCDPSession(page);
const size = (height) => session.send("Emulation.setDeviceMetricsOverride", { width: 1600, height, deviceScaleFactor: 0.8, mobile: false });
await size(1000);
await page.goto(`${url}${path}`);
await page.locator(selector).first().waitFor();
await page.waitForTimeout(1500);
const height = await page.evaluate(() => document.documentElement.scrollHeight);
await size(Math.min(Math.max(height, 700), 1700));
await page.waitForTimeout(800);
const { data } = await session.send("Page.captureScreenshot", { format: "png" });
(await import("node:fs")).writeFileSync(file, Buffer.from(data, "base64"));
await context.close();
process.exit(0);
