// The lines that Discover shows: what a search found, older ones below it, new ones as they arrive.
import { useState, useEffect, useRef } from "../html.js";

const PAGE = 100;
/** Rows kept while following: what a person can still scroll through. */
const LIVE_ROWS = 1000;
/** Wait before an empty index is searched again, and the longest such wait. */
const AGAIN_MS = 500;
const AGAIN_MS_MAX = 5000;
/** How often the histogram is drawn anew while following. */
const REFRESH_MS = 5000;

class Refused extends Error {}

async function ask(params) {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== "" && value != null));
  const answer = await fetch(`/api/v1/search?${query}`);
  const body = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (answer.ok) return body;
  const error = body.error ?? `the server answered ${answer.status}`;
  throw answer.status >= 400 && answer.status < 500 ? new Refused(error) : new Error(error);
}

export const keyOf = (hit) => `${hit.index}/${hit.id}`;

/** `newer` and `older` as one list, newest first, each line once. */
function merged(newer, older) {
  const seen = new Set();
  const all = [...newer, ...older].filter((hit) => !seen.has(keyOf(hit)) && seen.add(keyOf(hit)));
  // Lines that became searchable late belong below newer ones; a list in order stays as it is.
  return all.sort((a, b) => (b.sort?.[0] ?? 0) - (a.sort?.[0] ?? 0));
}

const NOTHING = { rows: [], waiting: [], skipped: 0, arrived: 0 };

/**
 * `isReading()`: whether new lines must wait, so as not to move what a person reads.
 * Returns what is shown, and `search`, `older` and `showWaiting` to change it.
 */
export function useLines({ q, range, from, to, live }, isReading) {
  const [result, setResult] = useState(null);
  const [lines, setLines] = useState(NOTHING);
  const [trouble, setTrouble] = useState("");
  const [asked, setAsked] = useState(0);
  const reading = useRef(isReading);
  reading.current = isReading;

  useEffect(() => {
    let isCurrent = true;
    let timer;
    let wait = AGAIN_MS;
    const isAnything = !q && !range && !from && !to;
    const search = async () => {
      let isOver = !isAnything;
      try {
        const body = await ask({ q, range, from, to, size: PAGE });
        if (!isCurrent) return;
        setResult(body);
        setLines({ ...NOTHING, rows: body.hits });
        setTrouble("");
        isOver ||= body.total > 0;
      } catch (error) {
        if (!isCurrent) return;
        setTrouble(error.message);
        if (error instanceof Refused) {
          // What an earlier query found is not what was asked for.
          setResult(null);
          isOver = true;
        }
      }
      // The first lines of a new index may be on their way.
      if (!isOver) {
        timer = setTimeout(search, wait);
        wait = Math.min(wait * 2, AGAIN_MS_MAX);
      }
    };
    search();
    return () => { isCurrent = false; clearTimeout(timer); };
  }, [q, range, from, to, asked]);

  // Following begins where a search ended; a newer search of the same query is a new beginning.
  const begin = result;
  useEffect(() => {
    if (!live || !begin) return;
    const params = new URLSearchParams({ q });
    if (begin.from != null) params.set("from", begin.from);
    if (begin.exact) params.set("known", begin.total);
    const source = new EventSource(`/api/v1/tail?${params}`);
    source.addEventListener("lines", (event) => {
      const news = JSON.parse(event.data);
      setTrouble("");
      setLines((old) => take(old, news, reading.current()));
    });
    source.addEventListener("trouble", (event) => setTrouble(event.data));
    source.onerror = () => setTrouble("following was interrupted, trying again");
    let isCurrent = true;
    const refresh = setInterval(async () => {
      try {
        const body = await ask({ q, range, from, to, size: 0 });
        if (isCurrent) setSummary(body);
      } catch { /* The stream says what is wrong. */ }
    }, REFRESH_MS);
    return () => { isCurrent = false; source.close(); clearInterval(refresh); };
  }, [live, begin]);
  // What the histogram shows while following; a search replaces it.
  const [summary, setSummary] = useState(null);
  useEffect(() => setSummary(null), [begin]);

  const older = async () => {
    const last = lines.rows[lines.rows.length - 1];
    try {
      const next = await ask({ q, range, from, to, size: PAGE, after: JSON.stringify(last.sort) });
      setLines((old) => ({ ...old, rows: merged(old.rows, next.hits), isEnd: next.hits.length < PAGE }));
    } catch (error) { setTrouble(error.message); }
  };
  const showWaiting = () => setLines((old) => (old.waiting.length ? { ...old, rows: merged(old.waiting, old.rows).slice(0, LIVE_ROWS), waiting: [] } : old));
  return { result: result && { ...result, ...summary, hits: result.hits }, lines, trouble, search: () => setAsked((n) => n + 1), older, showWaiting };
}

/** The lines after `news`, which wait while a person reads. */
function take(old, news, isReading) {
  const known = new Set([...old.rows, ...old.waiting].map(keyOf));
  // The first news hold the newest lines whether they are new or not; those below the last row are older ones.
  const end = news.first && old.rows.length ? old.rows[old.rows.length - 1].sort?.[0] ?? 0 : -Infinity;
  const fresh = news.lines.filter((hit) => !known.has(keyOf(hit)) && (hit.sort?.[0] ?? 0) > end);
  const next = { ...old, arrived: old.arrived + fresh.length, skipped: old.skipped + news.skipped };
  if (fresh.length === 0) return next;
  if (isReading) {
    const waiting = merged(fresh, old.waiting);
    next.skipped += Math.max(waiting.length - LIVE_ROWS, 0);
    return { ...next, waiting: waiting.slice(0, LIVE_ROWS) };
  }
  return { ...next, waiting: [], isEnd: false, rows: merged([...fresh, ...old.waiting], old.rows).slice(0, LIVE_ROWS) };
}
