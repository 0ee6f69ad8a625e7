// What the autoscaler decided, also where that was to do nothing, and what became of it.
import { html } from "../html.js";
import { go } from "./address.js";
import { count, duration, exact, moment, percent, plural } from "./format.js";

/** Half of what is shown around a decision on the plots of Lag. */
const AROUND_MS = 15 * 60_000;

const step = (from, to) => `${from} → ${to}`;

export function actionText(action) {
  if (!action) return "";
  if (action.do === "partitions") return `partitions ${step(action.from, action.to)}${action.consumers_from === action.consumers_to ? "" : `, consumers ${step(action.consumers_from, action.consumers_to)}`}`;
  return `${action.do} ${step(action.from, action.to)}`;
}

const alarmText = (alarm) => ({
  sink: "the sink is blocked", "no-consumers": "no consumers", stopped: "stopped", "no-gain": "the last step did not help", maximum: "everything is at its maximum",
  stalled: `${plural(alarm.count ?? 0, "partition")} stalled`, "hot-file": `one file makes most of it: ${alarm.path}`, "hot-partition": `partition ${alarm.partition} gets most of it`, retention: `unread records of ${alarm.group} are about to be deleted`,
}[alarm.alarm] ?? alarm.alarm);

const adviceText = (advice) => ({
  "bulk-concurrency": "more bulk requests at once, if Elasticsearch has capacity left",
  retention: `retention could be as short as ${duration((advice.retention_ms ?? 0) / 1000)}: group ${advice.slowest_group} is the slowest`,
}[advice.advice] ?? advice.advice);

/** Rules of which a backlog is no condition. */
const CALM = new Set(["watching", "not-hot", "scale-in"]);

const VERDICTS = { gained: "gained", "no-gain": "no gain", drained: "drained", blocked: "blocked by Elasticsearch", "not-carried-out": "not carried out", overtaken: "overtaken by the next step", unseen: "nobody looked" };

const key = (event, at) => `${event.group}\n${event.topic}\n${at}`;

/** `/lag` around `event`, with its mark. */
function show(event) {
  go("/lag", { group: event.group, topic: event.topic, at: event.at_ms, from: event.at_ms - AROUND_MS, to: Math.min(event.at_ms + AROUND_MS, Date.now()) });
}

/** `decisions`: events as they stand in the topic, newest first; `hasNames`: also which group and topic. */
export function Decisions({ decisions, hasNames = true }) {
  const effects = new Map(decisions.filter((event) => event.event === "effect").map((event) => [key(event, event.of_ms), event]));
  const rows = decisions.filter((event) => event.event !== "effect");
  return html`<div class="wide" tabindex="0" role="region" aria-label="Table of decisions"><table class="decisions">
    <thead><tr><th scope="col">time</th>${hasNames && html`<th scope="col">topic</th>`}<th scope="col">what was seen</th><th scope="col">rule</th><th scope="col">action</th><th scope="col">effect</th><th scope="col">why</th></tr></thead>
    <tbody>${rows.map((event) => html`<${Decision} key=${`${key(event, event.at_ms)}\n${event.rule}`} event=${event} effect=${effects.get(key(event, event.at_ms))} hasNames=${hasNames} />`)}</tbody></table></div>`;
}

function Decision({ event, effect, hasNames }) {
  const { inputs = {} } = event;
  const isDry = !event.action && Boolean(event.advised);
  const seen = [
    ["lag", count(inputs.lag_records)], ["behind", duration(Math.round((inputs.time_lag_s ?? 0) * 10) / 10)], ["empty in", inputs.drain_s == null ? (CALM.has(event.rule) ? "–" : "never") : duration(Math.round(inputs.drain_s))],
    ["in", `${count(inputs.arrival_per_s)}/s`], ["out", `${count(inputs.consumed_per_s)}/s`], ["consumers", `${inputs.consumers}/${inputs.consumers_max}`], ["partitions", `${inputs.partitions}/${inputs.partitions_max}`],
    ...(inputs.blocked_share > 0 ? [["blocked", percent(inputs.blocked_share)]] : []), ...(inputs.stalled > 0 ? [["stalled", exact(inputs.stalled)]] : []),
  ];
  return html`<tr class=${event.action ? "acted" : isDry ? "dry" : null}>
    <td class="nowrap"><button class="link" title="Show it on Lag" onClick=${() => show(event)}>${moment(event.at_ms)}</button></td>
    ${hasNames && html`<td>${event.topic}<br /><span class="muted">${event.group}</span></td>`}
    <td class="seen">${seen.map(([name, value]) => html`<span key=${name}><span class="muted">${name}</span> ${value}</span> `)}</td>
    <td class="nowrap">${String(event.rule).replaceAll("-", " ")}</td>
    <td class="nowrap">${event.action ? html`<strong>${actionText(event.action)}</strong>` : isDry ? html`<span class="dry-tag">would: ${actionText(event.advised)}</span>` : html`<span class="muted">none</span>`}</td>
    <td>${effect ? html`<span class=${effect.verdict === "gained" || effect.verdict === "drained" ? "well" : "warn"} title=${effect.why}>${VERDICTS[effect.verdict] ?? effect.verdict}</span> <span class="muted nowrap">${count(effect.consumed_before_per_s)} → ${count(effect.consumed_after_per_s)}/s</span>` : event.action ? html`<span class="muted">not known yet</span>` : ""}</td>
    <td class="sentence">${event.why}${(event.alarms ?? []).map((alarm) => html`<br /><span class="bad" key=${alarm.alarm}><span aria-hidden="true">▲</span> ${alarmText(alarm)}</span>`)}${(event.advice ?? []).map((advice) => html`<br /><span class="muted" key=${advice.advice}>Offered: ${adviceText(advice)}</span>`)}</td></tr>`;
}
