// The frame of the page: rail, top bar, and the view that the address names.
import { html, render, useState, useEffect, useRef, useErrorBoundary } from "./html.js";
import { useAddress, go, patch, Link } from "./parts/address.js";
import { useStream } from "./parts/stream.js";
import { clock } from "./parts/format.js";
import { SPANS } from "./parts/span.js";
import { Alerts } from "./pages/alerts.js";
import { Discover } from "./pages/discover.js";
import { Ensemble } from "./pages/ensemble.js";
import { Groups } from "./pages/groups.js";
import { Lag } from "./pages/lag.js";
import { Overview } from "./pages/overview.js";
import { Topics } from "./pages/topics.js";

/** `hasSpan`: the view shows what was, as far back as the top bar says. */
const VIEWS = [
  { path: "/overview", name: "Overview", key: "o", view: Overview, hasSpan: true },
  { path: "/lag", name: "Lag", key: "l", view: Lag, hasSpan: true },
  { path: "/topics", name: "Topics", key: "t", view: Topics },
  { path: "/groups", name: "Groups", key: "g", view: Groups },
  { path: "/discover", name: "Discover", key: "d", view: Discover },
  { path: "/ensemble", name: "Ensemble", key: "e", view: Ensemble },
  { path: "/alerts", name: "Alerts", key: "a", view: Alerts },
];
const KEYS = [["/", "search"], ...VIEWS.map(({ key, name }) => [`g ${key}`, name]), ["t", "tables instead of plots, and back"], ["p", "pause, and go on"], ["?", "these keys"]];
/** How long after `g` the second key counts. */
const LEADER_MS = 1500;

function useTheme() {
  const [theme, setTheme] = useState(() => localStorage.getItem("theme") ?? "");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("theme", theme);
    dispatchEvent(new Event("themechange"));
  }, [theme]);
  return [theme, setTheme];
}

const isTyping = ({ tagName, type }) => tagName === "TEXTAREA" || tagName === "SELECT" || (tagName === "INPUT" && !/^(checkbox|radio)$/.test(type));

/** What the keys of `KEYS` do; `actions` are those that are one key. */
function useKeys(actions) {
  const latest = useRef(actions);
  latest.current = actions;
  useEffect(() => {
    let leader = 0;
    const onKey = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.querySelector("dialog[open]")) return;
      const view = Date.now() - leader < LEADER_MS && VIEWS.find((each) => each.key === event.key);
      leader = 0;
      if (view) go(view.path, {});
      else if (event.key === "g") leader = Date.now();
      else if (latest.current[event.key]) latest.current[event.key](event);
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
}

function App() {
  const address = useAddress();
  const { paused, tables } = address.query;
  const stream = useStream(Boolean(paused));
  const [theme, setTheme] = useTheme();
  const [showsKeys, setShowsKeys] = useState(false);
  const current = VIEWS.find((each) => each.path === address.path) ?? VIEWS[0];
  const pause = () => patch({ paused: paused ? "" : "1" }, true);
  useKeys({
    "/": (event) => {
      const search = document.querySelector("main input[type=search]");
      if (search) { event.preventDefault(); search.focus(); }
    },
    t: () => patch({ tables: tables ? "" : "1" }, true),
    p: pause,
    "?": () => setShowsKeys(true),
  });
  useEffect(() => { document.title = `${[address.query.topic, address.query.group].filter(Boolean).concat(current.name).join(" · ")} · elkfk`; }, [current, address]);
  return html`
    <a class="skip" href="#main">Skip to content</a>
    <nav class="rail" aria-label="Views">
      <img src="/icon.svg" alt="elkfk" width="32" height="32" />
      ${VIEWS.map(({ path, name }) => html`<${Link} key=${path} to=${path} aria-current=${path === current.path ? "page" : null}>${name}<//>`)}
      <button class="link help" aria-haspopup="dialog" onClick=${() => setShowsKeys(true)}><kbd>?</kbd> keys</button>
    </nav>
    <header class="top">
      <h1>${current.name}</h1>
      <${Health} stream=${stream} />
      ${current.hasSpan && html`<label class="field">Time
        <select aria-label="Time shown" value=${address.query.from ? "custom" : (address.query.span ?? "")} onChange=${(event) => patch({ span: event.target.value, from: "", to: "" })}>
          ${SPANS.map(([value, name]) => html`<option key=${value} value=${value}>${name}</option>`)}
          ${address.query.from && html`<option value="custom">${clock(Number(address.query.from))} – ${clock(Number(address.query.to))}</option>`}
        </select></label>`}
      <button class="pause" aria-pressed=${paused ? "true" : "false"} title="The figures stay as they are (key p)" onClick=${pause}><span aria-hidden="true">${paused ? "▶" : "❚❚"}</span> ${paused ? "Paused" : "Pause"}</button>
      <label class="theme field">Theme
        <select value=${theme} onChange=${(event) => setTheme(event.target.value)}>
          <option value="">System</option><option value="light">Light</option><option value="dark">Dark</option>
        </select>
      </label>
    </header>
    <main id="main" tabindex="-1"><${Guarded} key=${current.path} view=${current.view} address=${address} stream=${stream} /></main>
    ${showsKeys && html`<${Keys} onClose=${() => setShowsKeys(false)} />`}`;
}

/** A view that fails says so, and leaves the frame as it is. */
function Guarded({ view: View, address, stream }) {
  const [error, reset] = useErrorBoundary((caught) => console.error(caught));
  if (error) return html`<p class="trouble" role="alert"><span aria-hidden="true">✖</span> This view cannot be drawn: ${String(error.message ?? error)} <button onClick=${reset}>Try again</button></p>`;
  return html`<${View} address=${address} stream=${stream} />`;
}

function Keys({ onClose }) {
  const dialog = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    dialog.current.showModal();
    return () => before?.focus?.();
  }, []);
  return html`<dialog ref=${dialog} aria-labelledby="keys-title" onClose=${onClose} onKeyDown=${(event) => { if (event.key === "?") dialog.current.close(); }}>
    <h2 id="keys-title">Keys</h2>
    <dl class="keys">${KEYS.map(([keys, what]) => html`<div key=${keys}><dt>${keys.split(" ").map((key) => html`<kbd key=${key}>${key}</kbd> `)}</dt><dd>${what}</dd></div>`)}</dl>
    <form method="dialog"><button class="primary">Close</button></form>
  </dialog>`;
}

function Health({ stream }) {
  if (stream.state !== "open") return html`<p class="health bad" role="status"><span aria-hidden="true">✖</span> ${stream.state === "connecting" ? "connecting…" : "the server does not answer, trying again"}</p>`;
  const boxes = [["broker", stream.lag?.broker], ["store", stream.lag?.store]].filter(([, health]) => health);
  const trouble = boxes.filter(([, health]) => !health.ok);
  return trouble.length
    ? html`<p class="health bad" role="status"><span aria-hidden="true">✖</span> ${trouble.map(([name, { text }]) => `${name}: ${text}`).join(" · ")}</p>`
    : html`<p class="health good" role="status"><span aria-hidden="true">✔</span> ${boxes.length ? boxes.map(([name, { text }]) => `${name} ${text}`).join(" · ") : "connected"}</p>`;
}

render(html`<${App} />`, document.getElementById("app"));
