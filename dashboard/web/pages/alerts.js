// Alerts: rules on lag and health as rows, tried on the history while they are written, and where they go.
import { html, useState, useEffect } from "../html.js";
import { patch, Link } from "../parts/address.js";
import { useAnswer, ask, Trouble } from "../parts/api.js";
import { Find } from "../parts/table.js";
import { duration, exact, moment, clock, plural } from "../parts/format.js";

const STATES = { firing: ["✖", "bad"], pending: ["▲", "warn"], silenced: ["○", "muted"], ok: ["✔", "well"] };
/** What matters first. */
const ORDER = ["firing", "pending", "silenced", "ok"];
const METRICS = ["lag_seconds", "lag", "drain_seconds", "drain_never", "retention_used", "lost", "in_rate", "out_rate", "stopped", "stalled", "unknown", "members", "under_replicated", "offline", "disk_used", "silent_seconds"];
const OPS = [">", ">=", "<", "<=", "=="];
const SEVERITIES = ["info", "warning", "critical"];
const EMPTY = { name: "", metric: "lag_seconds", group: "", topic: "", op: ">", value: 60, for_s: 300, severity: "warning", receiver: "", enabled: true };
const SILENCES = [["", "silence…"], ["3600", "for an hour"], ["28800", "for 8 hours"], ["86400", "for a day"], ["604800", "for a week"], ["0", "no longer"]];

export function Alerts({ address, stream }) {
  const answer = useAnswer("/api/v1/alerts", {}, { every: 2000, again: stream.opened });
  const { body } = answer;
  const { query } = address;
  const [trouble, setTrouble] = useState("");
  const act = async (path, params, options) => {
    setTrouble("");
    try { await ask(path, params, options); answer.reload(); return true; } catch (error) { setTrouble(error.message); return false; }
  };
  const wanted = (query.q ?? "").toLowerCase();
  const rules = [...(body?.rules ?? [])].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.name.localeCompare(b.name));
  const shown = rules.filter((rule) => [rule.name, rule.metric, rule.group, rule.topic, rule.text].some((each) => each?.toLowerCase().includes(wanted)));
  const edited = query.edit === "new" ? EMPTY : rules.find((rule) => rule.id === query.edit);
  const firing = rules.filter((rule) => rule.state === "firing" && rule.enabled !== false).length;
  return html`
    <${Trouble} of=${answer} what="The alerts" />
    ${trouble && html`<p class="trouble" role="alert"><span aria-hidden="true">✖</span> ${trouble}</p>`}
    ${body && !body.can_edit && html`<p class="notice">Rules are only shown: this server has nowhere to keep changes, or does not let this page change them.</p>`}
    ${body?.can_edit && body.is_kept === false && html`<p class="muted">Changes last until the server ends: it has no folder to keep them in.</p>`}
    ${body && html`
    <section class="panel" aria-label="Rules">
      <p class="bar-title"><span class="side-title">Rules <span class=${firing ? "bad" : "muted"}>${firing ? `${exact(firing)} firing` : "none is firing"}</span></span>
        <${Find} label="Find a rule" value=${query.q ?? ""} onFind=${(q) => patch({ q }, true)} />
        ${body.can_edit && html`<button class="primary" onClick=${() => patch({ edit: "new" })}>Add a rule</button>`}</p>
      <div class="wide" tabindex="0" role="region" aria-label="Table of rules"><table id="rules"><thead><tr><th scope="col">state</th><th scope="col">rule</th><th scope="col">when</th><th scope="col">where</th><th scope="col">severity</th><th scope="col">goes to</th><th scope="col"><span class="skip">actions</span></th></tr></thead>
        <tbody>${shown.map((rule) => html`<${Rule} key=${rule.id} rule=${rule} canEdit=${body.can_edit} isEdited=${rule.id === query.edit} act=${act} />`)}</tbody></table></div>
      ${!shown.length && html`<p class="muted">${wanted ? `No rule mentions “${query.q}”.` : "There are no rules."}</p>`}
    </section>
    ${edited && body.can_edit && html`<${Edit} key=${query.edit} rule=${edited} receivers=${body.receivers ?? []} metrics=${body.metrics ?? [...new Set([...rules.map((rule) => rule.metric), ...METRICS])]} act=${act} />`}
    <${Receivers} receivers=${body.receivers ?? []} canEdit=${body.can_edit} act=${act} />`}`;
}

/** Places where a rule holds that are linked to. */
const TARGETS = 3;

function Rule({ rule, canEdit, isEdited, act }) {
  const isOff = rule.enabled === false;
  const [glyph, kind] = STATES[rule.state] ?? STATES.ok;
  const targets = rule.targets ?? [];
  const condition = `${rule.metric} ${rule.op} ${rule.value}${rule.for_s ? ` for ${duration(rule.for_s)}` : ""}`;
  return html`<tr class=${isEdited ? "chosen" : isOff ? "off" : null}>
    <td class="nowrap">${isOff ? html`<span class="muted">off</span>` : html`<span class=${kind}><span aria-hidden="true">${glyph}</span> ${rule.state}</span>`}${!isOff && rule.state !== "ok" && rule.since_ms != null && html`<br /><span class="muted">since ${moment(rule.since_ms)}</span>`}${rule.silenced_until_ms && html`<br /><span class="muted">until ${moment(rule.silenced_until_ms)}</span>`}</td>
    <td class="name"><strong>${rule.name}</strong> ${rule.shipped && html`<span class="muted">shipped</span>`}${rule.text && rule.state !== "ok" && html`<br /><span class="muted">${rule.text}</span>`}
      ${targets.filter((each) => each.group && each.topic).slice(0, TARGETS).map((each) => html`<span key=${`${each.group}\n${each.topic}`}> <${Link} to="/lag" query=${{ group: each.group, topic: each.topic }}>${each.group} / ${each.topic}<//></span>`)}</td>
    <td><code>${condition}</code></td><td class="name">${[rule.group && `group ${rule.group}`, rule.topic && `topic ${rule.topic}`].filter(Boolean).join(", ") || "everywhere"}</td><td>${rule.severity}</td><td class="name">${rule.receiver || html`<span class="muted">this page only</span>`}</td>
    <td class="nowrap acts">${canEdit && html`<button class="link" onClick=${() => patch({ edit: isEdited ? "" : rule.id })}>${isEdited ? "close" : "edit"}</button>
      <select aria-label=${`Silence ${rule.name}`} value="" onChange=${(event) => { const { value } = event.target; event.target.value = ""; if (value) act("/api/v1/alerts/silence", {}, { method: "POST", body: { id: rule.id, for_s: Number(value) } }); }}>${SILENCES.map(([value, name]) => html`<option key=${value} value=${value}>${name}</option>`)}</select>`}</td></tr>`;
}

const PREVIEW_MS = 400;

function Edit({ rule, receivers, metrics, act }) {
  const [draft, setDraft] = useState(rule);
  const [preview, setPreview] = useState({ body: null, trouble: "" });
  const [isSure, setSure] = useState(false);
  const set = (changes) => setDraft((old) => ({ ...old, ...changes }));
  const text = (name) => ({ value: draft[name] ?? "", onInput: (event) => set({ [name]: event.target.value }) });
  const number = (name) => ({ value: draft[name], onInput: (event) => set({ [name]: event.target.value === "" ? "" : Number(event.target.value) }) });
  const missing = !draft.name.trim() ? "The rule needs a name." : draft.value === "" || draft.value == null ? "The rule needs a value." : "";
  // What the server adds to a rule is not sent back.
  const { id = "", name, metric, op, value, severity, enabled = true, shipped = false } = draft;
  const sent = { id, name, metric, group: draft.group ?? "", topic: draft.topic ?? "", op, value, for_s: Number(draft.for_s) || 0, severity, receiver: draft.receiver ?? "", enabled, shipped };
  const asked = JSON.stringify({ ...sent, name: undefined });
  useEffect(() => {
    if (draft.value === "" || draft.value == null) return undefined;
    const abort = new AbortController();
    const timer = setTimeout(() => ask("/api/v1/alerts/preview", {}, { method: "POST", body: sent, signal: abort.signal })
      .then((body) => setPreview({ body, trouble: "" })).catch((error) => { if (!abort.signal.aborted) setPreview({ body: null, trouble: error.message }); }), PREVIEW_MS);
    return () => { clearTimeout(timer); abort.abort(); };
  }, [asked]);
  const close = () => patch({ edit: "" });
  const save = async (event) => {
    event.preventDefault();
    if (!missing && await act("/api/v1/alerts/rule", {}, { method: "PUT", body: sent })) close();
  };
  return html`<section class="panel" aria-label=${rule.id ? "Edit a rule" : "Add a rule"}><p class="side-title">${rule.id ? `Edit ${rule.name}` : "A new rule"}</p>
    <form class="rule-form" onSubmit=${save}>
      <label>Name <input type="text" required ...${text("name")} /></label>
      <label>Figure <select ...${{ value: draft.metric, onChange: (event) => set({ metric: event.target.value }) }}>${metrics.map((each) => html`<option key=${each} value=${each}>${each}</option>`)}</select></label>
      <label>is <select value=${draft.op} onChange=${(event) => set({ op: event.target.value })}>${OPS.map((each) => html`<option key=${each} value=${each}>${each}</option>`)}</select></label>
      <label>than <input type="number" step="any" required ...${number("value")} /></label>
      <label>for, in seconds <input type="number" min="0" ...${number("for_s")} /></label>
      <label>Group <input type="text" placeholder="all, or e.g. app-*" ...${text("group")} /></label>
      <label>Topic <input type="text" placeholder="all, or e.g. logs-*" ...${text("topic")} /></label>
      <label>Severity <select value=${draft.severity} onChange=${(event) => set({ severity: event.target.value })}>${[...new Set([...SEVERITIES, draft.severity])].map((each) => html`<option key=${each} value=${each}>${each}</option>`)}</select></label>
      <label>Goes to <select value=${draft.receiver ?? ""} onChange=${(event) => set({ receiver: event.target.value })}><option value="">this page only</option>${receivers.map((each) => html`<option key=${each.name} value=${each.name}>${each.name}</option>`)}</select></label>
      <label class="check"><input type="checkbox" checked=${draft.enabled !== false} onChange=${(event) => set({ enabled: event.target.checked })} /> on</label>
      <${Preview} preview=${preview} />
      <p class="buttons"><button class="primary" disabled=${Boolean(missing)}>Save</button> <button type="button" onClick=${close}>Cancel</button>
        ${rule.id && !rule.shipped && html` <button type="button" class="danger" onClick=${async () => { if (!isSure) setSure(true); else if (await act("/api/v1/alerts/rule", { id: rule.id }, { method: "DELETE" })) close(); }}>${isSure ? "Really delete it" : "Delete"}</button>`} <span class="muted">${missing}</span></p>
    </form></section>`;
}

const SPANS = 8;

/** How often the rule would have fired, and when. */
function Preview({ preview: { body, trouble } }) {
  if (trouble) return html`<p class="trouble" id="rule-preview" role="status">It cannot be tried: ${trouble}</p>`;
  if (!body) return html`<p class="muted" id="rule-preview" role="status">Trying it on the history…</p>`;
  if (body.would_have_fired == null) return html`<p class="muted" id="rule-preview" role="status">${body.why ?? "It cannot be tried on the history."}</p>`;
  const to = Date.now();
  const over = body.over_s * 1000;
  const x = (ms) => Math.min(Math.max(((ms - (to - over)) / over) * 1000, 0), 1000);
  const n = body.would_have_fired;
  const over_text = body.over_s > 0 ? `in the last ${body.over_s % 86400 ? duration(body.over_s) : plural(body.over_s / 86400, "day")}` : "";
  return html`<div class="preview"><p id="rule-preview" role="status"><strong>${n ? `It would have fired ${n === 1 ? "once" : `${exact(n)} times`}` : "It would not have fired"}</strong> ${over_text || "; there is no history yet"}.</p>
    ${over > 0 && html`<svg viewBox="0 0 1000 16" preserveAspectRatio="none" aria-hidden="true"><rect class="whole" width="1000" height="16" />${body.spans.map(([a, b]) => html`<rect key=${a} class="fired" x=${x(a)} width=${Math.max(x(b) - x(a), 2)} height="16" />`)}</svg>`}
    ${n > 0 && html`<ul class="spans">${[...body.spans].reverse().slice(0, SPANS).map(([a, b]) => html`<li key=${a}>${moment(a)} – ${clock(b)} <span class="muted">${duration(Math.round((b - a) / 1000))}</span></li>`)}${body.spans.length > SPANS && html`<li class="muted">and ${plural(body.spans.length - SPANS, "earlier one")}</li>`}</ul>`}</div>`;
}

function Receivers({ receivers, canEdit, act }) {
  const [draft, setDraft] = useState({ name: "", url: "" });
  const [sure, setSure] = useState("");
  const isUrl = /^https?:\/\/[^\s/]/.test(draft.url);
  const save = async (event) => {
    event.preventDefault();
    if (await act("/api/v1/alerts/receiver", {}, { method: "PUT", body: { ...draft, kind: "webhook" } })) setDraft({ name: "", url: "" });
  };
  return html`<section class="panel" aria-label="Receivers"><p class="side-title">Receivers</p>
    ${receivers.length > 0 && html`<div class="wide" tabindex="0" role="region" aria-label="Table of receivers"><table id="receivers"><thead><tr><th scope="col">name</th><th scope="col">kind</th><th scope="col">address</th><th scope="col"><span class="skip">actions</span></th></tr></thead>
      <tbody>${receivers.map((each) => html`<tr key=${each.name}><td class="name">${each.name}</td><td>${each.kind}</td><td class="name"><code>${each.url}</code>${each.why && html`<br /><span class="bad"><span aria-hidden="true">✖</span> ${each.why}</span>`}${!each.why && each.told_ms && html`<br /><span class="muted">last told ${moment(each.told_ms)}</span>`}</td><td class="nowrap acts">${canEdit && html`<button class="link" aria-label=${`Delete receiver ${each.name}`} onClick=${() => { if (sure === each.name) act("/api/v1/alerts/receiver", { name: each.name }, { method: "DELETE" }); setSure(sure === each.name ? "" : each.name); }}>${sure === each.name ? "really delete" : "delete"}</button>`}</td></tr>`)}</tbody></table></div>`}
    ${!receivers.length && html`<p class="muted">None: what fires shows on this page only.</p>`}
    ${canEdit && html`<form class="receiver-form" onSubmit=${save}><label>Name <input type="text" required value=${draft.name} onInput=${(event) => setDraft({ ...draft, name: event.target.value })} /></label>
      <label>Webhook <input type="url" required placeholder="https://…" value=${draft.url} onInput=${(event) => setDraft({ ...draft, url: event.target.value })} /></label>
      <button disabled=${!draft.name.trim() || !isUrl}>${receivers.some((each) => each.name === draft.name) ? "Change" : "Add"}</button></form>`}
  </section>`;
}
