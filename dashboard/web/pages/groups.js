// Groups: who reads what, whose members have nothing to do, and moving committed offsets with care.
import { html, useState, useEffect } from "../html.js";
import { patch, Link } from "../parts/address.js";
import { useAnswer, ask, Trouble } from "../parts/api.js";
import { Head, Pager, Find } from "../parts/table.js";
import { State, Lost, rate, left, groupState, lagState } from "../parts/figures.js";
import { count, duration, exact, signed, plural, ranges, clock } from "../parts/format.js";

const ROWS = 50;
/** Up to so many partitions and members the matrix has a cell for each; beyond, ranges say the same. */
const CELLS = 48;

export function Groups({ address, stream }) {
  const { query } = address;
  return query.group ? html`<${Group} key=${query.group} name=${query.group} opened=${stream.opened} />` : html`<${List} query=${query} opened=${stream.opened} />`;
}

const COLUMNS = [
  { name: "group", key: "group" }, { name: "state", key: "state" }, { name: "members", key: "members", isNumber: true }, { name: "topics" }, { name: "lag", key: "lag", isNumber: true },
  { name: "behind by", key: "lag_seconds", isNumber: true }, { name: "empty in", isNumber: true }, { name: "in", isNumber: true }, { name: "out", isNumber: true }, { name: "assignor" },
];

function List({ query, opened }) {
  const sort = query.sort ?? "lag_seconds";
  const desc = query.sort ? Boolean(query.desc) : true;
  const offset = Number(query.offset) || 0;
  const answer = useAnswer("/api/v1/groups", { q: query.q, sort, desc: desc ? 1 : "", offset, limit: ROWS }, { every: 2000, again: opened });
  const { body } = answer;
  return html`<section class="panel" aria-label="Consumer groups">
    <p class="bar-title"><span class="side-title">Consumer groups</span><${Find} label="Find a group" value=${query.q ?? ""} onFind=${(q) => patch({ q, offset: "" }, true)} /></p>
    <${Trouble} of=${answer} what="The groups" />
    ${body && html`<div class="wide" tabindex="0" role="region" aria-label="Table of groups"><table id="groups">
      <${Head} columns=${COLUMNS} sort=${sort} desc=${desc} onSort=${(key, isDesc) => patch({ sort: key, desc: isDesc ? "1" : "", offset: "" }, true)} />
      <tbody>${body.rows.map((g) => html`<tr key=${g.group}>
        <td class="name"><${Link} to="/groups" query=${{ group: g.group }}>${g.group}<//></td><td class="nowrap"><${State} state=${lagState(g)} why=${g.why} /> <span class="muted">${groupState(g)}</span> <${Lost} lost=${g.lost} /></td><td class="number">${exact(g.members)}</td>
        <td class="name">${topicsText(g)}</td><td class="number">${count(g.lag)}</td><td class="number">${duration(g.lag_seconds)}</td><td class="number">${left(g)}</td><td class="number">${rate(g.in_rate)}</td><td class="number">${rate(g.out_rate)}</td><td>${g.assignor ?? "–"}</td></tr>`)}</tbody></table></div>
      ${!body.rows.length && html`<p class="muted">${query.q ? `No group has “${query.q}” in its name.` : "There is no consumer group yet."}</p>`}
      <${Pager} total=${body.total} offset=${offset} limit=${ROWS} what="groups" onPage=${(at) => patch({ offset: at || "" }, true)} />`}
  </section>`;
}

const topicsText = ({ topics = [], topics_total: total = topics.length }) => (total > 3 ? `${topics.slice(0, 3).join(", ")} and ${exact(total - 3)} more` : topics.join(", ") || "–");

function Group({ name, opened }) {
  const answer = useAnswer("/api/v1/group", { group: name }, { every: 2000, again: opened });
  const { body } = answer;
  return html`
    <p class="crumbs"><${Link} to="/groups">All groups<//></p>
    <h2 class="of"><span>${name}</span> ${body && html`<span class="muted">${[groupState(body), body.assignor, body.coordinator != null && `coordinator ${body.coordinator}`].filter(Boolean).join(" · ")}</span>`}</h2>
    <${Trouble} of=${answer} what="The group" />
    ${body?.why && html`<p class="notice">Not everything is known: ${body.why}</p>`}
    ${body && html`
      <${Topics} group=${body} />
      <${Members} members=${body.members ?? []} total=${body.members_total} idleTotal=${body.idle_members} />
      <${Reset} group=${body} reload=${answer.reload} />`}`;
}

function Topics({ group }) {
  if (!group.topics?.length) return html`<section class="panel"><p class="muted">This group has committed nothing and reads no topic.</p></section>`;
  return html`<section class="panel" aria-label="Topics of the group"><p class="side-title">Topics</p>
    <div class="wide" tabindex="0" role="region" aria-label="Table of topics"><table><thead><tr><th scope="col">topic</th><th scope="col">state</th><th scope="col" class="number">lag</th><th scope="col" class="number">behind by</th><th scope="col" class="number">empty in</th><th scope="col" class="number">in</th><th scope="col" class="number">out</th></tr></thead>
      <tbody>${group.topics.map((t) => html`<tr key=${t.topic}><td class="name"><${Link} to="/lag" query=${{ group: group.group, topic: t.topic }}>${t.topic}<//></td><td><${State} state=${t.state} /> <${Lost} lost=${t.lost} /></td>
        <td class="number">${exact(t.lag)}</td><td class="number">${duration(t.lag_seconds)}</td><td class="number">${left(t)}</td><td class="number">${rate(t.in_rate)}</td><td class="number">${rate(t.out_rate)}</td></tr>`)}</tbody></table></div></section>`;
}

function Members({ members, total = members.length, idleTotal }) {
  const idle = idleTotal ?? members.filter((each) => each.idle).length;
  const topics = [...new Set(members.flatMap((each) => each.partitions.map((p) => p.topic)))].sort();
  const of = (member, topic) => member.partitions.filter((p) => p.topic === topic).map((p) => p.partition);
  const columns = topics.flatMap((topic) => [...new Set(members.flatMap((member) => of(member, topic)))].sort((a, b) => a - b).map((partition) => [topic, partition]));
  const isSmall = columns.length <= CELLS && members.length <= CELLS;
  const who = (member) => html`<th scope="row"><span class="name">${member.client_id}</span>${member.instance_id && html` <span class="muted">static ${member.instance_id}</span>`}<br /><span class="muted name">${member.host} · ${member.member_id}</span> ${member.idle && html`<span class="idle"><span aria-hidden="true">○</span> idle</span>`}</th>`;
  return html`<section class="panel" aria-label="Members">
    <p class="side-title">Members and their partitions</p>
    ${!members.length && html`<p class="muted">The group has no members.</p>`}
    ${idle > 0 && html`<p class="warn" id="idle"><span aria-hidden="true">▲</span> ${exact(idle)} of ${plural(total, "consumer")} ${idle === 1 ? "has" : "have"} no partition: only more partitions would give ${idle === 1 ? "it" : "them"} work.</p>`}
    ${members.length > 0 && html`<div class="wide" tabindex="0" role="region" aria-label="Table of members"><table id="members" class=${isSmall ? "matrix" : null}>
      <thead>${isSmall && columns.length > 0
        ? html`<tr><th scope="col" rowspan="2">member</th>${topics.map((topic) => html`<th key=${topic} scope="colgroup" class="topic-head" colspan=${columns.filter(([each]) => each === topic).length}>${topic}</th>`)}</tr><tr>${columns.map(([topic, partition]) => html`<th key=${`${topic}\n${partition}`} scope="col" class="cell">${partition}</th>`)}</tr>`
        : html`<tr><th scope="col">member</th>${topics.map((topic) => html`<th key=${topic} scope="col">${topic}</th>`)}</tr>`}</thead>
      <tbody>${members.map((member) => html`<tr key=${member.member_id} class=${member.idle ? "is-idle" : null}>${who(member)}
        ${isSmall
          ? columns.map(([topic, partition]) => { const has = member.partitions.some((p) => p.topic === topic && p.partition === partition); return html`<td key=${`${topic}\n${partition}`} class=${has ? "cell has" : "cell"}>${has ? html`<span aria-hidden="true">●</span><span class="skip">reads</span>` : ""}</td>`; })
          : topics.map((topic) => html`<td key=${topic}>${ranges(of(member, topic)) || "–"}${member.partitions_total > member.partitions.length ? " …" : ""}</td>`)}</tr>`)}</tbody></table></div>`}
    ${total > members.length && html`<p class="muted">The first ${exact(members.length)} of ${plural(total, "member")}.</p>`}
  </section>`;
}

const TARGETS = [
  ["earliest", "the first record that is left"], ["latest", "the end: skip what is unread"], ["timestamp", "the first record at or after a time"], ["offset", "an offset"], ["shift", "forward or back by a number of records"],
];

/** "0-3, 7" as numbers; null where it is anything else. */
function parsePartitions(said) {
  const out = [];
  for (const part of said.split(",").map((each) => each.trim()).filter(Boolean)) {
    const [, from, to = from] = part.match(/^(\d+)(?:\s*[-–]\s*(\d+))?$/) ?? [];
    if (from === undefined || Number(to) < Number(from) || Number(to) - Number(from) > 100_000) return null;
    for (let n = Number(from); n <= Number(to); n += 1) out.push(n);
  }
  return out;
}

/** What is to be asked, or in a sentence what is missing. */
function requestOf({ group, ticked, kind, value }) {
  const topics = Object.entries(ticked).map(([topic, said]) => ({ topic, partitions: said.trim() ? parsePartitions(said) : null, said }));
  if (!topics.length) return { missing: "Tick the topics whose offsets are to move." };
  const wrong = topics.find((each) => each.said.trim() && !each.partitions?.length);
  if (wrong) return { missing: `Partitions of ${wrong.topic}: numbers and ranges as in 0-3, 7.` };
  if (!kind) return { missing: "Choose where to." };
  const number = kind === "timestamp" ? new Date(value).getTime() : Number(value);
  const needsValue = kind === "timestamp" || kind === "offset" || kind === "shift";
  if (needsValue && (value === "" || !Number.isFinite(number))) return { missing: kind === "timestamp" ? "Say from which time on." : "Say a number." };
  return { body: { group, topics: topics.map(({ topic, partitions }) => ({ topic, partitions })), to: { kind, ...(needsValue && { value: Math.trunc(number) }) } } };
}

/** Nothing is ticked beforehand, nothing is written before a person has seen from where to where. */
function Reset({ group, reload }) {
  const [ticked, setTicked] = useState({});
  const [kind, setKind] = useState("");
  const [value, setValue] = useState("");
  const [state, setState] = useState({ preview: null, done: null, trouble: "", isBusy: false });
  const request = requestOf({ group: group.group, ticked, kind, value });
  const asked = JSON.stringify(request.body ?? null);
  const post = async (path, body, name) => {
    setState((old) => ({ ...old, isBusy: true, trouble: "" }));
    try {
      const answer = await ask(path, {}, { method: "POST", body });
      setState({ preview: name === "preview" ? { ...answer, body, asked } : null, done: name === "preview" ? null : { ...answer, name }, trouble: "", isBusy: false });
      if (name !== "preview") { setTicked({}); setKind(""); setValue(""); reload(); }
    } catch (error) {
      setState((old) => ({ ...old, trouble: error.message, isBusy: false }));
    }
  };
  const { done, trouble, isBusy } = state;
  // What was previewed is what is done: after any change there is no preview.
  const preview = state.preview?.asked === asked ? state.preview : null;
  // Of very many rows only the first are told.
  const isCut = preview?.rows_total > preview?.rows.length;
  const moving = isCut ? preview.rows_total : (preview?.rows.filter((row) => row.to != null && row.delta !== 0).length ?? 0);
  const tick = (topic) => setTicked((old) => { const next = { ...old }; if (topic in next) delete next[topic]; else next[topic] = ""; return next; });
  return html`<section class="panel reset" aria-label="Move offsets">
    <p class="side-title">Move committed offsets</p>
    ${group.undo && html`<${Undo} undo=${group.undo} isBusy=${isBusy} onUndo=${() => post("/api/v1/group/undo", { group: group.group }, "undo")} />`}
    ${group.members?.length > 0 && html`<p class="muted">The group has ${plural(group.members.length, "member")}. A preview is possible; to move its offsets stop them first, as they would commit their own again.</p>`}
    ${group.topics?.length > 0 && html`<form onSubmit=${(event) => { event.preventDefault(); if (request.body) post("/api/v1/group/reset", { ...request.body, execute: false }, "preview"); }}>
      <fieldset><legend>Which topics</legend>${group.topics.map(({ topic }) => html`<div class="choice" key=${topic}><label><input type="checkbox" name="topic" checked=${topic in ticked} onChange=${() => tick(topic)} /> ${topic}</label>
        ${topic in ticked && html` <input type="text" aria-label=${`Partitions of ${topic}`} placeholder="all partitions, or e.g. 0-3, 7" value=${ticked[topic]} onInput=${(event) => setTicked({ ...ticked, [topic]: event.target.value })} />`}</div>`)}</fieldset>
      <fieldset><legend>Where to</legend>${TARGETS.map(([each, name]) => html`<div class="choice" key=${each}><label><input type="radio" name="to" value=${each} checked=${kind === each} onChange=${() => { setKind(each); setValue(""); }} /> ${name}</label>
        ${kind === each && each === "timestamp" && html` <input type="datetime-local" step="1" aria-label="Time" value=${value} onInput=${(event) => setValue(event.target.value)} />`}
        ${kind === each && (each === "offset" || each === "shift") && html` <input type="number" aria-label=${each === "offset" ? "Offset" : "Records, negative for back"} placeholder=${each === "shift" ? "−100 goes back" : ""} value=${value} onInput=${(event) => setValue(event.target.value)} />`}</div>`)}</fieldset>
      <p><button class="primary" disabled=${!request.body || isBusy}>Preview</button> <span class="muted">${request.missing ?? "Nothing is written by a preview."}</span></p>
    </form>`}
    ${trouble && html`<p class="trouble" role="alert"><span aria-hidden="true">✖</span> ${trouble}</p>`}
    ${preview && html`<div id="preview"><${Moves} rows=${preview.rows} total=${preview.rows_total} />
      ${preview.refused
        ? html`<p class="trouble" role="alert"><span aria-hidden="true">✖</span> ${preview.refused}</p>`
        : html`<p><button class="danger" disabled=${isBusy || !moving} onClick=${() => post("/api/v1/group/reset", { ...preview.body, execute: true }, "reset")}>Move ${isCut && "up to "}${plural(moving, "offset")}</button> <button onClick=${() => setState({ ...state, preview: null })}>Leave them</button></p>`}</div>`}
    ${done && html`<div id="done">${done.executed ? html`<p class="well" role="status"><span aria-hidden="true">✔</span> ${done.name === "undo" ? "Undone." : "Moved."} ${done.undo_until_ms && done.name !== "undo" ? `It can be undone until ${clock(done.undo_until_ms)}.` : ""} ${done.undo_why && html`<span class="warn">${done.undo_why}</span>`}</p>` : html`<p class="trouble" role="alert"><span aria-hidden="true">✖</span> Nothing was written: ${done.refused ?? "the server did not say why"}</p>`}<${Moves} rows=${done.rows ?? []} total=${done.rows_total} /></div>`}
  </section>`;
}

function Undo({ undo, onUndo, isBusy }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => { const timer = setInterval(() => setNow(Date.now()), 1000); return () => clearInterval(timer); }, []);
  const left = Math.round((undo.until_ms - now) / 1000);
  if (left <= 0) return null;
  return html`<p class="undo"><span>${undo.text}</span> <button disabled=${isBusy} onClick=${onUndo}>Undo</button> <span class="muted">possible for ${duration(left)} more</span></p>`;
}

const MOVES = 200;

function Moves({ rows, total = rows.length }) {
  if (!rows.length) return null;
  return html`<div class="scroll" tabindex="0" role="region" aria-label="From where to where"><table class="moves"><thead><tr><th scope="col">topic</th><th scope="col" class="number">partition</th><th scope="col" class="number">from</th><th scope="col" class="number">to</th><th scope="col" class="number">Δ</th><th scope="col">note</th></tr></thead>
    <tbody>${rows.slice(0, MOVES).map((row) => html`<tr key=${`${row.topic}\n${row.partition}`}><td class="name">${row.topic}</td><td class="number">${row.partition}</td><td class="number">${row.from == null ? "none" : exact(row.from)}</td><td class="number">${row.to == null ? "–" : exact(row.to)}</td>
      <td class=${`number ${row.delta < 0 ? "warn" : ""}`}>${row.delta === 0 ? "0" : signed(row.delta, exact)}</td><td>${row.why ?? (row.delta < 0 ? "read again" : row.delta > 0 ? "skipped" : "")}</td></tr>`)}</tbody></table></div>
    ${total > MOVES && html`<p class="muted">and ${plural(total - MOVES, "more row")}</p>`}`;
}
