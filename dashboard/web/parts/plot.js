// A time plot that follows the theme and the width of its place, with the same figures as a table.
import { html, useEffect, useRef, useState } from "../html.js";
import { time } from "./format.js";

/** The colour of a CSS variable as canvas understands it: light-dark() is only resolved on an element. */
function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const resolved = getComputedStyle(probe).color;
  probe.remove();
  return resolved;
}

/**
 * `series`: [{label, colour (a CSS variable), format}]; `data`: [seconds[], values[]…]; `bars` draws columns.
 * `onSelect(fromSeconds, toSeconds)` is called when a range is dragged.
 */
export function Plot({ label, series, data, height = 160, bars = false, onSelect }) {
  const place = useRef(null);
  const plot = useRef(null);
  const select = useRef(onSelect);
  select.current = onSelect;
  const [asTable, setAsTable] = useState(false);
  const shape = series.map((each) => each.label).join("\n") + bars;

  useEffect(() => {
    if (asTable) return;
    const make = () => {
      plot.current?.destroy();
      const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "11px system-ui" };
      plot.current = new uPlot({
        width: Math.max(place.current.clientWidth, 120), height,
        cursor: { drag: { x: Boolean(select.current), y: false, setScale: false } },
        legend: { live: true },
        scales: { x: { time: true }, y: { range: (_, __, top) => [0, top > 0 ? top * 1.1 : 1] } },
        axes: [axis, { ...axis, size: 56, values: (_, values) => values.map((value) => series[0].format(value)) }],
        series: [{ value: (_, value) => (value == null ? "–" : time(value * 1000)) }, ...series.map((each) => ({
          label: each.label, stroke: colour(each.colour), width: bars ? 0 : 1.5,
          fill: bars ? colour(each.colour) : undefined, paths: bars ? uPlot.paths.bars({ size: [0.9, 40] }) : undefined,
          points: { show: false }, value: (_, value) => each.format(value),
        }))],
        hooks: { setSelect: [(drawn) => {
          if (drawn.select.width < 4) return;
          const [from, to] = [drawn.posToVal(drawn.select.left, "x"), drawn.posToVal(drawn.select.left + drawn.select.width, "x")];
          drawn.setSelect({ left: 0, width: 0 }, false);
          select.current?.(from, to);
        }] },
      }, data, place.current);
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

  return html`
    <figure class="plot" aria-label=${label}>
      <figcaption>${label} <button class="link" onClick=${() => setAsTable(!asTable)}>${asTable ? "as plot" : "as table"}</button></figcaption>
      ${asTable
        ? html`<div class="scroll"><table><thead><tr><th>time</th>${series.map((each) => html`<th class="number">${each.label}</th>`)}</tr></thead>
            <tbody>${data[0].slice(-120).map((at, i) => html`<tr><td>${time(at * 1000)}</td>${series.map((each, n) => html`<td class="number">${each.format(data[n + 1].slice(-120)[i])}</td>`)}</tr>`)}</tbody></table></div>`
        : html`<div ref=${place} class="canvas" role="img" aria-label=${label}></div>`}
    </figure>`;
}
