// The address bar holds the whole state of a view, so that a link shows the same thing to everyone.
import { html, useState, useEffect } from "../html.js";

/** What the bare address shows. */
const HOME = "/overview";
/** What stays when a person goes from one view to another. */
const STICKY = ["paused", "tables", "span"];

const read = () => ({ path: location.pathname === "/" ? HOME : location.pathname, query: Object.fromEntries(new URLSearchParams(location.search)) });

export const isPaused = () => Boolean(read().query.paused);

/** The address of `path` with `query`; empty values are left out. */
export function href(path, query = {}) {
  const now = read().query;
  const whole = { ...Object.fromEntries(STICKY.map((name) => [name, now[name]])), ...query };
  const text = new URLSearchParams(Object.entries(whole).filter(([, value]) => value !== "" && value != null)).toString();
  return text ? `${path}?${text}` : path;
}

/** Goes there. `replace` keeps the history short. */
export function go(path, query, replace = false) {
  const next = href(path, query);
  // Going where one is adds nothing to go back from.
  const isSame = next === location.pathname + location.search;
  history[replace || isSame ? "replaceState" : "pushState"](null, "", next);
  dispatchEvent(new Event("addresschange"));
}

/** Changes part of the query of the view that is shown. */
export function patch(changes, replace = false) {
  const { path, query } = read();
  go(path, { ...query, ...changes }, replace);
}

export function useAddress() {
  const [address, setAddress] = useState(read);
  useEffect(() => {
    const onChange = () => setAddress(read());
    addEventListener("popstate", onChange);
    addEventListener("addresschange", onChange);
    return () => { removeEventListener("popstate", onChange); removeEventListener("addresschange", onChange); };
  }, []);
  return address;
}

/** A link within the page; opened in a new tab it shows the same. */
export function Link({ to, query, children, ...rest }) {
  const onClick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    go(to, query ?? {});
  };
  return html`<a href=${href(to, query ?? {})} onClick=${onClick} ...${rest}>${children}</a>`;
}
