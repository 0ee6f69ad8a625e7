// How far back the plots go.

/** `span` of the address, its name, and its milliseconds. */
export const SPANS = [
  ["10m", "Last 10 minutes", 600_000], ["", "Last hour", 3_600_000], ["3h", "Last 3 hours", 10_800_000],
  ["24h", "Last 24 hours", 86_400_000], ["7d", "Last 7 days", 604_800_000],
];

/** `{from, to, isFixed}` in ms: what the address names, or the span that ends now. */
export function spanOf({ span = "", from, to }, now = Date.now()) {
  const [begin, end] = [from, to].map((ms) => Math.round(Number(ms)));
  if (from && to && begin < end) return { from: begin, to: end, isFixed: true };
  const [, , wide] = SPANS.find(([value]) => value === span) ?? SPANS[1];
  return { from: now - wide, to: now, isFixed: false };
}
