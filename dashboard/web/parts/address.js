// The address bar holds the whole state of a view, so that a link shows the same thing to everyone.
import { useState, useEffect } from "../html.js";

const read = () => ({ path: location.pathname === "/" ? "/discover" : location.pathname, query: Object.fromEntries(new URLSearchParams(location.search)) });

/** Goes to `path` with `query`; empty values are left out. `replace` keeps the history short. */
export function go(path, query, replace = false) {
  const params = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value != null));
  const text = params.toString();
  history[replace ? "replaceState" : "pushState"](null, "", text ? `${path}?${text}` : path);
  dispatchEvent(new Event("addresschange"));
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
