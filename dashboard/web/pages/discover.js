// Discover: a query, a time range, a histogram, the newest lines, and new ones as they arrive.
import { html, useState, useEffect, useMemo, useRef } from "../html.js";
import { go } from "../parts/address.js";
import { Plot } from "../parts/plot.js";
import { count, exact, time, leaves, text } from "../parts/format.js";
import { useLines, keyOf } from "../parts/lines.js";
import { narrowed, level } from "../parts/query.js";

const RANGES = [["", "Any time"], ["15m", "Last 15 minutes"], ["1h", "Last hour"], ["24h", "Last 24 hours"], ["7d", "Last 7 days"], ["30d", "Last 30 days"]];
const EXAMPLES = ["error", '"connection refused"', "http.response.status_code:[500 TO 599]", "log.file.path:*nginx*", "NOT GET"];

export function Discover({ address }) {
  const { q = "", range = "", from = "", to = "", live = "" } = address.query;
  const [typed, setTyped] = useState(q);
  const [open, setOpen] = useState(() => new Set());
  const table = useRef(null);
  const isReading = () => open.size > 0 || (table.current?.getBoundingClientRect().top ?? 0) < -8;
  const { result, lines, trouble, search, older, showWaiting } = useLines({ q, range, from, to, live }, isReading);
  const set = (changes) => go("/discover", { q, range, from, to, live, ...changes });

  useEffect(() => setTyped(q), [q]);
  useEffect(() => setOpen(new Set()), [q, range, from, to]);
  useEffect(() => {
    const onScroll = () => { if (!isReading()) showWaiting(); };
    addEventListener("scroll", onScroll, { passive: true });
    return () => removeEventListener("scroll", onScroll);
  });

  const toggle = (key) => setOpen((old) => {
    const next = new Set(old);
    if (!next.delete(key)) next.add(key);
    return next;
  });
  const filter = (field, value, isWanted) => set({ q: narrowed(q, field, value, isWanted) });
  const follow = () => {
    // New lines are newer than any end of a range.
    set(live ? { live: "" } : { live: "1", ...(to && { from: "", to: "" }) });
    if (!live) search();
  };
  const toNewest = () => {
    setOpen(new Set());
    showWaiting();
    document.getElementById("list").scrollIntoView({ block: "start" });
  };

  return html`
    <form class="bar" role="search" onSubmit=${(event) => { event.preventDefault(); set({ q: typed }); search(); }}>
      <input type="search" aria-label="Query" placeholder="Search all lines, e.g. error" value=${typed} onInput=${(event) => setTyped(event.target.value)} />
      <select aria-label="Time range" value=${from ? "custom" : range} onChange=${(event) => set({ range: event.target.value, from: "", to: "" })}>
        ${RANGES.map(([value, name]) => html`<option value=${value}>${name}</option>`)}
        ${from && html`<option value="custom">${time(Number(from)).slice(0, 19)} – ${time(Number(to)).slice(0, 19)}</option>`}
      </select>
      <button class="primary">Search</button>
      <button type="button" class="follow" aria-pressed=${live ? "true" : "false"} title="Show new lines as they become searchable" onClick=${follow}><span aria-hidden="true" class="dot"></span>${live ? "Following" : "Follow"}</button>
    </form>
    ${!q && html`<p class="examples muted">Try ${EXAMPLES.map((each) => html`<button type="button" key=${each} class="chip" onClick=${() => set({ q: each })}>${each}</button>`)}</p>`}
    ${trouble && html`<p class="trouble" role="alert"><span aria-hidden="true">✖</span> ${trouble}</p>`}
    ${!result && !trouble && html`<p class="muted" role="status">Searching…</p>`}
    ${result && html`
      <section class="panel" aria-label="Histogram">
        <${Total} result=${result} lines=${lines} live=${live} />
        <${Histogram} result=${result} onSelect=${(start, end) => set({ range: "", from: Math.floor(start * 1000), to: Math.ceil(end * 1000), live: "" })} />
      </section>
      <div class="sides">
        <${Fields} hits=${lines.rows} filter=${filter} />
        <section class="panel" id="list" aria-label="Lines">
          ${lines.waiting.length > 0 && html`<button class="primary waiting" onClick=${toNewest}>${exact(lines.waiting.length)} new <span aria-hidden="true">↑</span></button>`}
          <table class="lines" id="lines" ref=${table}>
            <thead><tr><th class="toggle"><span class="skip">details</span></th><th class="when">time</th><th class="level">level</th><th class="file">file</th><th>line</th></tr></thead>
            <tbody>${lines.rows.map((hit) => html`<${Line} key=${keyOf(hit)} hit=${hit} isOpen=${open.has(keyOf(hit))} toggle=${toggle} filter=${filter} />`)}</tbody>
          </table>
          ${lines.rows.length === 0 && html`<p class="muted">${q || range || from ? "No line matches. A wider time range or fewer words may help." : "No lines yet. They show here as soon as the first one is indexed."}</p>`}
          ${lines.rows.length > 0 && !lines.isEnd && lines.rows.length < result.total && html`<p class="older"><button onClick=${older}>Older lines</button></p>`}
        </section>
      </div>`}`;
}

function Total({ result, lines, live }) {
  return html`<p class="muted" id="total" role="status" aria-live=${live ? "off" : "polite"}>
    ${result.exact ? "" : "at least "}<strong>${exact(result.total)}</strong> ${result.total === 1 ? "line" : "lines"} · ${result.took} ms
    ${result.timed_out && html`<span class="warn"> · <span aria-hidden="true">▲</span> the search ran out of time, so this is not all of it</span>`}
    ${live && html`<span> · <span id="arrived">${exact(lines.arrived)}</span> new</span>`}
    ${lines.skipped > 0 && html`<span class="warn"> · <span id="skipped">${exact(lines.skipped)}</span> skipped, they came faster than they can be shown</span>`}
  </p>`;
}

function Histogram({ result, onSelect }) {
  const data = useMemo(() => [result.histogram.map(([at]) => at / 1000), result.histogram.map(([, n]) => n)], [result.histogram]);
  if (!result.histogram.length) return null;
  return html`<${Plot} label=${`Lines per ${result.interval ?? "interval"}`} columnSeconds=${result.interval_ms / 1000} height=${128} data=${data} onSelect=${onSelect}
    series=${[{ label: "lines", colour: "--series-1", format: count, cell: exact }]} />`;
}

const basename = (path) => (typeof path === "string" ? path.split("/").pop() : "");

function Line({ hit, isOpen, toggle, filter }) {
  const source = hit.source;
  const badge = level(source);
  return html`
    <tr class=${badge ? `kind-${badge.kind}` : null} data-id=${keyOf(hit)}>
      <td class="toggle"><button aria-expanded=${isOpen ? "true" : "false"} aria-label="Details" onClick=${() => toggle(keyOf(hit))}>${isOpen ? "▾" : "▸"}</button></td>
      <td class="when">${time(source["@timestamp"])}</td>
      <td class="level">${badge && html`<span class="badge">${badge.name}</span>`}</td>
      <td class="file" title=${source.log?.file?.path}>${basename(source.log?.file?.path)}</td>
      <td class="message"><${Message} hit=${hit} /></td>
    </tr>
    ${isOpen && html`<tr class="details"><td colspan="5"><${Document} hit=${hit} filter=${filter} /></td></tr>`}`;
}

/** Highlights come as text with marks the server chose; each part is a text node, never markup. */
function Message({ hit }) {
  const plain = hit.source.message ?? hit.source.event?.original ?? JSON.stringify(hit.source);
  if (!hit.highlight) return text(plain);
  return hit.highlight.split("\u0001").map((part, i) => {
    if (i === 0) return part;
    const [marked, ...rest] = part.split("\u0002");
    return html`<mark>${marked}</mark>${rest.join("")}`;
  });
}

/** `+` and `−` for one value; nothing for what a query cannot name. */
function Filters({ field, value, filter }) {
  if (value === "" || value == null || typeof value === "object") return null;
  return html`<span class="filters">
    <button title="only these" aria-label=${`only lines with ${field} ${text(value)}`} onClick=${() => filter(field, value, true)}>+</button>
    <button title="not these" aria-label=${`no lines with ${field} ${text(value)}`} onClick=${() => filter(field, value, false)}>−</button></span>`;
}

function Document({ hit, filter }) {
  const [asJson, setAsJson] = useState(false);
  const rows = [["_index", hit.index], ["_id", hit.id], ...leaves(hit.source)];
  return html`<div class="document">
    <p><button class="link" onClick=${() => setAsJson(!asJson)}>${asJson ? "as table" : "as JSON"}</button></p>
    ${asJson ? html`<pre tabindex="0">${JSON.stringify(hit.source, null, 2)}</pre>` : html`
    <table><tbody>${rows.map(([path, value]) => html`<tr><th scope="row">${path}</th><td>${text(value)}</td>
      <td class="act">${!path.startsWith("_") && !UNFILTERED.has(path) && html`<${Filters} field=${path} value=${Array.isArray(value) ? value[0] : value} filter=${filter} />`}</td></tr>`)}</tbody></table>`}
  </div>`;
}

/** Whole lines: their words are searched, not their whole. */
const UNFILTERED = new Set(["@timestamp", "message", "event.original"]);
const VALUES = 8;

function Fields({ hits, filter }) {
  const [open, setOpen] = useState("");
  const [wanted, setWanted] = useState("");
  const [isShown, setShown] = useState(false);
  const fields = useMemo(() => {
    const found = new Map();
    for (const hit of hits) {
      for (const [path, value] of leaves(hit.source)) {
        if (UNFILTERED.has(path)) continue;
        if (!found.has(path)) found.set(path, { path, lines: 0, values: new Map() });
        const field = found.get(path);
        field.lines += 1;
        for (const each of [value].flat()) field.values.set(each, (field.values.get(each) ?? 0) + 1);
      }
    }
    return [...found.values()].sort((a, b) => a.path.localeCompare(b.path));
  }, [hits]);
  const matching = fields.filter((each) => each.path.toLowerCase().includes(wanted.toLowerCase()));
  // A field that is the same in every line tells lines apart in no way, so it comes last.
  const isSame = (each) => each.values.size === 1 && each.lines === hits.length && hits.length > 1;
  const list = (some) => html`<ul class="fields">${some.map((each) => html`<${Field} key=${each.path} field=${each} lines=${hits.length} filter=${filter}
    isOpen=${open === each.path} toggle=${() => setOpen(open === each.path ? "" : each.path)} />`)}</ul>`;
  const [same, differing] = [matching.filter(isSame), matching.filter((each) => !isSame(each))];
  return html`
    <section class=${`panel side ${isShown ? "" : "folded"}`} aria-label="Fields">
      <p class="side-title"><span>Fields <span class="muted">in ${exact(hits.length)} lines</span></span>
        <button class="link fold" aria-expanded=${isShown ? "true" : "false"} onClick=${() => setShown(!isShown)}>${isShown ? "hide" : "show"}</button></p>
      <div class="side-body">
        <input type="text" aria-label="Find a field" placeholder="Find a field" value=${wanted} onInput=${(event) => setWanted(event.target.value)} />
        ${list(differing)}
        ${same.length > 0 && html`<p class="muted group">The same in every line</p>${list(same)}`}
      </div>
    </section>`;
}

function Field({ field: { path, lines: n, values }, lines, isOpen, toggle, filter }) {
  const top = isOpen ? [...values].sort((a, b) => b[1] - a[1]).slice(0, VALUES) : [];
  return html`
    <li><button class="name" aria-expanded=${isOpen ? "true" : "false"} title=${`${path}: in ${n} of ${lines} lines, ${values.size} different ${values.size === 1 ? "value" : "values"}`} onClick=${toggle}>
        <span>${path}</span><span class="muted">${exact(n)}</span></button>
      ${isOpen && html`<ul>${top.map(([value, times]) => html`
        <li><span class="value" title=${text(value)}>${text(value)}<meter min="0" max=${n} value=${times} aria-hidden="true"></meter></span><span class="muted">${Math.round((100 * times) / n)} %</span><${Filters} field=${path} value=${value} filter=${filter} /></li>`)}
        ${values.size > VALUES && html`<li class="muted">and ${exact(values.size - VALUES)} more values</li>`}</ul>`}
    </li>`;
}
