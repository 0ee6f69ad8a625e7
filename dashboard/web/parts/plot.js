// A time plot that follows the theme and the width of its place, with the same figures as a table.
import { html, useEffect, useRef, useState } from "../html.js";
import { useAddress } from "./address.js";
import { time, tick } from "./format.js";

const resolved = new Map();
const isDark = matchMedia("(prefers-color-scheme: dark)");

/** The colour of a CSS variable as canvas understands it: light-dark() is only resolved on an element. */
export function colour(name) {
  const key = `${document.documentElement.dataset.theme} ${isDark.matches} ${name}`;
  if (!resolved.has(key)) {
    const probe = document.createElement("span");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    resolved.set(key, getComputedStyle(probe).color);
    probe.remove();
  }
  return resolved.get(key);
}

/** Rows of the table: what a person reads of it, and a screen reader can bear. */
const TABLE_ROWS = 120;

/** What happened, as a mark on a plot: glyph, colour, and what it is called. */
export const MARKS = {
  expansion: ["⊕", "--series-1", "expansion"], scaling: ["±", "--series-1", "scaling"], rebalance: ["⇄", "--series-4", "rebalance"], leader: ["★", "--series-3", "leader change"],
  reset: ["↺", "--bad", "offset reset"], restart: ["↻", "--muted", "restart"], alert: ["!", "--warn", "alert"],
};

/** Marks go over the lines, thin enough to see both; `at` is the one that a link points to. */
function drawMarks(drawn, { marks, at }) {
  const { ctx, bbox } = drawn;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.font = `${11 * ratio}px system-ui, sans-serif`;
  ctx.textAlign = "center";
  ctx.textBaseline = "top";
  for (const mark of marks) {
    const x = Math.round(drawn.valToPos(mark.at_ms / 1000, "x", true));
    if (!(x >= bbox.left && x <= bbox.left + bbox.width)) continue;
    const [glyph, name] = MARKS[mark.kind] ?? MARKS.restart;
    const isChosen = mark.at_ms === at;
    ctx.strokeStyle = ctx.fillStyle = colour(name);
    ctx.lineWidth = (isChosen ? 2.5 : 1) * ratio;
    ctx.setLineDash(isChosen ? [] : [4 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top + 12 * ratio);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.fillText(glyph, x, bbox.top - 2 * ratio);
  }
  ctx.restore();
}

const NO_MARKS = [];

/**
 * `series`: [{label, colour (a CSS variable), format, cell (how the table writes it, if otherwise)}]; `data`: [seconds[], values[]…].
 * `columnSeconds` draws columns of that width instead of lines. Plots of the same `sync` share their cursor.
 * `onSelect(fromSeconds, toSeconds)` is called when a range is dragged, or, of columns, a row of the table is pressed.
 * `marks`: [{at_ms, kind, text}], of which the one at `at` is drawn strongly. `between` fills the space between two series.
 */
export function Plot({ label, series, data, height = 150, columnSeconds = 0, sync, onSelect, marks = NO_MARKS, at = 0, between = false }) {
  const place = useRef(null);
  const legend = useRef(null);
  const plot = useRef(null);
  const dragged = useRef(false);
  // The plot outlives a rendering: what it calls is always of the newest one.
  const latest = useRef({});
  latest.current = { onSelect, data, columnSeconds, marks, at };
  // All plots at once by the address, each one by its own button.
  const areTables = Boolean(useAddress().query.tables);
  const [own, setOwn] = useState(null);
  useEffect(() => setOwn(null), [areTables]);
  const asTable = own ?? areTables;
  const isBars = columnSeconds > 0;
  const shape = series.map((each) => each.label).join("\n") + isBars;

  useEffect(() => {
    if (asTable) return;
    const make = () => {
      plot.current?.destroy();
      const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "11px system-ui, sans-serif" };
      const bars = isBars ? uPlot.paths.bars({ size: [0.92, 60], align: 1 }) : undefined;
      plot.current = new uPlot({
        width: Math.max(place.current.clientWidth, 120), height, padding: [14, 26, 0, 0],
        cursor: { drag: { x: Boolean(latest.current.onSelect), y: false, setScale: false }, points: { show: !isBars }, ...(sync && { sync: { key: sync } }) },
        legend: { live: true, mount: (_, table) => legend.current?.replaceChildren(table) },
        scales: {
          // The last column ends one width after it begins.
          x: { time: true, range: (_, from, to) => [from, Math.max(to + latest.current.columnSeconds, from + 1)] },
          y: { range: (_, __, top) => [0, top > 0 ? top * 1.1 : 1] },
        },
        axes: [
          { ...axis, space: 70, values: (_, splits, __, ___, step) => splits.map((at, i) => tick(at, step, splits[i - 1])) },
          { ...axis, size: 68, space: 28, values: (_, values) => values.map((value) => series[0].format(value)) },
        ],
        series: [{ label: "time", value: (_, value) => (value == null ? "–" : time(value * 1000).slice(0, 19)) }, ...series.map((each) => ({
          label: each.label, stroke: colour(each.colour), width: isBars ? 0 : 1.75, paths: bars,
          fill: isBars || each.isFilled ? colour(isBars ? each.colour : `${each.colour}-soft`) : undefined,
          points: { show: false }, value: (_, value) => each.format(value),
        }))],
        ...(between && { bands: [{ series: [1, 2], fill: colour("--series-2-soft") }, { series: [2, 1], fill: colour("--series-3-soft") }] }),
        hooks: { draw: [(drawn) => drawMarks(drawn, latest.current)], setSelect: [(drawn) => {
          // Plots that share their cursor share what is dragged; the one under the pointer tells.
          const isOwn = dragged.current;
          dragged.current = false;
          if (drawn.select.width < 4 || !isOwn) return;
          const [from, to] = [drawn.posToVal(drawn.select.left, "x"), drawn.posToVal(drawn.select.left + drawn.select.width, "x")];
          drawn.setSelect({ left: 0, width: 0 }, false);
          latest.current.onSelect?.(from, to);
        }] },
      }, latest.current.data, place.current);
    };
    make();
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: Math.max(place.current?.clientWidth ?? 0, 120), height }));
    resized.observe(place.current);
    addEventListener("themechange", make);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", make);
    return () => {
      resized.disconnect();
      removeEventListener("themechange", make);
      dark.removeEventListener("change", make);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape, asTable]);
  useEffect(() => { plot.current?.setData(data); }, [data]);
  useEffect(() => { plot.current?.redraw(false); }, [marks, at]);

  const first = Math.max(data[0].length - TABLE_ROWS, 0);
  const when = (i) => (onSelect && isBars
    ? html`<button class="link" title="only this time" onClick=${() => onSelect(data[0][i], data[0][i] + columnSeconds)}>${time(data[0][i] * 1000)}</button>`
    : time(data[0][i] * 1000));
  return html`
    <figure class="plot" aria-label=${label}>
      <figcaption><span>${label} <button class="link" onClick=${() => setOwn(!asTable)}>${asTable ? "as plot" : "as table"}</button></span><span class="legend" ref=${legend} hidden=${asTable}></span></figcaption>
      ${asTable
        ? html`<div class="scroll" tabindex="0" role="region" aria-label=${`${label}, table`}><table><thead><tr><th>time</th>${series.map((each) => html`<th class="number">${each.label}</th>`)}</tr></thead>
            <tbody>${data[0].slice(first).map((_, i) => html`<tr><td>${when(first + i)}</td>${series.map((each, n) => html`<td class="number">${(each.cell ?? each.format)(data[n + 1][first + i])}</td>`)}</tr>`)}</tbody></table></div>`
        : html`<div ref=${place} class="canvas" role="img" aria-label=${label} onMouseDown=${() => { dragged.current = true; }}></div>`}
    </figure>`;
}
