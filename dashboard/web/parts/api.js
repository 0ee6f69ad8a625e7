// Questions to the server: what it answered last, and in a sentence why there is nothing newer.
import { html, useState, useEffect } from "../html.js";
import { isPaused } from "./address.js";

const text = (params) => new URLSearchParams(Object.entries(params).filter(([, value]) => value !== "" && value != null)).toString();

/** An answer that is no success, told as a sentence. */
export class Refused extends Error {}

/** The answer as an object; throws an `Error` whose message a person can read. */
export async function ask(path, params = {}, { method = "GET", body, signal } = {}) {
  const query = text(params);
  let answer;
  try {
    // A change must say that it is JSON, also where it has no body: no form of another site can.
    answer = await fetch(query ? `${path}?${query}` : path, { method, signal, ...(method !== "GET" && { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer; this is tried again.");
  }
  const said = await answer.json().catch(() => null);
  if (answer.ok && said !== null) return said;
  if (answer.ok) throw new Refused("The server's answer cannot be read.");
  if (said?.error) throw new Refused(said.error);
  if (answer.status === 404 || answer.status === 405) throw new Refused(`This server does not offer ${path}.`);
  throw new Refused(`The server answered ${answer.status} to ${path}.`);
}

const REFUSED_MS = 5000;

/**
 * What `path` answers to `params`: `{body, trouble, isBusy, reload}`, asked again every `every` ms (0: never) unless
 * the page is paused or hidden. The last body stays while a newer one is asked for, also of another page of a table;
 * `path` null asks nothing.
 */
export function useAnswer(path, params = {}, { every = 0, again = 0 } = {}) {
  const [state, setState] = useState({ body: null, trouble: "", isBusy: true });
  const [asked, setAsked] = useState(0);
  const key = path && `${path}?${text(params)}`;
  useEffect(() => {
    if (!path) return undefined;
    const abort = new AbortController();
    let timer;
    const run = async () => {
      let pause = every;
      try {
        const body = await ask(path, params, { signal: abort.signal });
        if (!abort.signal.aborted) setState({ body, trouble: "", isBusy: false });
      } catch (error) {
        if (abort.signal.aborted) return;
        setState((old) => ({ body: old.body, trouble: error.message, isBusy: false }));
        // What is refused now will be refused in a second.
        if (error instanceof Refused) pause = every && Math.max(every, REFUSED_MS);
        // A server that is away for a moment is asked again, whatever the question.
        if (!every && !(error instanceof Refused)) timer = setTimeout(run, 2000);
      }
      if (every && !abort.signal.aborted) timer = setTimeout(wait, pause);
    };
    const wait = () => {
      if (isPaused() || document.hidden) timer = setTimeout(wait, 500);
      else run();
    };
    setState((old) => ({ ...old, isBusy: true }));
    run();
    return () => { abort.abort(); clearTimeout(timer); };
  }, [key, every, asked, again]);
  return { ...state, reload: () => setAsked((n) => n + 1) };
}

/** Why there is nothing, or nothing newer. */
export function Trouble({ of: { trouble, body }, what }) {
  if (!trouble) return null;
  return html`<p class="trouble" role="alert"><span aria-hidden="true">✖</span> ${what} cannot be ${body ? "renewed" : "shown"}: ${trouble}</p>`;
}
