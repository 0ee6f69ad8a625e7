// How long each partition has been behind: partitions from top to bottom, time from left to right.
import { html, useEffect, useRef, useState } from "../html.js";
import { useAddress } from "./address.js";
import { colour } from "./plot.js";
import { clock, duration, plural } from "./format.js";

/** Upper bounds in seconds and their colours (cividis): told apart without red and green, and in grey. */
const STEPS = [
  [0.5, "#123570", "< 0.5 s"], [5, "#3b496c", "< 5 s"], [30, "#6b6d72", "< 30 s"], [120, "#928b78", "< 2 m"],
  [600, "#bfae6c", "< 10 m"], [3600, "#e4cf5b", "< 1 h"], [Infinity, "#fdea45", "≥ 1 h"],
];
const shade = (seconds) => STEPS.find(([bound]) => seconds < bound)[1];

/** Height of the strip: enough to press a row where there are few, all of them where there are many. */
const rowHeight = (rows) => Math.max(1, Math.min(16, Math.floor(300 / Math.max(rows, 1))));

/** Rows of the table that are added at a time. */
const TABLE_ROWS = 100;

/** `heat`: {partitions, times_ms, seconds}; `onChoose(partition)`. */
export function Heat({ heat, chosen, onChoose }) {
  const canvas = useRef(null);
  const areTables = Boolean(useAddress().query.tables);
  const [own, setOwn] = useState(null);
  const [under, setUnder] = useState(null);
  const [shown, setShown] = useState(TABLE_ROWS);
  useEffect(() => setOwn(null), [areTables]);
  const asTable = own ?? areTables;
  const { partitions, times_ms: times, seconds } = heat;
  const high = rowHeight(partitions.length);

  useEffect(() => {
    if (asTable || !canvas.current) return undefined;
    const draw = () => {
      const place = canvas.current;
      if (!place) return;
      const ratio = devicePixelRatio;
      const wide = place.clientWidth;
      place.width = Math.round(wide * ratio);
      place.height = Math.round(high * partitions.length * ratio);
      const ctx = place.getContext("2d");
      const unknown = colour("--quiet-soft");
      const gap = high >= 6 ? 1 : 0;
      for (let row = 0; row < partitions.length; row += 1) {
        for (let column = 0; column < times.length; column += 1) {
          const value = seconds[row]?.[column];
          const [from, to] = [column, column + 1].map((n) => Math.round((n * wide * ratio) / times.length));
          ctx.fillStyle = value == null ? unknown : shade(value);
          ctx.fillRect(from, Math.round(row * high * ratio), Math.max(to - from, 1), Math.ceil((high - gap) * ratio));
        }
      }
      const at = partitions.indexOf(chosen);
      if (at >= 0) {
        ctx.strokeStyle = colour("--ink");
        ctx.lineWidth = 2 * ratio;
        ctx.strokeRect(ratio, Math.round(at * high * ratio) + ratio * 0.5, place.width - 2 * ratio, Math.max(high * ratio - ratio, 2 * ratio));
      }
    };
    draw();
    const resized = new ResizeObserver(draw);
    resized.observe(canvas.current.parentElement);
    addEventListener("themechange", draw);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", draw);
    return () => { resized.disconnect(); removeEventListener("themechange", draw); dark.removeEventListener("change", draw); };
  }, [heat, chosen, asTable]);

  const cellAt = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const row = Math.min(Math.floor(((event.clientY - box.top) / box.height) * partitions.length), partitions.length - 1);
    const column = Math.min(Math.floor(((event.clientX - box.left) / box.width) * times.length), times.length - 1);
    return row >= 0 && column >= 0 ? [row, column] : null;
  };
  const onMove = (event) => setUnder(cellAt(event));
  const onClick = (event) => { const cell = cellAt(event); if (cell) onChoose(partitions[cell[0]]); };
  const of = (value) => (value == null ? "unknown" : duration(value));
  const latest = (row) => seconds[row]?.[times.length - 1];
  const most = (row) => { const known = (seconds[row] ?? []).filter((each) => each != null); return known.length ? Math.max(...known) : null; };
  return html`
    <figure class="heat" aria-label="Seconds behind, by partition">
      <figcaption><span>Seconds behind, ${plural(partitions.length, "partition")} × time <button class="link" onClick=${() => setOwn(!asTable)}>${asTable ? "as picture" : "as table"}</button></span>
        <span class="scale" hidden=${asTable}>${STEPS.map(([, shown, name]) => html`<span key=${name}><svg width="10" height="10" aria-hidden="true"><rect width="10" height="10" rx="2" fill=${shown} /></svg> ${name}</span>`)}<span><svg width="10" height="10" aria-hidden="true"><rect class="unknown" width="10" height="10" rx="2" /></svg> unknown</span></span></figcaption>
      ${asTable
        ? html`<div class="scroll" tabindex="0" role="region" aria-label="Seconds behind by partition, table"><table><thead><tr><th class="number">partition</th><th class="number">now</th><th class="number">at most since ${clock(times[0])}</th></tr></thead>
            <tbody>${partitions.slice(0, shown).map((partition, row) => html`<tr key=${partition} class=${partition === chosen ? "chosen" : null}><td class="number"><button class="link" onClick=${() => onChoose(partition)}>${partition}</button></td><td class="number">${of(latest(row))}</td><td class="number">${of(most(row))}</td></tr>`)}</tbody></table>
            ${partitions.length > shown && html`<p><button class="link" onClick=${() => setShown(shown + TABLE_ROWS)}>${plural(partitions.length - shown, "more partition")}</button></p>`}</div>`
        : html`<div class="canvas"><canvas ref=${canvas} role="img" aria-label=${`Seconds behind of ${plural(partitions.length, "partition")} from ${clock(times[0])} to ${clock(times[times.length - 1])}; the same is there as a table`}
            style=${{ height: `${high * partitions.length}px` }} onMouseMove=${onMove} onMouseLeave=${() => setUnder(null)} onClick=${onClick}></canvas></div>
          <p class="under muted"><span>${clock(times[0])}</span><span>${under && partitions[under[0]] != null ? html`partition ${partitions[under[0]]} at ${clock(times[under[1]])}: ${of(seconds[under[0]]?.[under[1]])}` : "press a row to look at its partition"}</span><span>${clock(times[times.length - 1])}</span></p>`}
    </figure>`;
}
