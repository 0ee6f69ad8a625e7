// The frame of the page: rail, top bar, and the view that the address names.
import { html, render, useState, useEffect } from "./html.js";
import { useAddress, go } from "./parts/address.js";
import { useStream } from "./parts/stream.js";
import { Discover } from "./pages/discover.js";
import { Lag } from "./pages/lag.js";

const VIEWS = [
  { path: "/discover", name: "Discover", key: "d", view: Discover },
  { path: "/lag", name: "Lag", key: "l", view: Lag },
];

function useTheme() {
  const [theme, setTheme] = useState(() => localStorage.getItem("theme") ?? "");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("theme", theme);
    dispatchEvent(new Event("themechange"));
  }, [theme]);
  return [theme, setTheme];
}

/** `g d` and `g l` change the view, `/` goes to the search box. */
function useKeys() {
  useEffect(() => {
    let leader = 0;
    const onKey = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
      if (event.key === "/") {
        const search = document.querySelector("input[type=search]");
        if (search) { event.preventDefault(); search.focus(); }
      } else if (event.key === "g") {
        leader = Date.now();
      } else if (Date.now() - leader < 1000) {
        const view = VIEWS.find((each) => each.key === event.key);
        if (view) go(view.path, {});
      }
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
}

function App() {
  const address = useAddress();
  const stream = useStream();
  const [theme, setTheme] = useTheme();
  useKeys();
  const current = VIEWS.find((each) => each.path === address.path) ?? VIEWS[0];
  const View = current.view;
  useEffect(() => { document.title = `${current.name} · elkfk`; }, [current]);
  const onLink = (event, path) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(path, {});
  };
  return html`
    <a class="skip" href="#main">Skip to content</a>
    <nav class="rail" aria-label="Views">
      <img src="/icon.svg" alt="elkfk" width="32" height="32" />
      ${VIEWS.map((each) => html`
        <a href=${each.path} aria-current=${each === current ? "page" : null} onClick=${(event) => onLink(event, each.path)}>${each.name}</a>`)}
      <p class="keys muted">${[["/", "query"], ...VIEWS.map((each) => [`g ${each.key}`, each.name])].map(([keys, what]) => html`<span key=${keys}><kbd>${keys}</kbd> ${what}</span>`)}</p>
    </nav>
    <header class="top">
      <h1>${current.name}</h1>
      <${Health} stream=${stream} />
      <label class="theme">Theme
        <select value=${theme} onChange=${(event) => setTheme(event.target.value)}>
          <option value="">System</option><option value="light">Light</option><option value="dark">Dark</option>
        </select>
      </label>
    </header>
    <main id="main" tabindex="-1"><${View} address=${address} stream=${stream} /></main>`;
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
