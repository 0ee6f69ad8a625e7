// usage: node page.mjs URL LOG [SCREENSHOT.png]
// What a person does on the page, in Debian's Chromium, against a running `elkfk up --demo` that also watches
// the file LOG, to which lines are written here.
// Prints one line a check, ends with 1 when one failed.
import { appendFileSync } from "node:fs";
import { browse, claim, equal, stream } from "./browser.mjs";

const [url, log, screenshot] = process.argv.slice(2);
const { page, problems, check, until, answering, accessible, inBothThemes, finish } = await browse();
const rows = () => page.locator("#lines tbody tr[data-id]");
const number = async (selector) => Number((await page.locator(selector).innerText()).replaceAll(",", ""));
const total = () => number("#total strong");
const times = () => page.locator("#lines tbody td.when").allInnerTexts().then((all) => all.map((text) => new Date(text.replace(" ", "T")).getTime()));
const discover = (query = {}) => page.goto(`${url}/discover?${new URLSearchParams(query)}`);
/** Searches until there are `n` rows. */
const found = (n) => until((wanted) => document.querySelectorAll("#lines tr[data-id]").length === wanted || (document.querySelector("form[role=search]").requestSubmit(), false), n, 500);
await check("the first line shows", async () => {
  await discover();
  await rows().first().waitFor();
  claim((await rows().first().locator(".message").innerText()).trim().length > 20, "the row is empty");
  claim(await total() > 0, "no lines are counted");
});
await check("Discover is accessible in both themes, with a line and a field open", async () => {
  await rows().first().locator(".toggle button").click();
  await page.locator(".document").first().waitFor();
  await page.locator(".fields .name").first().click();
  await page.locator(".fields ul li").first().waitFor();
  await inBothThemes("discover");
});
await check("a query narrows and marks, and the address holds it", async () => {
  await page.keyboard.press("Escape");
  await page.locator("h1").click();
  await page.keyboard.press("/");
  await page.keyboard.type("GET");
  await page.keyboard.press("Enter");
  await page.locator("#lines mark").first().waitFor();
  equal(new URL(page.url()).searchParams.get("q"), "GET", "the query in the address");
  const narrowed = await total();
  // Lines arrive all the time: all of them are counted later, and are more all the same.
  const everything = (await (await fetch(`${url}/api/v1/search?size=0`)).json()).total;
  claim(narrowed > 0 && narrowed < everything, `${narrowed} of ${everything} lines`);
  const shown = await page.locator("#lines tbody td.message").allInnerTexts();
  claim(shown.length > 10, `only ${shown.length} rows`);
  for (const text of shown) claim(/GET/i.test(text), `no GET in ${text}`);
  await page.reload();
  await page.locator("#lines mark").first().waitFor();
  equal(await page.locator("input[type=search]").inputValue(), "GET", "the query after a reload");
});
await check("a wrong query is explained, and asked once", async () => {
  const known = problems.length;
  let asked = 0;
  const count = (request) => { if (request.url().includes("/api/v1/search")) asked += 1; };
  page.on("request", count);
  await discover({ q: 'message:"open' });
  await page.locator(".trouble").waitFor();
  const said = await page.locator(".trouble").innerText();
  claim(said.length > 15 && !/undefined|the server answered/.test(said), `all it says is: ${said}`);
  await page.waitForTimeout(2500);
  page.off("request", count);
  equal(asked, 1, "times it was asked");
  // The browser reports the refusal itself, once.
  const reported = problems.splice(known);
  claim(reported.length === 1 && reported[0].includes("status of 400"), JSON.stringify(reported));
});
await check("an empty index is asked again, ever more slowly; a query without result is not", async () => {
  const nothing = { total: 0, exact: true, timed_out: false, took: 1, from: null, interval: "second", interval_ms: 1000, histogram: [], hits: [] };
  let asked = 0;
  const answer = (route) => { asked += 1; return route.fulfill({ json: nothing }); };
  await answering("/api/v1/search", answer, async () => {
    await discover();
    await page.waitForTimeout(4500);
    // At 0, 0.5, 1.5 and 3.5 s.
    claim(asked >= 3 && asked <= 4, `asked ${asked} times in 4.5 s`);
    claim((await page.locator("#list").innerText()).includes("No lines yet"), "a newcomer is not told what happens");
    asked = 0;
    await discover({ q: "nosuchword" });
    await page.waitForTimeout(2500);
    equal(asked, 1, "times a query without result is asked");
  });
});
await check("a count that was cut short is called at least", async () => {
  const answer = async (route) => {
    const body = await (await route.fetch()).json();
    return route.fulfill({ json: { ...body, exact: false, timed_out: true } });
  };
  await answering("/api/v1/search", answer, async () => {
    await discover();
    await page.locator("#total").waitFor();
    const said = await page.locator("#total").innerText();
    claim(/^at least [\d,]+ line/.test(said) && said.includes("ran out of time"), said);
  });
  await discover();
  await page.locator("#total").waitFor();
  claim(!/at least|ran out/.test(await page.locator("#total").innerText()), "an exact count is called at least");
});
await check("the columns of the histogram add up to the total", async () => {
  for (const query of [{}, { q: "GET" }, { range: "1h" }]) {
    await discover(query);
    await page.locator("section[aria-label=Histogram] .plot button").first().click();
    await page.locator(".plot tbody tr").first().waitFor();
    const cells = await page.locator(".plot tbody td.number").allInnerTexts();
    const sum = cells.reduce((all, text) => all + Number(text.replaceAll(",", "")), 0);
    equal(sum, await total(), `sum of ${cells.length} columns for ${JSON.stringify(query)}`);
  }
});
await check("a chosen time range leaves out what is older", async () => {
  await discover({ q: "elkfkold" });
  await rows().first().waitFor();
  equal(await total(), 1, "old lines at any time");
  await page.selectOption("select[aria-label='Time range']", "15m");
  await until(() => location.search.includes("range=15m") && document.querySelector("#total strong")?.innerText === "0");
  await page.locator("input[type=search]").fill("");
  await page.keyboard.press("Enter");
  await until(() => !location.search.includes("q=") && document.querySelectorAll("#lines tr[data-id]").length > 10);
  equal(new URL(page.url()).searchParams.get("range"), "15m", "the range in the address");
  const shown = await times();
  claim(Math.min(...shown) >= Date.now() - 16 * 60_000, `a line of ${new Date(Math.min(...shown))}`);
});
await check("dragging over the histogram zooms in", async () => {
  await discover({ range: "15m" });
  const plot = page.locator("section[aria-label=Histogram] .u-over");
  await plot.waitFor();
  const before = await total();
  const box = await plot.boundingBox();
  await page.mouse.move(box.x + box.width * 0.5, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.8, box.y + box.height / 2, { steps: 8 });
  await page.mouse.up();
  await until(() => location.search.includes("from=") && location.search.includes("to="));
  const { from, to } = Object.fromEntries(new URL(page.url()).searchParams);
  claim(Number(from) < Number(to), page.url());
  await until((old) => Number(document.querySelector("#total strong")?.innerText.replaceAll(",", "")) < old, before);
  const shown = await times();
  claim(shown.length > 0, "nothing is left");
  for (const at of shown) claim(at >= Number(from) && at < Number(to), `${new Date(at)} is outside of ${page.url()}`);
});
await check("older lines follow below, each once, in order", async () => {
  await discover();
  await rows().nth(99).waitFor();
  await page.getByRole("button", { name: "Older lines" }).click();
  await rows().nth(199).waitFor();
  await page.getByRole("button", { name: "Older lines" }).click();
  await rows().nth(299).waitFor();
  const ids = await rows().evaluateAll((all) => all.map((row) => row.dataset.id));
  equal(new Set(ids).size, 300, "different lines of 300");
  const shown = await times();
  claim(shown.every((at, i) => i === 0 || at <= shown[i - 1]), "times go up");
});
await check("a line opens to its fields, also as JSON", async () => {
  await discover({ q: "GET" });
  await rows().first().locator(".toggle button").click();
  const text = await page.locator(".document").first().innerText();
  claim(/log\.file\.path/.test(text) && /_id/.test(text), text.slice(0, 200));
  await page.getByRole("button", { name: "as JSON" }).click();
  claim(JSON.parse(await page.locator(".document pre").innerText())["@timestamp"], "no @timestamp");
});
await check("a value of a field narrows the query, and is left out again", async () => {
  await discover();
  await rows().first().waitFor();
  const field = page.locator(".fields .name", { hasText: "http.request.method" });
  await field.click();
  const value = await page.locator(".fields ul .value").first().innerText();
  await page.getByRole("button", { name: `only lines with http.request.method ${value}` }).click();
  await until(() => location.search.includes("http.request.method"));
  await until((wanted) => { const all = [...document.querySelectorAll("#lines td.message")]; return all.length > 10 && all.every((cell) => cell.innerText.includes(wanted)); }, value);
  await discover();
  await rows().first().waitFor();
  await field.click();
  await page.getByRole("button", { name: `no lines with http.request.method ${value}` }).click();
  await until((unwanted) => { const all = [...document.querySelectorAll("#lines td.message")]; return all.length > 10 && !all.some((cell) => cell.innerText.includes(`"${unwanted} `)); }, value);
});
await check("a field whose name holds the query language's own characters can be narrowed to", async () => {
  appendFileSync(log, `${JSON.stringify({ message: "elkfkodd one", "odd key:(x)": "a \"b\" \\c" })}\n`);
  await discover({ q: "elkfkodd" });
  await found(1);
  await page.locator(".fold").evaluate((button) => button.offsetParent && button.click());
  await page.locator(".fields .name", { hasText: "odd key:(x)" }).click();
  await page.locator(".fields ul .filters button").first().click();
  await until(() => location.search.includes("odd"));
  await page.locator("#total strong").waitFor();
  await rows().first().waitFor();
  equal(await total(), 1, "lines with that value");
});
await check("every line written while following shows once, from the search on", async () => {
  const known = problems.length;
  const written = [];
  const write = (n) => {
    const lines = Array.from({ length: n }, () => { written.push(`elkfktail line number ${written.length} is here`); return `${written[written.length - 1]}\n`; });
    appendFileSync(log, lines.join(""));
  };
  write(3);
  await discover({ q: "elkfktail" });
  await found(3);
  await page.locator(".follow").click();
  for (let i = 0; i < 40; i += 1) {
    write(5);
    await page.waitForTimeout(50);
  }
  await until((n) => document.querySelectorAll("#lines tr[data-id]").length >= n, written.length);
  await page.waitForTimeout(1200);
  const shown = await page.locator("#lines td.message").allInnerTexts();
  const times = new Map();
  for (const text of shown) times.set(text, (times.get(text) ?? 0) + 1);
  for (const line of written) equal(times.get(line), 1, line);
  equal(shown.length, written.length, "rows");
  equal(await page.locator("#skipped").count(), 0, "words of skipped lines");
  equal(await number("#arrived"), written.length - 3, "lines counted as new");
  equal(problems.length, known, "problems");
});
await check("following goes on after a lost connection, with what came meanwhile", async () => {
  const read = async (headers, isEnough) => {
    const abort = new AbortController();
    const answer = await fetch(`${url}/api/v1/tail?q=elkfkagain`, { headers, signal: abort.signal });
    let text = "";
    for await (const part of answer.body.pipeThrough(new TextDecoderStream())) {
      text += part;
      if (isEnough(text)) break;
    }
    abort.abort();
    return text;
  };
  appendFileSync(log, "elkfkagain before\n");
  let text = await read({}, (so) => so.includes("before") && so.endsWith("\n\n"));
  const id = text.match(/^id: (.*)$/mg).pop().slice(4);
  appendFileSync(log, "elkfkagain one\nelkfkagain two\n");
  text = await read({ "last-event-id": id }, (so) => /one/.test(so) && /two/.test(so) && so.endsWith("\n\n"));
  const skipped = [...text.matchAll(/"skipped":(\d+)/g)].map((match) => Number(match[1]));
  claim(skipped.length > 0 && skipped.every((n) => n === 0), text);
});
await check("skipped lines are said", async () => {
  await answering("/api/v1/tail", (route) => route.fulfill(stream("lines", { lines: [], skipped: 1234, first: false })), async () => {
    await discover({ live: 1 });
    await page.locator("#skipped").waitFor();
    equal(await page.locator("#skipped").innerText(), "1,234", "skipped");
  });
});
await check("new lines never move what a person reads", async () => {
  await discover({ live: 1 });
  await until(() => Number(document.querySelector("#arrived")?.innerText) > 0);
  await rows().nth(60).waitFor();
  await rows().nth(40).scrollIntoViewIfNeeded();
  await page.mouse.wheel(0, 400);
  await page.waitForTimeout(300);
  const place = () => page.evaluate(() => {
    const row = [...document.querySelectorAll("#lines tr[data-id]")].find((each) => each.getBoundingClientRect().top > 200);
    return JSON.stringify([row.dataset.id, Math.round(row.getBoundingClientRect().top)]);
  });
  const before = await place();
  await page.locator(".waiting").waitFor();
  await until(() => parseInt(document.querySelector(".waiting").innerText, 10) > 20);
  equal(await place(), before, "what is read");
  const first = await rows().first().getAttribute("data-id");
  await page.locator(".waiting").click();
  await until((old) => !document.querySelector(".waiting") && document.querySelector("#lines tr[data-id]").dataset.id !== old, first);
  claim(await rows().first().isVisible(), "the newest line is not in view");
  // An open line is being read, too.
  await rows().first().locator(".toggle button").click();
  await page.locator(".waiting").waitFor();
  await accessible("following");
});
await check("no text of a log line runs as markup", async () => {
  await discover({ q: "elkfkxss" });
  await rows().first().waitFor();
  await rows().first().locator(".toggle button").click();
  await page.locator(".document").waitFor();
  equal(await page.locator("main img, main script").count(), 0, "elements made of a line's markup");
  claim((await page.locator("#lines td.message").first().innerText()).includes("<img src=x onerror=alert(1)>"), "the line's text is not shown as it is");
});
await check("both views fit a small window", async () => {
  await page.setViewportSize({ width: 800, height: 600 });
  for (const path of ["/discover", "/lag"]) {
    await page.goto(url + path);
    await page.locator(path === "/lag" ? "#partitions tbody tr" : "#lines tbody tr").first().waitFor();
    if (path === "/discover") await rows().first().locator(".toggle button").click();
    const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    claim(wide <= room, `${path} is ${wide} wide in ${room}`);
    await accessible(`${path} in 800x600`);
  }
  await page.setViewportSize({ width: 1360, height: 850 });
});
if (screenshot) {
  await discover({ range: "15m" });
  await rows().nth(10).waitFor();
  await page.waitForTimeout(300);
  await page.screenshot({ path: screenshot });
}
await check("Lag shows four figures, each of them known", async () => {
  await discover();
  await page.locator(".rail a", { hasText: "Lag" }).click();
  await page.locator("#partitions tbody tr").nth(2).waitFor();
  const patterns = ["^[\\d,.]+( [kMG])? records?$", "^(0 s|\\d+ ms|[\\d.]+ s|\\d+ m( \\d+ s)?)$", "^(never|keeping up|0 s|\\d+ ms|[\\d.]+ s|\\d+ m( \\d+ s)?)$", "^[\\d.]+ %$"];
  await until((wanted) => { const found = [...document.querySelectorAll(".big dd:not(.note)")].map((each) => each.innerText.trim()); return found.length === 4 && found.every((text, i) => new RegExp(wanted[i]).test(text)); }, patterns);
  await until(() => [...document.querySelectorAll("#partitions tbody tr")].some((row) => /ok/.test(row.innerText)));
  const { groups } = await (await fetch(`${url}/api/v1/lag`)).json();
  const shown = await page.locator("#partitions tbody tr").count();
  equal(shown, groups[0].topics[0].partitions.length, "partitions");
  await inBothThemes("lag");
});
await check("lag, seconds and rates are plotted, with one cursor", async () => {
  await page.locator(".plot canvas").nth(2).waitFor();
  equal(await page.locator(".plot canvas").count(), 3, "plots");
  await until(() => [...document.querySelectorAll(".plot")].length === 3);
  const over = page.locator(".u-over").first();
  await until(async () => (await (await fetch("/api/v1/lag")).json()).groups[0].topics[0].lag_seconds != null);
  const box = await over.boundingBox();
  await page.mouse.move(box.x + box.width - 4, box.y + 20);
  await until(() => {
    const at = [...document.querySelectorAll(".plot")].map((plot) => [...plot.querySelectorAll(".u-value")].map((each) => each.innerText));
    return at.every((values) => values[0] === at[0][0] && values.slice(1).every((value) => value !== "–" && value !== "--"));
  });
});
await check("every plot is also a table", async () => {
  for (const n of [0, 1, 2]) {
    const plot = page.locator(".plot").nth(n);
    await plot.locator("button").first().click();
    const cells = plot.locator("table tbody td");
    await cells.first().waitFor();
    claim((await cells.allInnerTexts()).some((text) => /^[\d.]+( [a-zA-Z]+)?$/.test(text)), `table ${n} has no figure`);
    await plot.locator("button").first().click();
  }
});
await check("when lag cannot be measured the last figures stay, marked as old", async () => {
  const lag = await (await fetch(`${url}/api/v1/lag`)).json();
  const old = { ...lag, stale: true, sent_ms: lag.now_ms + 14_000, broker: { ok: false, text: "no answer for 14 s" } };
  await answering("/api/v1/stream", (route) => route.fulfill(stream("snapshot", old)), async () => {
    await page.goto(`${url}/lag`);
    await page.locator("#stale").waitFor();
    const said = await page.locator("#stale").innerText();
    claim(said.includes("no answer for 14 s") && said.includes("14 s ago"), said);
    await page.locator("#partitions tbody tr").first().waitFor();
    claim(!(await page.locator("main").innerText()).includes("No consumer group"), "it says that there is no group");
    await inBothThemes("old figures");
  });
});
if (screenshot) {
  await page.goto(`${url}/lag`);
  await page.waitForTimeout(8000);
  await page.screenshot({ path: screenshot.replace(/\.png$/, "-lag.png") });
}
await check("every other view shows what is there, in both themes", async () => {
  for (const [path, what] of [["/overview", ".hop[data-hop=indices]"], ["/topics", "#topics tbody tr"], ["/topics?topic=logs", "#partitions tbody tr"], ["/groups", "#groups tbody tr"], ["/groups?group=elkfk-sink", "#members tbody tr"], ["/ensemble?path=/brokers", ".nodes ul li"], ["/alerts?edit=new", "#rules tbody tr"]]) {
    await page.goto(url + path);
    await page.locator(what).first().waitFor();
    await page.waitForTimeout(500);
    equal(await page.locator("main .trouble").allInnerTexts().then((all) => all.join("; ")), "", `troubles on ${path}`);
    await inBothThemes(path);
  }
});
await check("Overview tells a rate of every hop while lines flow", async () => {
  await page.goto(`${url}/overview`);
  await until(() => { const rates = [...document.querySelectorAll(".hop .rate")].map((each) => parseFloat(each.innerText)); return rates.length === 5 && rates.every((rate) => rate > 0); });
});
await check("offsets of a group that reads are previewed, and not moved", async () => {
  await page.goto(`${url}/groups?group=elkfk-sink`);
  await page.locator(".reset input[type=checkbox]").first().check();
  await page.locator(".reset input[value=earliest]").check();
  await page.getByRole("button", { name: "Preview" }).click();
  await page.locator("#preview tbody tr").first().waitFor();
  claim(/member/.test(await page.locator("#preview .trouble").innerText()), await page.locator("#preview").innerText());
  equal(await page.locator("#preview .danger").count(), 0, "ways to move them");
});
await check("a rule is kept, and removed again", async () => {
  await page.goto(`${url}/alerts?edit=new`);
  await page.getByLabel("Name").first().fill("of the test");
  await until(() => /fired|history/.test(document.querySelector("#rule-preview")?.innerText) && !/Trying/.test(document.querySelector("#rule-preview").innerText));
  await page.getByRole("button", { name: "Save" }).click();
  const row = page.locator("#rules tbody tr", { hasText: "of the test" });
  await row.waitFor();
  await page.reload();
  await row.waitFor();
  await row.getByRole("button", { name: "edit" }).click();
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await page.getByRole("button", { name: "Really delete it" }).click();
  await row.waitFor({ state: "detached" });
});
await check("both views are reached by keyboard alone", async () => {
  await discover();
  await rows().first().waitFor();
  const focused = () => page.evaluate(() => document.activeElement.innerText?.trim() ?? "");
  const tabTo = async (name) => {
    for (let i = 0; i < 12; i += 1) {
      await page.keyboard.press("Tab");
      if (await focused() === name) return;
    }
    throw new Error(`no ${name} within 12 tabs`);
  };
  await tabTo("Skip to content");
  await tabTo("Lag");
  await page.keyboard.press("Enter");
  await until(() => location.pathname === "/lag");
  await page.locator("#partitions tbody tr").first().waitFor();
  await page.keyboard.press("g");
  await page.keyboard.press("d");
  await until(() => location.pathname === "/discover");
  await rows().first().waitFor();
  await page.keyboard.press("g");
  await page.keyboard.press("l");
  await until(() => location.pathname === "/lag");
  await page.keyboard.press("g");
  await page.keyboard.press("d");
  await rows().first().waitFor();
  await page.keyboard.press("/");
  await page.keyboard.type("GET");
  await page.keyboard.press("Enter");
  await page.locator("#lines mark").first().waitFor();
  for (let i = 0; i < 200 && await page.evaluate(() => document.activeElement.getAttribute("aria-label")) !== "Details"; i += 1) await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.locator(".document").waitFor();
});
await finish();
