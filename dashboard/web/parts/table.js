// Tables that the server sorts and pages: heads that are pressed, and the way to the next page.
import { html, useState, useEffect, useRef } from "../html.js";
import { exact } from "./format.js";

/**
 * `columns`: [{name, key (what the server sorts by; none: not sorted), isNumber}].
 * Pressing the sorted column again turns the order around; figures begin with the largest.
 */
export function Head({ columns, sort, desc, onSort }) {
  return html`<thead><tr>${columns.map(({ name, key, isNumber, hint }) => html`
    <th key=${name} scope="col" class=${isNumber ? "number" : null} aria-sort=${key && key === sort ? (desc ? "descending" : "ascending") : null} title=${hint ?? null}>
      ${key ? html`<button class="sort" onClick=${() => onSort(key, key === sort ? !desc : Boolean(isNumber))}>${name}<span aria-hidden="true" class="arrow">${key === sort ? (desc ? " ▼" : " ▲") : ""}</span></button>` : name}</th>`)}</tr></thead>`;
}

export function Pager({ total, offset, limit, onPage, what = "rows" }) {
  if (total == null) return null;
  if (total <= limit && offset === 0) return html`<p class="pager muted">${exact(total)} ${total === 1 ? what.replace(/s$/, "") : what}</p>`;
  const last = Math.max(Math.ceil(total / limit) - 1, 0) * limit;
  const to = (at) => () => onPage(Math.min(Math.max(at, 0), last));
  return html`<nav class="pager" aria-label=${`Pages of ${what}`}>
    <button aria-label="First page" disabled=${offset === 0} onClick=${to(0)}>«</button>
    <button aria-label="Page before" disabled=${offset === 0} onClick=${to(offset - limit)}>‹</button>
    <span role="status">${exact(Math.min(offset + 1, total))}–${exact(Math.min(offset + limit, total))} of ${exact(total)} ${what}</span>
    <button aria-label="Next page" disabled=${offset + limit >= total} onClick=${to(offset + limit)}>›</button>
    <button aria-label="Last page" disabled=${offset + limit >= total} onClick=${to(last)}>»</button>
  </nav>`;
}

/** A search box whose text is handed on a moment after typing, at once with Enter. */
export function Find({ label, value, onFind, placeholder }) {
  const [typed, setTyped] = useState(value);
  const timer = useRef(0);
  useEffect(() => setTyped(value), [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const onInput = (event) => {
    const text = event.target.value;
    setTyped(text);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => onFind(text), 200);
  };
  const onKeyDown = (event) => {
    if (event.key !== "Enter") return;
    clearTimeout(timer.current);
    onFind(event.target.value);
  };
  return html`<input type="search" class="find" aria-label=${label} placeholder=${placeholder ?? label} value=${typed} onInput=${onInput} onKeyDown=${onKeyDown} />`;
}
