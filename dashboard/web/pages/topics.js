// Topics: what there is, whether its replicas are well, who reads it, and how it is configured.
import { html } from "../html.js";
import { patch, Link } from "../parts/address.js";
import { useAnswer, Trouble } from "../parts/api.js";
import { Decisions } from "../parts/decisions.js";
import { Head, Pager, Find } from "../parts/table.js";
import { State, Glyph, Lost, rate, left } from "../parts/figures.js";
import { count, duration, exact, bytes, plural } from "../parts/format.js";

const ROWS = 50;
/** Groups shown in a row of the list. */
const CHIPS = 3;

export function Topics({ address, stream }) {
  const { query } = address;
  return query.topic ? html`<${Topic} key=${query.topic} name=${query.topic} query=${query} opened=${stream.opened} />` : html`<${List} query=${query} opened=${stream.opened} />`;
}

const COLUMNS = [
  { name: "topic", key: "name" }, { name: "partitions", key: "partitions", isNumber: true }, { name: "replicas", isNumber: true }, { name: "in sync" }, { name: "in", key: "in_rate", isNumber: true },
  { name: "records", key: "records", isNumber: true }, { name: "size", key: "size", isNumber: true }, { name: "groups that read it, and how far behind", key: "lag", isNumber: false },
];

function InSync({ isr_ok: isOk, offline, under_replicated: under }) {
  if (offline > 0) return html`<span class="bad"><span aria-hidden="true">✖</span> ${exact(offline)} offline</span>`;
  return isOk ? html`<span class="well"><span aria-hidden="true">✔</span> all</span>` : html`<span class="warn"><span aria-hidden="true">▲</span> ${under ? `${exact(under)} behind` : "not all"}</span>`;
}

function Chips({ groups, total = groups.length, topic }) {
  const worst = [...groups].sort((a, b) => (b.lag_seconds ?? -1) - (a.lag_seconds ?? -1));
  return html`<span class="chips">${worst.slice(0, CHIPS).map((g) => html`<${Link} key=${g.group} class="chip" to="/lag" query=${{ group: g.group, topic }} title=${`${exact(g.lag)} records, behind by ${duration(g.lag_seconds)}`}><${Glyph} state=${g.state} /> ${g.group} <span class="muted">${g.state === "uncommitted" ? "no commit yet" : g.lag_seconds == null ? count(g.lag) : duration(g.lag_seconds)}</span><//>`)}
    ${total > CHIPS && html`<span class="muted">and ${exact(total - CHIPS)} more</span>`}${!worst.length && html`<span class="muted">nobody</span>`}</span>`;
}

function List({ query, opened }) {
  const sort = query.sort ?? "name";
  const desc = Boolean(query.desc);
  const offset = Number(query.offset) || 0;
  const answer = useAnswer("/api/v1/topics", { q: query.q, sort, desc: desc ? 1 : "", offset, limit: ROWS }, { every: 2000, again: opened });
  const { body } = answer;
  return html`<section class="panel" aria-label="Topics">
    <p class="bar-title"><span class="side-title">Topics</span><${Find} label="Find a topic" value=${query.q ?? ""} onFind=${(q) => patch({ q, offset: "" }, true)} /></p>
    <${Trouble} of=${answer} what="The topics" />
    ${body && html`<div class="wide" tabindex="0" role="region" aria-label="Table of topics"><table id="topics">
      <${Head} columns=${COLUMNS} sort=${sort} desc=${desc} onSort=${(key, isDesc) => patch({ sort: key, desc: isDesc || key === "lag" && sort !== "lag" ? "1" : "", offset: "" }, true)} />
      <tbody>${body.rows.map((t) => html`<tr key=${t.topic}>
        <td class="name"><${Link} to="/topics" query=${{ topic: t.topic }}>${t.topic}<//> ${t.internal && html`<span class="muted">internal</span>`}</td><td class="number">${exact(t.partitions)}</td><td class="number">${t.replication_factor ?? "–"}</td><td class="nowrap"><${InSync} ...${t} /></td>
        <td class="number">${rate(t.in_rate)}</td><td class="number">${count(t.records)}</td><td class="number">${bytes(t.size_bytes)}</td><td><${Chips} groups=${t.groups ?? []} total=${t.groups_total} topic=${t.topic} /></td></tr>`)}</tbody></table></div>
      ${!body.rows.length && html`<p class="muted">${query.q ? `No topic has “${query.q}” in its name.` : "There is no topic yet."}</p>`}
      <${Pager} total=${body.total} offset=${offset} limit=${ROWS} what="topics" onPage=${(at) => patch({ offset: at || "" }, true)} />`}
  </section>`;
}

function Topic({ name, query, opened }) {
  const answer = useAnswer("/api/v1/topic", { topic: name }, { every: 3000, again: opened });
  const { body } = answer;
  return html`
    <p class="crumbs"><${Link} to="/topics">All topics<//></p>
    <h2 class="of"><span>${name}</span> ${body && html`<span class="muted">${plural(body.partitions_total ?? body.partitions.length, "partition")}</span>`}</h2>
    <${Trouble} of=${answer} what="The topic" />
    ${body && html`<${Readers} topic=${name} groups=${body.groups ?? []} /><${Partitions} topic=${body} query=${query} /><${Configs} configs=${body.configs ?? []} why=${body.configs_why} query=${query} />`}
    <${Past} topic=${name} />`;
}

function Readers({ topic, groups }) {
  return html`<section class="panel" aria-label="Groups"><p class="side-title">Groups that read it</p>
    ${groups.length
      ? html`<div class="wide" tabindex="0" role="region" aria-label="Table of groups"><table><thead><tr><th scope="col">group</th><th scope="col">state</th><th scope="col" class="number">lag</th><th scope="col" class="number">behind by</th><th scope="col" class="number">empty in</th><th scope="col" class="number">in</th><th scope="col" class="number">out</th></tr></thead>
        <tbody>${groups.map((g) => html`<tr key=${g.group}><td class="name"><${Link} to="/lag" query=${{ group: g.group, topic }}>${g.group}<//></td><td><${State} state=${g.state} /> <${Lost} lost=${g.lost} /></td><td class="number">${exact(g.lag)}</td><td class="number">${duration(g.lag_seconds)}</td>
          <td class="number">${left(g)}</td><td class="number">${rate(g.in_rate)}</td><td class="number">${rate(g.out_rate)}</td></tr>`)}</tbody></table></div>`
      : html`<p class="muted">No group has committed an offset here.</p>`}</section>`;
}

const numbers = (list) => (list ?? []).join(", ") || "none";

function Partitions({ topic, query }) {
  const offset = Number(query.offset) || 0;
  const rows = topic.partitions.slice(offset, offset + ROWS);
  const hasSize = topic.partitions.some((p) => p.size_bytes != null);
  return html`<section class="panel" aria-label="Partitions"><p class="side-title">Partitions</p>
    <div class="wide" tabindex="0" role="region" aria-label="Table of partitions"><table id="partitions"><thead><tr><th scope="col" class="number">partition</th><th scope="col">leader</th><th scope="col">replicas</th><th scope="col">in sync</th><th scope="col" class="number">start</th><th scope="col" class="number">end</th><th scope="col" class="number">records</th>${hasSize && html`<th scope="col" class="number">size</th>`}</tr></thead>
      <tbody>${rows.map((p) => html`<tr key=${p.partition}><td class="number">${p.partition}</td><td>${p.leader == null || p.leader < 0 ? html`<span class="bad"><span aria-hidden="true">✖</span> none</span>` : p.leader}</td><td>${numbers(p.replicas)}</td>
        <td>${(p.isr ?? []).length < (p.replicas ?? []).length ? html`<span class="warn"><span aria-hidden="true">▲</span> ${numbers(p.isr)}</span>` : numbers(p.isr)}</td>
        <td class="number">${exact(p.start)}</td><td class="number">${exact(p.end)}</td><td class="number">${p.start == null || p.end == null ? "–" : exact(p.end - p.start)}</td>${hasSize && html`<td class="number">${bytes(p.size_bytes)}</td>`}</tr>`)}</tbody></table></div>
    <${Pager} total=${topic.partitions.length} offset=${offset} limit=${ROWS} what="partitions" onPage=${(at) => patch({ offset: at || "" }, true)} />
    ${topic.partitions_total > topic.partitions.length && html`<p class="muted">The first ${exact(topic.partitions.length)} of ${exact(topic.partitions_total)}; Lag pages through all of them.</p>`}
  </section>`;
}

const isChanged = (config) => (config.is_default !== undefined ? !config.is_default : config.source ? !/default|static/i.test(config.source) : config.default !== undefined && config.value !== config.default);

function Configs({ configs, why, query }) {
  const all = Boolean(query.configs);
  const changed = configs.filter(isChanged);
  const shown = all ? configs : changed;
  return html`<section class="panel" aria-label="Configuration"><p class="bar-title"><span class="side-title">Configuration</span>
      <label><input type="checkbox" checked=${all} onChange=${(event) => patch({ configs: event.target.checked ? "1" : "" }, true)} /> also defaults</label></p>
    ${shown.length > 0 && html`<div class="wide" tabindex="0" role="region" aria-label="Table of settings"><table id="configs"><thead><tr><th scope="col">setting</th><th scope="col">value</th><th scope="col">default</th><th scope="col">from</th></tr></thead>
      <tbody>${shown.map((c) => html`<tr key=${c.name}><td class="name"><code>${c.name}</code></td><td class="name">${isChanged(c) ? html`<strong>${c.value ?? "–"}</strong>` : (c.value ?? "–")}</td><td class="name muted">${c.default ?? "–"}</td><td class="muted">${String(c.source ?? "").toLowerCase().replaceAll("_", " ")}</td></tr>`)}</tbody></table></div>`}
    ${!shown.length && html`<p class="muted">${configs.length ? "Every setting has its default." : why ?? "The broker did not say."}</p>`}</section>`;
}

function Past({ topic }) {
  const answer = useAnswer("/api/v1/decisions", { topic, limit: 20 }, { every: 10_000 });
  const decisions = answer.body?.decisions ?? [];
  return html`<section class="panel" aria-label="Decisions"><p class="side-title">Decisions of the autoscaler</p>
    <${Trouble} of=${answer} what="The decisions" />
    ${decisions.length > 0 ? html`<${Decisions} decisions=${decisions} hasNames=${false} />` : answer.body && html`<p class="muted">${answer.body.why ?? "Nothing has been decided about it yet."}</p>`}</section>`;
}
