// Numbers and times for people.

const UNITS = [[1e9, "G"], [1e6, "M"], [1e4, "k", 1e3]];

/** 12,345 → 12.3 k; small numbers as they are; null → "–". */
export function count(value) {
  if (value == null) return "–";
  for (const [from, unit, divisor = from] of UNITS) {
    if (Math.abs(value) >= from) return `${(value / divisor).toFixed(1)} ${unit}`;
  }
  return Number.isInteger(value) || Math.abs(value) >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(1);
}

/** Every digit: 12,345. */
export const exact = (value) => value?.toLocaleString("en") ?? "–";

/** Seconds as 0 s, 850 ms, 42 s, 3 m 20 s, 5 h, 2 d 4 h. */
export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const [whole, unit, part, rest] = seconds < 7200 ? [60, "m", 1, "s"] : seconds < 172800 ? [3600, "h", 60, "m"] : [86400, "d", 3600, "h"];
  const left = Math.floor((seconds % whole) / part);
  return `${Math.floor(seconds / whole)} ${unit}${left ? ` ${left} ${rest}` : ""}`;
}

const two = (number) => String(number).padStart(2, "0");
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Local time with milliseconds, sortable: 2026-03-01 12:00:00.000. */
export function time(value) {
  const at = new Date(value);
  if (Number.isNaN(at.getTime())) return String(value ?? "–");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

/** What stands below a tick of a time axis: as much as differs, and under it what changed since `previous`. */
export function tick(seconds, step, previous) {
  const at = new Date(seconds * 1000);
  const before = previous == null ? null : new Date(previous * 1000);
  const day = `${at.getDate()} ${MONTHS[at.getMonth()]}`;
  const isNewYear = before?.getFullYear() !== at.getFullYear();
  if (step >= 86400) return isNewYear ? `${day}\n${at.getFullYear()}` : day;
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}${step < 60 ? `:${two(at.getSeconds())}` : ""}`;
  return before?.getDate() === at.getDate() && !isNewYear ? clock : `${clock}\n${day}`;
}

/** The leaves of a document as [dotted path, value], in their order. */
export function* leaves(value, path = "") {
  if (value !== null && typeof value === "object" && !Array.isArray(value)) {
    for (const [key, inner] of Object.entries(value)) yield* leaves(inner, path ? `${path}.${key}` : key);
  } else if (path) {
    yield [path, value];
  }
}

export const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/** A share of 1 as 0 %, 3.4 %, 87 %. */
export function percent(share) {
  if (share == null) return "–";
  const value = share * 100;
  return `${value === 0 || value >= 10 ? Math.round(value) : value.toFixed(1)} %`;
}

/** 1,536 → 1.5 KiB. */
export function bytes(value) {
  if (value == null) return "–";
  let [rest, unit] = [value, 0];
  while (rest >= 1024 && unit < 4) { rest /= 1024; unit += 1; }
  return unit ? `${rest.toFixed(rest < 10 ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}` : `${value} B`;
}

/** With its sign: +12, −3. */
export const signed = (value, format = count) => (value == null ? "–" : `${value < 0 ? "−" : "+"}${format(Math.abs(value))}`);

/** Time of the day: 12:00:00. */
export const clock = (ms) => (ms == null ? "–" : time(ms).slice(11, 19));

/** Day and time without milliseconds: 2026-03-01 12:00:00. */
export const moment = (ms) => (ms == null ? "–" : time(ms).slice(0, 19));

/** `3 partitions`, `1 partition`. */
export const plural = (n, one, many = `${one}s`) => `${exact(n)} ${n === 1 ? one : many}`;

/** [0, 1, 2, 5] → "0–2, 5". */
export function ranges(numbers) {
  const out = [];
  for (const n of [...numbers].sort((a, b) => a - b)) {
    const last = out[out.length - 1];
    if (last && last[1] === n - 1) last[1] = n;
    else out.push([n, n]);
  }
  return out.map(([a, b]) => (a === b ? a : b === a + 1 ? `${a}, ${b}` : `${a}–${b}`)).join(", ");
}
