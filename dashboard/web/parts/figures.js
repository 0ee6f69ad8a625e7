// Lag in words: states, rates, time to drain, and how each figure comes about.
import { html } from "../html.js";
import { count, duration, exact } from "./format.js";

export const STATES = {
  ok: ["✔", "ok"], behind: ["▲", "behind"], rewound: ["↺", "rewound"], stalled: ["■", "stalled"], stopped: ["✖", "stopped"],
  uncommitted: ["○", "no commit yet"], unknown: ["?", "unknown"],
};

/** A state with its glyph, and why if that is known. */
export function State({ state, why }) {
  const [glyph, name] = STATES[state] ?? STATES.unknown;
  return html`<span class=${`state state-${STATES[state] ? state : "unknown"}`}><span aria-hidden="true">${glyph}</span> ${name}${why && html`<span class="why">: ${why}</span>`}</span>`;
}

/** The glyph alone, for narrow places; its name is read aloud. */
export function Glyph({ state }) {
  const [glyph, name] = STATES[state] ?? STATES.unknown;
  return html`<span class=${`state-${STATES[state] ? state : "unknown"}`} title=${name}><span aria-hidden="true">${glyph}</span><span class="skip">${name}: </span></span>`;
}

export const rate = (value) => (value == null ? "–" : `${count(value)}/s`);

/** "12 s", "never" or "–". */
export function drain(value) {
  if (value == null) return "–";
  return value === "never" ? "never" : duration(value.seconds);
}

/** A few seconds' worth of what arrives is under way, not a backlog. */
export const keepsUp = ({ lag, in_rate: inRate }) => lag > 0 && inRate != null && lag <= inRate * 5;

/** When a row's lag will be nothing. */
export const left = (row) => (keepsUp(row) ? "keeps up" : drain(row.drain));

/** Records that are gone unread; nothing when there are none. */
export function Lost({ lost }) {
  return lost > 0 ? html`<span class="lost"><span aria-hidden="true">✖</span> ${exact(lost)} lost</span>` : null;
}

/** `↗ +1.2 k/s`; growing is bad for everything that is shown with it. */
export function Slope({ value, format = count, unit = "/s", epsilon = 0.05 }) {
  if (value == null || !Number.isFinite(value)) return null;
  if (Math.abs(value) < epsilon) return html`<span class="muted"><span aria-hidden="true">→</span> steady</span>`;
  return value > 0
    ? html`<span class="warn"><span aria-hidden="true">↗</span> +${format(value)}${unit}</span>`
    : html`<span class="well"><span aria-hidden="true">↘</span> −${format(-value)}${unit}</span>`;
}

/** How many partitions a topic of a snapshot has: a number, or in full answers the rows themselves. */
export const partitionsOf = (topic) => (Array.isArray(topic.partitions) ? topic.partitions.length : topic.partitions);

/** What Kafka says of the group (Stable, Empty, …), told apart from what its lag is like. */
export const groupState = (group) => group.group_state ?? (STATES[group.state] ? "" : group.state);

/** What the lag of the whole group is like. */
export const lagState = (group) => group.lag_state ?? (STATES[group.state] ? group.state : (group.lag == null ? "unknown" : group.lag_seconds > 60 ? "behind" : "ok"));
