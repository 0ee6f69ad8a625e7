// Overview: the way of a line from files to the index on one screen, where it is slowest, and what was done about it.
import { html } from "../html.js";
import { patch, Link } from "../parts/address.js";
import { useAnswer, Trouble } from "../parts/api.js";
import { Decisions } from "../parts/decisions.js";
import { Glyph, rate } from "../parts/figures.js";
import { spanOf } from "../parts/span.js";
import { count, duration, exact, percent, bytes, clock, text } from "../parts/format.js";

const NAMES = { files: "Files", shipper: "Shipper", topics: "Topics", sink: "Sink", indices: "Indices" };
/** Worst topics in the column of topics. */
const TOPICS = 6;

export function Overview({ address, stream }) {
  const answer = useAnswer("/api/v1/overview", {}, { every: 1000, again: stream.opened });
  const acted = Boolean(address.query.acted);
  return html`
    <${Trouble} of=${answer} what="The flow" />
    ${!answer.body && !answer.trouble && html`<p class="muted" role="status">Waiting for the first measurement…</p>`}
    ${answer.body && html`<${Flow} overview=${answer.body} snapshot=${stream.lag} />`}
    <${Log} acted=${acted} fallback=${answer.body?.decisions} query=${address.query} opened=${stream.opened} />`;
}

/** The hop that the sentence is about. */
const slowest = ({ hops, bottleneck_hop: name }) => hops.find((hop) => hop.name === name) ?? null;

function Flow({ overview, snapshot }) {
  const { hops, bottleneck, end_to_end_s: whole } = overview;
  const slow = slowest(overview);
  return html`<section aria-label="Flow">
    <p class=${`sentence-line ${bottleneck ? "slow" : "fine"}`} id="bottleneck"><span aria-hidden="true">${bottleneck ? "▲" : "✔"}</span> ${bottleneck ?? "Nothing holds the lines up."}
      <span class="end">from file to index <strong id="end-to-end">${duration(whole)}</strong></span></p>
    <ol class="flow">${hops.map((hop, i) => html`
      ${i > 0 && html`<${Band} key=${`${hop.name}-band`} from=${hops[i - 1].rate} to=${hop.rate} />`}
      <${Hop} key=${hop.name} hop=${hop} isSlow=${hop === slow} snapshot=${snapshot} />`)}</ol>
  </section>`;
}

/** 1/s is thin, 1,000,000/s is as wide as it gets. */
const width = (value) => (value > 0 ? 4 + Math.min(Math.log10(1 + value) / 6, 1) * 72 : 1);

/** What flows from one box to the next: as wide as the logarithm of its rate on either side. */
function Band({ from, to }) {
  const [a, b] = [width(from), width(to ?? from)].map((wide) => wide / 2);
  return html`<li class="band" aria-hidden="true"><svg viewBox="0 0 100 100" preserveAspectRatio="none"><path d=${`M0 ${50 - a}C50 ${50 - a} 50 ${50 - b} 100 ${50 - b}V${50 + b}C50 ${50 + b} 50 ${50 + a} 0 ${50 + a}Z`} /></svg></li>`;
}

function Hop({ hop, isSlow, snapshot }) {
  const facts = [
    ["waiting", hop.lag != null ? html`${count(hop.lag)} <small>${hop.lag === 1 ? "record" : "records"}</small>` : hop.waiting_bytes == null ? null : bytes(hop.waiting_bytes)],
    ["oldest", hop.lag_seconds == null ? null : duration(hop.lag_seconds)],
    ["takes", hop.latency_s == null ? null : html`<span title=${hop.latency_is ?? null}>${duration(hop.latency_s)}</span>`],
  ];
  return html`<li class=${`hop ${isSlow ? "slowest" : ""} ${hop.ok === false ? "down" : ""}`} data-hop=${hop.name}>
    <h2><span aria-hidden="true" class=${hop.ok === false ? "bad" : hop.ok ? "good" : "muted"}>${hop.ok === false ? "✖" : hop.ok ? "✔" : "○"}</span> ${NAMES[hop.name] ?? hop.name} ${isSlow && html`<span class="tag">slowest</span>`}</h2>
    <p class="rate">${hop.rate == null ? "–" : count(hop.rate)} <small>/s</small></p>
    <dl>${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value ?? "–"}</dd></div>`)}</dl>
    ${hop.text && html`<p class="said">${hop.text}</p>`}
    <${Detail} detail=${hop.detail} />
    ${hop.name === "topics" && snapshot && html`<${Worst} groups=${snapshot.groups} />`}
  </li>`;
}

/** Worst topics by seconds. */
function Worst({ groups }) {
  const all = groups.flatMap((group) => group.topics.map((topic) => ({ group: group.group, ...topic })));
  const worst = all.sort((a, b) => (b.lag_seconds ?? -1) - (a.lag_seconds ?? -1) || (b.lag ?? -1) - (a.lag ?? -1)).slice(0, TOPICS);
  if (!worst.length) return null;
  return html`<ul class="worst">${worst.map((each) => html`<li key=${`${each.group}\n${each.topic}`}>
    <${Link} to="/lag" query=${{ group: each.group, topic: each.topic }} title=${`${each.topic}, read by ${each.group}`}><${Glyph} state=${each.state} /> ${each.topic} · ${each.group}<//><span>${duration(each.lag_seconds)}</span></li>`)}</ul>`;
}

const DETAILS = 6;

/** A figure by the unit that its name ends with. */
function figure(name, value) {
  if (Array.isArray(value)) return value.every((each) => typeof each === "string") ? value.slice(0, 3).join(", ") + (value.length > 3 ? ` and ${exact(value.length - 3)} more` : "") : exact(value.length);
  if (typeof value !== "number") return text(value);
  if (/_ms$/.test(name) && value > 1e11) return clock(value);
  if (/_bytes(_total)?$|^bytes/.test(name)) return bytes(value);
  if (/_rate$|_per_s$/.test(name)) return rate(value);
  if (/_ms$/.test(name)) return duration(value / 1000);
  if (/_s$|seconds/.test(name)) return duration(value);
  if (/_share$|_used$/.test(name)) return percent(value);
  return Number.isInteger(value) ? count(value) : value.toFixed(2);
}

function Detail({ detail }) {
  const entries = Object.entries(detail ?? {}).filter(([name, value]) => name !== "unshipped_bytes" && name !== "in_flight_bytes" && value != null && value !== "" && (typeof value !== "object" || Array.isArray(value)));
  if (!entries.length) return null;
  return html`<dl class="detail">${entries.slice(0, DETAILS).map(([name, value]) => html`<div key=${name}><dt>${name.replace(/_(bytes|ms|per_s|s|seconds|total|share|rate)$/, "").replaceAll("_", " ")}</dt><dd>${figure(name, value)}</dd></div>`)}</dl>`;
}

function Log({ acted, fallback, query, opened }) {
  const answer = useAnswer("/api/v1/decisions", { acted: acted ? 1 : "", limit: 100 }, { every: 5000, again: opened });
  // Without its own endpoint there are still the newest that the overview brings.
  const all = answer.body?.decisions ?? fallback ?? null;
  const { from, to } = spanOf(query);
  const shown = all?.filter((event) => event.at_ms >= from && event.at_ms <= to + 60_000 && (!acted || event.event === "effect" || event.action || event.advised));
  const older = all && shown ? all.length - shown.length : 0;
  return html`<section class="panel" aria-label="Decisions">
    <p class="bar-title"><span class="side-title">Decisions of the autoscaler</span>
      <label><input type="checkbox" checked=${acted} onChange=${(event) => patch({ acted: event.target.checked ? "1" : "" }, true)} /> acted only</label>
      <span class="muted"><span class="dry-tag">hatched</span> would have been done, but the mode is advise</span></p>
    ${!all && html`<${Trouble} of=${answer} what="The decisions" />`}
    ${shown?.length > 0 && html`<${Decisions} decisions=${shown} />`}
    ${all && !shown.length && html`<p class="muted">${older ? `None in this time; ${exact(older)} earlier.` : answer.body?.why ?? (acted ? "Nothing has been done yet." : "Nothing has been decided yet.")}</p>`}
  </section>`;
}
