// Discover: a query, a time range, a histogram, the newest lines, and new ones as they arrive.
import { html, useState, useEffect, useMemo } from "../html.js";
import { go } from "../parts/address.js";
import { Plot } from "../parts/plot.js";
import { count, time, leaves, text } from "../parts/format.js";

const RANGES = [["", "Any time"], ["15m", "Last 15 minutes"], ["1h", "Last hour"], ["24h", "Last 24 hours"], ["7d", "Last 7 days"], ["30d", "Last 30 days"]];
const PAGE = 100;
/** Rows kept while following: what a person can still scroll through. */
const LIVE_ROWS = 1000;

async function ask(path, params) {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== "" && value != null));
  const answer = await fetch(`${path}?${query}`);
  const body = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) throw new Error(body.error ?? `the server answered ${answer.status}`);
  return body;
}

export function Discover({ address }) {
  const { q = "", range = "", from = "", to = "", live = "" } = address.query;
  const [typed, setTyped] = useState(q);
  const [result, setResult] = useState(null);
  const [trouble, setTrouble] = useState("");
  const [fresh, setFresh] = useState([]);
  const [asked, setAsked] = useState(0);
  const set = (changes) => go("/discover", { q, range, from, to, live, ...changes });

  useEffect(() => setTyped(q), [q]);
  useEffect(() => {
    let isCurrent = true;
    setFresh([]);
    const search = () => ask("/api/v1/search", { q, range, from, to, size: PAGE })
      .then((body) => { if (isCurrent) { setResult(body); setTrouble(""); return body; } })
      .catch((error) => { if (isCurrent) setTrouble(error.message); });
    let timer;
    // An empty first answer is asked again: the first lines may be on their way.
    const again = () => search().then((body) => { if (isCurrent && (!body || body.total === 0)) timer = setTimeout(again, 500); });
    again();
    return () => { isCurrent = false; clearTimeout(timer); };
  }, [q, range, from, to, asked]);

  useEffect(() => {
    if (!live) return;
    const source = new EventSource(`/api/v1/tail?${new URLSearchParams({ q })}`);
    source.addEventListener("lines", (event) => setFresh((old) => [...JSON.parse(event.data), ...old].slice(0, LIVE_ROWS)));
    source.addEventListener("trouble", (event) => setTrouble(event.data));
    return () => source.close();
  }, [q, live]);

  const hits = useMemo(() => {
    const seen = new Set();
    return [...fresh, ...(result?.hits ?? [])].filter((hit) => !seen.has(hit.id) && seen.add(hit.id));
  }, [fresh, result]);

  const more = async () => {
    const last = result.hits[result.hits.length - 1];
    try {
      const next = await ask("/api/v1/search", { q, range, from, to, size: PAGE, after: JSON.stringify(last.sort) });
      setResult({ ...result, hits: [...result.hits, ...next.hits] });
    } catch (error) { setTrouble(error.message); }
  };

  const addFilter = (field, value, isWanted) => {
    const clause = `${isWanted ? "" : "NOT "}${field}:"${String(value).replace(/["\\]/g, "\\$&")}"`;
    set({ q: q ? `(${q}) AND ${clause}` : clause });
  };

  return html`
    <form class="bar" role="search" onSubmit=${(event) => { event.preventDefault(); set({ q: typed }); setAsked(asked + 1); }}>
      <input type="search" aria-label="Query" placeholder='all lines; try: error, "connection refused", http.response.status_code:[500 TO 599], log.file.path:*nginx*' value=${typed} onInput=${(event) => setTyped(event.target.value)} />
      <select aria-label="Time range" value=${from ? "custom" : range} onChange=${(event) => set({ range: event.target.value, from: "", to: "" })}>
        ${RANGES.map(([value, name]) => html`<option value=${value}>${name}</option>`)}
        ${from && html`<option value="custom">${time(Number(from))} – ${time(Number(to))}</option>`}
      </select>
      <button class="primary">Search</button>
      <button type="button" aria-pressed=${live ? "true" : "false"} onClick=${() => set({ live: live ? "" : "1" })}>${live ? "Following" : "Follow"}</button>
    </form>
    ${trouble && html`<p class="trouble" role="alert">${trouble}</p>`}
    ${result && html`
      <section class="panel" aria-label="Histogram">
        <p class="muted" aria-live="polite" id="total"><strong>${result.total.toLocaleString("en")}</strong> lines · ${result.took} ms${fresh.length ? ` · ${fresh.length} new` : ""}</p>
        <${Histogram} result=${result} onSelect=${(start, end) => set({ range: "", from: Math.floor(start * 1000), to: Math.ceil(end * 1000) })} />
      </section>
      <div class="sides">
        <${Fields} hits=${hits} addFilter=${addFilter} />
        <section class="panel" aria-label="Lines">
          <table class="lines" id="lines">
            <thead><tr><th class="toggle"><span class="skip">details</span></th><th class="when">time</th><th class="file">file</th><th>line</th></tr></thead>
            <tbody>${hits.map((hit) => html`<${Line} key=${hit.id} hit=${hit} />`)}</tbody>
          </table>
          ${hits.length === 0 && html`<p class="muted">No line matches. A wider time range or fewer words may help.</p>`}
          ${result.hits.length > 0 && result.hits.length < result.total && html`<p><button onClick=${more}>Older lines</button></p>`}
        </section>
      </div>`}`;
}

function Histogram({ result, onSelect }) {
  const data = useMemo(() => [result.histogram.map(([at]) => at / 1000), result.histogram.map(([, n]) => n)], [result]);
  return html`<${Plot} label=${`lines per ${result.interval ?? "interval"}`} bars=${true} height=${120} data=${data} onSelect=${onSelect}
    series=${[{ label: "lines", colour: "--series-1", format: count }]} />`;
}

const basename = (path) => (typeof path === "string" ? path.split("/").pop() : "");

function Line({ hit }) {
  const [isOpen, setOpen] = useState(false);
  const source = hit.source;
  return html`
    <tr>
      <td class="toggle"><button aria-expanded=${isOpen ? "true" : "false"} aria-label="Details" onClick=${() => setOpen(!isOpen)}>${isOpen ? "▾" : "▸"}</button></td>
      <td class="when">${time(source["@timestamp"])}</td>
      <td class="file" title=${source.log?.file?.path}>${basename(source.log?.file?.path)}</td>
      <td><${Message} hit=${hit} /></td>
    </tr>
    ${isOpen && html`<tr><td colspan="4"><${Document} hit=${hit} /></td></tr>`}`;
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

function Document({ hit }) {
  const rows = [["_index", hit.index], ["_id", hit.id], ...leaves(hit.source)];
  return html`<table class="document"><tbody>${rows.map(([path, value]) => html`<tr><td>${path}</td><td>${text(value)}</td></tr>`)}</tbody></table>`;
}

const HIDDEN = new Set(["@timestamp", "message", "event.original"]);

function Fields({ hits, addFilter }) {
  const [open, setOpen] = useState("");
  const fields = useMemo(() => {
    const found = new Map();
    for (const hit of hits) {
      for (const [path, value] of leaves(hit.source)) {
        if (HIDDEN.has(path)) continue;
        if (!found.has(path)) found.set(path, { lines: 0, values: new Map() });
        const field = found.get(path);
        field.lines += 1;
        for (const each of [value].flat()) field.values.set(each, (field.values.get(each) ?? 0) + 1);
      }
    }
    return [...found].sort(([a], [b]) => a.localeCompare(b));
  }, [hits]);
  return html`
    <section class="panel" aria-label="Fields">
      <p class="muted">Fields of the ${hits.length} lines shown</p>
      <ul class="fields">${fields.map(([path, { lines, values }]) => html`
        <li key=${path}><button aria-expanded=${open === path ? "true" : "false"} onClick=${() => setOpen(open === path ? "" : path)}><span>${path}</span><span class="muted">${Math.round((100 * lines) / hits.length)} %</span></button>
          ${open === path && html`<ul>${[...values].sort((a, b) => b[1] - a[1]).slice(0, 8).map(([value, n]) => html`
            <li><span title=${text(value)}>${text(value)}</span><span class="muted" style="flex:0">${n}</span>
              <button title="only these" aria-label=${`only lines with ${path} ${text(value)}`} onClick=${() => addFilter(path, value, true)}>+</button>
              <button title="not these" aria-label=${`no lines with ${path} ${text(value)}`} onClick=${() => addFilter(path, value, false)}>−</button></li>`)}</ul>`}
        </li>`)}</ul>
    </section>`;
}
