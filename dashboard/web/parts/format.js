// Numbers and times for people.

const UNITS = [[1e9, "G"], [1e6, "M"], [1e4, "k", 1e3]];

/** 12,345 → 12.3 k; small numbers as they are; null → "–". */
export function count(value) {
  if (value == null) return "–";
  for (const [from, unit, divisor = from] of UNITS) {
    if (Math.abs(value) >= from) return `${(value / divisor).toFixed(1)} ${unit}`;
  }
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(1);
}

/** Every digit: 12,345. */
export const exact = (value) => value?.toLocaleString("en") ?? "–";

/** Seconds as 0 s, 850 ms, 42 s, 3 m 20 s, 5 h 10 m, 2 d 4 h. */
export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} m ${Math.floor(seconds % 60)} s`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} m`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
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
