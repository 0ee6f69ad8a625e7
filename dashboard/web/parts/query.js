// Pieces of a query in Lucene's syntax, and what a line says of how bad it is.

/** A field's name as it may stand before the colon. */
export const fieldName = (name) => name.replace(/[\s+\-!(){}[\]^"~*?:\\/&|<>=]/g, "\\$&");

const phrase = (value) => `"${String(value).replace(/["\\]/g, "\\$&")}"`;

/** `query`, narrowed to lines whose `field` is `value`, or is not. */
export function narrowed(query, field, value, isWanted) {
  const clause = `${isWanted ? "" : "NOT "}${fieldName(field)}:${phrase(value)}`;
  if (!query.trim()) return clause;
  // One clause after the other reads better without ever more parentheses.
  return /\bOR\b|\|\|/.test(query) ? `(${query}) AND ${clause}` : `${query} AND ${clause}`;
}

const LEVELS = [
  [/^(emerg(ency)?|alert|crit(ical)?|err(or)?|fatal|panic|severe)$/i, "bad"],
  [/^warn(ing)?$/i, "warn"],
  [/^(notice|info(rmation(al)?)?)$/i, "info"],
  [/^(debug|trace|fine|verbose)$/i, "quiet"],
];

/** `{name, kind}` of a line that has a level or an HTTP status, or null; kind: bad, warn, info, good, quiet. */
export function level(source) {
  const said = source.log?.level ?? source.log?.syslog?.severity?.name ?? source.level ?? source.severity;
  if (typeof said === "string" && said) {
    const found = LEVELS.find(([pattern]) => pattern.test(said));
    return { name: said, kind: found ? found[1] : "info" };
  }
  const status = Number(source.http?.response?.status_code);
  if (!(status >= 100 && status < 600)) return null;
  return { name: String(status), kind: status >= 500 ? "bad" : status >= 400 ? "warn" : status >= 300 ? "info" : "good" };
}
