// Ensemble: the servers of the coordinator (or of a real ZooKeeper), their elections, sessions, and the znode tree.
import { html, useState, useEffect } from "../html.js";
import { patch } from "../parts/address.js";
import { useAnswer, Trouble } from "../parts/api.js";
import { count, exact, moment, bytes, text, plural } from "../parts/format.js";

export function Ensemble({ address, stream }) {
  const answer = useAnswer("/api/v1/ensemble", {}, { every: 2000, again: stream.opened });
  const { body } = answer;
  return html`
    <${Trouble} of=${answer} what="The ensemble" />
    ${body?.text && html`<p class="sentence-line" id="ensemble">${body.text}</p>`}
    ${body && html`<div class="cards">${body.servers.map((server) => html`<${Server} key=${server.address} server=${server} />`)}</div>`}
    ${body && !body.servers.length && html`<p class="notice">${body.why ?? "No server of the ensemble is known."}</p>`}
    <${Znodes} query=${address.query} />
    ${body && html`<${Elections} elections=${body.elections ?? []} /><${Sessions} sessions=${body.sessions} />`}`;
}

function Server({ server }) {
  const [isRaw, setRaw] = useState(false);
  const latency = server.latency_ms;
  const facts = [["zxid", server.zxid], ["connections", count(server.connections)], ["outstanding", count(server.outstanding)], ["znodes", count(server.znodes)], ["ephemerals", count(server.ephemerals)], ["watches", count(server.watches)],
    ...(server.learners == null ? [] : [["learners", count(server.learners)], ["followers in sync", count(server.synced_followers)]])];
  const raw = Object.entries(server.raw ?? {});
  return html`<section class=${`panel card ${server.ok ? "" : "down"}`} aria-label=${`Server ${server.address}`}>
    <p class="side-title"><span><span aria-hidden="true" class=${server.ok ? "good" : "bad"}>${server.ok ? "✔" : "✖"}</span> <span class="name">${server.address}</span></span> ${server.mode && html`<span class=${server.mode === "leader" ? "tag" : "muted"}>${server.mode}</span>`}</p>
    ${!server.ok && html`<p class="bad">${server.why ?? "does not answer"}</p>`}
    ${server.ok && html`<p class="muted name">${server.version ?? ""}</p>
      <dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value ?? "–"}</dd></div>`)}
        <div><dt>latency</dt><dd>${latency ? `${latency.avg ?? "–"} ms` : "–"}${latency && html` <span class="muted">${latency.min ?? "–"} to ${latency.max ?? "–"}</span>`}</dd></div></dl>
      ${raw.length > 0 && html`<button class="link" aria-expanded=${isRaw ? "true" : "false"} onClick=${() => setRaw(!isRaw)}>${isRaw ? "less" : `all ${raw.length} figures`}</button>`}
      ${isRaw && html`<div class="scroll" tabindex="0" role="region" aria-label=${`All figures of ${server.address}`}><table><tbody>${raw.map(([name, value]) => html`<tr key=${name}><th scope="row">${name}</th><td class="number">${text(value)}</td></tr>`)}</tbody></table></div>`}`}
  </section>`;
}

function Elections({ elections }) {
  return html`<section class="panel" aria-label="Elections"><p class="side-title">Elections</p>
    ${elections.length ? html`<ol class="timeline">${elections.slice(0, 100).map((each) => html`<li key=${`${each.at_ms}${each.text}`}><time>${moment(each.at_ms)}</time> <span>${each.text}</span></li>`)}</ol>` : html`<p class="muted">None since this page's server has been watching.</p>`}</section>`;
}

const SESSIONS = 200;

function Sessions({ sessions }) {
  if (!sessions) return null;
  const columns = [...new Set(sessions.slice(0, SESSIONS).flatMap((each) => Object.keys(each)))];
  return html`<section class="panel" aria-label="Sessions"><p class="side-title">Sessions <span class="muted">${exact(sessions.length)}</span></p>
    ${sessions.length
      ? html`<div class="wide" tabindex="0" role="region" aria-label="Table of sessions"><table><thead><tr>${columns.map((name) => html`<th key=${name} scope="col">${name.replaceAll("_", " ")}</th>`)}</tr></thead>
        <tbody>${sessions.slice(0, SESSIONS).map((each, i) => html`<tr key=${each.id ?? each.session ?? i}>${columns.map((name) => html`<td key=${name} class="name">${each[name] == null ? "–" : text(each[name])}</td>`)}</tr>`)}</tbody></table></div>`
      : html`<p class="muted">None.</p>`}</section>`;
}

const ROOT = "/";
const child = (path, name) => (path === ROOT ? `/${name}` : `${path}/${name}`);
/** "/a/b" → "/", "/a", "/a/b". */
const ancestors = (path) => path.split("/").filter(Boolean).reduce((all, name) => [...all, child(all[all.length - 1], name)], [ROOT]);

function Znodes({ query }) {
  const path = query.path || ROOT;
  const [open, setOpen] = useState(() => new Set(ancestors(path)));
  useEffect(() => setOpen((old) => new Set([...old, ...ancestors(path)])), [path]);
  const toggle = (which) => setOpen((old) => {
    const next = new Set(old);
    if (!next.delete(which)) next.add(which);
    return next;
  });
  return html`<div class="sides znodes">
    <section class="panel side" aria-label="Znodes"><p class="side-title">Znodes</p>
      <ul class="nodes"><${Znode} path=${ROOT} name="/" chosen=${path} open=${open} toggle=${toggle} /></ul></section>
    <${Chosen} key=${path} path=${path} as=${query.as || "text"} />
  </div>`;
}

const CHILDREN = 100;

/** A znode in the tree; its children are asked for when it is opened. */
function Znode({ path, name, chosen, open, toggle }) {
  const isOpen = open.has(path);
  const [shown, setShown] = useState(CHILDREN);
  const answer = useAnswer(isOpen ? "/api/v1/ensemble/znode" : null, { path }, { every: 15_000 });
  const children = [...(answer.body?.children ?? [])].sort();
  const total = answer.body?.children_total ?? children.length;
  return html`<li>
    <span class="znode"><button class="twist" aria-expanded=${isOpen ? "true" : "false"} aria-label=${`Children of ${path}`} onClick=${() => toggle(path)}>${isOpen ? "▾" : "▸"}</button><button class="znode-name" aria-pressed=${path === chosen ? "true" : "false"} onClick=${() => patch({ path: path === ROOT ? "" : path })}>${name}</button>${isOpen && total > 0 && html`<span class="muted">${exact(total)}</span>`}</span>
    ${isOpen && html`
      ${answer.trouble && html`<p class="trouble">${answer.trouble}</p>`}
      ${answer.body && !children.length && html`<p class="muted leaf">no children</p>`}
      ${children.length > 0 && html`<ul>${children.slice(0, shown).map((each) => html`<${Znode} key=${each} path=${child(path, each)} name=${each} chosen=${chosen} open=${open} toggle=${toggle} />`)}
        ${children.length > shown && html`<li><button class="link" onClick=${() => setShown(shown + CHILDREN)}>${plural(children.length - shown, "more")}</button></li>`}
        ${total > children.length && html`<li class="muted">and ${exact(total - children.length)} more that are not listed</li>`}</ul>`}`}
  </li>`;
}

const FORMS = [["text", "text"], ["json", "JSON"], ["hex", "hex"]];

function Chosen({ path, as }) {
  const answer = useAnswer("/api/v1/ensemble/znode", { path }, { every: 5000 });
  const { body } = answer;
  const data = body?.data;
  const stat = Object.entries(body?.stat ?? {});
  return html`<section class="panel" id="znode" aria-label="Chosen znode"><p class="side-title"><code class="name">${path}</code> ${data && html`<span class="muted">${bytes(data.bytes)}</span>`}</p>
    <${Trouble} of=${answer} what="The znode" />
    ${body && html`
      <p class="forms" role="group" aria-label="Data as">${FORMS.map(([form, name]) => html`<button key=${form} aria-pressed=${form === as ? "true" : "false"} onClick=${() => patch({ as: form === "text" ? "" : form }, true)}>${name}</button>`)}</p>
      <${Data} data=${data ?? {}} as=${as} />
      <div class="pair"><div><h2 class="minor">Stat</h2><table class="kv"><tbody>${stat.map(([name, value]) => html`<tr key=${name}><th scope="row">${name.replace(/_ms$/, "").replaceAll("_", " ")}</th><td>${statText(name, value)}</td></tr>`)}</tbody></table></div>
        <div><h2 class="minor">ACL</h2>${(body.acl ?? []).length ? html`<ul class="acl">${body.acl.map((each, i) => html`<li key=${i}><code class="name">${aclText(each)}</code></li>`)}</ul>` : html`<p class="muted">The server did not say.</p>`}</div></div>`}
  </section>`;
}

/** `ctime` and `mtime` are milliseconds; the rest is as ZooKeeper says it. */
function statText(name, value) {
  if (value == null) return "none";
  if (/^[cm]time(_ms)?$/.test(name) && Number(value) > 1e11) return moment(Number(value));
  return text(value);
}

function aclText(each) {
  if (typeof each === "string") return each;
  const rights = typeof each.perms === "number" ? [[1, "r"], [2, "w"], [4, "c"], [8, "d"], [16, "a"]].filter(([bit]) => each.perms & bit).map(([, letter]) => letter).join("") : (each.perms ?? "");
  return `${each.scheme ?? ""}:${each.id ?? ""}:${Array.isArray(rights) ? rights.join("") : rights}`;
}

function Data({ data, as }) {
  const shown = as === "hex" ? hexLines(data.hex ?? "") : as === "json" ? (data.json == null ? null : JSON.stringify(data.json, null, 2)) : data.text;
  if (!data.bytes) return html`<p class="muted">It holds no data.</p>`;
  if (data.why) return html`<p class="muted">${bytes(data.bytes)}: ${data.why}.</p>`;
  const isCut = as === "hex" ? (data.hex ?? "").length / 2 < data.bytes : data.truncated;
  if (shown == null) return html`<p class="muted">The data is not ${as === "json" ? "JSON" : "text"}${as === "json" ? "" : "; look at it as hex"}.</p>`;
  return html`<pre tabindex="0" id="data">${shown}</pre>${isCut && html`<p class="muted">Only its beginning; it has ${bytes(data.bytes)}.</p>`}`;
}

/** As hexdump -C writes it: offset, sixteen bytes, and what of them is printable. */
function hexLines(hex) {
  const plain = hex.replace(/[^0-9a-f]/gi, "");
  const lines = [];
  for (let at = 0; at < plain.length; at += 32) {
    const pairs = plain.slice(at, at + 32).match(/../g) ?? [];
    const printable = pairs.map((pair) => { const code = parseInt(pair, 16); return code >= 32 && code < 127 ? String.fromCharCode(code) : "."; }).join("");
    lines.push(`${(at / 2).toString(16).padStart(8, "0")}  ${pairs.join(" ").padEnd(47)}  ${printable}`);
  }
  return lines.join("\n");
}
