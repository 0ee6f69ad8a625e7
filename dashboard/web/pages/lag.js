// Lag: per group and topic how far behind, how fast in and out, what happened, and what would help.
import { html, useState, useEffect, useMemo, useRef } from "../html.js";
import { patch, Link } from "../parts/address.js";
import { useAnswer, ask, Trouble } from "../parts/api.js";
import { Plot, MARKS } from "../parts/plot.js";
import { Heat } from "../parts/heat.js";
import { Head, Pager, Find } from "../parts/table.js";
import { spanOf } from "../parts/span.js";
import { State, Glyph, Lost, Slope, rate, drain, left, keepsUp, partitionsOf, groupState } from "../parts/figures.js";
import { count, duration, exact, bytes, clock, moment, percent, plural } from "../parts/format.js";

/** Groups on a page of the tree, and topics of a group before the rest is folded. */
const GROUPS = 25;
const TOPICS = 6;
const ROWS = 100;
const PLOT_POINTS = 4000;

export function Lag({ address, stream }) {
  const { query } = address;
  const snapshot = stream.lag;
  const groups = snapshot?.groups ?? [];
  const first = groups.find((each) => each.topics.length) ?? groups[0];
  // What was worst when the page was opened stays chosen, however the order changes.
  useEffect(() => {
    if (!query.group && first) patch({ group: first.group, topic: first.topics[0]?.topic ?? "" }, true);
  }, [query.group, first?.group]);
  const listed = groups.find((each) => each.group === (query.group ?? first?.group));
  // The stream brings the worst groups and topics: one that is not among them is asked for by name.
  const isFar = Boolean(snapshot && query.group) && (!listed || (Boolean(query.topic) && !listed.topics.some((each) => each.topic === query.topic)));
  const far = useAnswer(isFar ? "/api/v1/group" : null, { group: query.group }, { every: 1000, again: stream.opened });
  const group = isFar ? (far.body?.group === query.group ? far.body : null) : listed;
  const topic = query.topic ? group?.topics.find((each) => each.topic === query.topic) : group?.topics[0];
  if (!snapshot) return html`<p class="muted" role="status">${stream.state === "lost" ? "The server does not answer; this is tried again." : "Waiting for the first measurement…"}</p>`;
  return html`
    ${snapshot.stale && html`<${Stale} snapshot=${snapshot} />`}
    ${!groups.length && !snapshot.stale && html`<p class="muted">No consumer group has committed an offset or has members yet. As soon as one reads from the broker, it shows here.</p>`}
    ${groups.length > 0 && html`<div class="sides">
      <${Tree} snapshot=${snapshot} query=${query} group=${group} topic=${topic} />
      ${topic && html`<${Topic} key=${`${group.group}\n${topic.topic}`} group=${group} topic=${topic} snapshot=${snapshot} query=${query} opened=${stream.opened} isPaused=${Boolean(query.paused)} />`}
      ${!topic && html`<p class="muted" id="missing">${!group ? (far.trouble || !isFar ? `Group ${query.group} cannot be shown: ${far.trouble}` : `Asking for group ${query.group}…`)
        : group.why ? "Nothing is known of this group at the moment." : query.topic ? `Group ${group.group} does not read topic ${query.topic}.` : "This group reads no topic."}</p>`}
    </div>`}`;
}

const memberCount = (group) => group.members_total ?? (Array.isArray(group.members) ? group.members.length : group.members);

function Stale({ snapshot }) {
  const what = snapshot.now_ms
    ? `These are the figures of ${clock(snapshot.now_ms)}, ${duration(Math.round((snapshot.sent_ms - snapshot.now_ms) / 1000))} ago.`
    : "There is nothing to show until it does.";
  return html`<p class="notice" id="stale" role="status"><span aria-hidden="true">▲</span> Lag cannot be measured: ${snapshot.broker.text}. ${what}</p>`;
}

/** The longest wait first, unknown ones last; among equals the more records. */
const byWorst = (a, b) => (b.lag_seconds ?? -1) - (a.lag_seconds ?? -1) || (b.lag ?? -1) - (a.lag ?? -1);

function Tree({ snapshot, query, group, topic }) {
  const [isHeld, setHeld] = useState(false);
  const held = useRef([]);
  const wanted = (query.find ?? "").toLowerCase();
  // The order stays while a person points at it, so that nothing moves away from under the pointer.
  if (!isHeld || !held.current.length) held.current = [...snapshot.groups].sort(byWorst).map((each) => each.group);
  const known = new Map(snapshot.groups.map((each) => [each.group, each]));
  const matching = held.current.map((name) => known.get(name)).filter((each) => each && (!wanted || each.group.toLowerCase().includes(wanted) || each.topics.some((inner) => inner.topic.toLowerCase().includes(wanted))));
  const offset = Math.min(Number(query.at_group) || 0, Math.max(Math.ceil(matching.length / GROUPS) - 1, 0) * GROUPS);
  const total = snapshot.groups_total ?? snapshot.groups.length;
  return html`
    <section class="panel side" aria-label="Groups" onMouseEnter=${() => setHeld(true)} onMouseLeave=${() => setHeld(false)}>
      <p class="side-title">Groups <span class="muted">behind by</span></p>
      <${Find} label="Find a group or topic" value=${query.find ?? ""} onFind=${(find) => patch({ find, at_group: "" }, true)} />
      <ul class="tree">${matching.slice(offset, offset + GROUPS).map((each) => html`
        <li key=${each.group}><p title=${each.why ?? null}><strong>${each.group}</strong> <span class="muted">${each.why ? `unknown: ${each.why}` : [groupState(each), plural(each.members, "member")].filter(Boolean).join(", ")}</span></p>
          <${TreeTopics} group=${each} chosen=${each === group ? topic?.topic : null} wanted=${wanted} /></li>`)}</ul>
      ${!matching.length && html`<p class="muted">No group or topic has “${query.find}” in its name.</p>`}
      <${Pager} total=${matching.length} offset=${offset} limit=${GROUPS} what="groups" onPage=${(at) => patch({ at_group: at || "" }, true)} />
      ${total > snapshot.groups.length && html`<p class="muted">The ${exact(snapshot.groups.length)} worst of ${exact(total)} groups; all of them are under <${Link} to="/groups">Groups<//>.</p>`}
    </section>`;
}

function TreeTopics({ group, chosen, wanted }) {
  const [isOpen, setOpen] = useState(false);
  const sorted = [...group.topics].sort(byWorst);
  const matching = wanted && !group.group.toLowerCase().includes(wanted) ? sorted.filter((each) => each.topic.toLowerCase().includes(wanted)) : sorted;
  const shown = isOpen ? matching : matching.filter((each, i) => i < TOPICS || each.topic === chosen);
  return html`<ul>${shown.map((each) => html`<li key=${each.topic}>
      <button aria-pressed=${each.topic === chosen ? "true" : "false"} onClick=${() => patch({ group: group.group, topic: each.topic, p: "", offset: "", from: "", to: "", at: "" })}>
        <span class="cut"><${Glyph} state=${each.state} /> ${each.topic}</span><span class="number">${each.state === "uncommitted" ? "–" : duration(each.lag_seconds)}</span></button></li>`)}
    ${matching.length > shown.length && html`<li><button class="link" onClick=${() => setOpen(true)}>${plural(matching.length - shown.length, "more topic")}</button></li>`}
    ${group.topics_total > group.topics.length && (isOpen || matching.length === shown.length) && html`<li><${Link} to="/groups" query=${{ group: group.group }}>all ${exact(group.topics_total)} topics<//></li>`}</ul>`;
}

function Topic({ group, topic, snapshot, query, opened, isPaused }) {
  const { now_ms: now, stale: isStale } = snapshot;
  const span = spanOf(query, isStale ? snapshot.sent_ms : now);
  const ids = { group: group.group, topic: topic.topic };
  const points = useHistory(ids, topic, snapshot, span, opened);
  const marks = useMarks(ids, span, query.span, opened);
  const columns = (...wanted) => [0, ...wanted].map((n) => points.map((point) => point[n]));
  const lag = useMemo(() => columns(1), [points]);
  const seconds = useMemo(() => columns(2), [points]);
  const flow = useMemo(() => columns(3, 4), [points]);
  const shared = { sync: "lag", marks, at: Number(query.at) || 0, height: 132, onSelect: (from, to) => patch({ from: Math.floor(from * 1000), to: Math.ceil(to * 1000) }) };
  const chosen = query.p != null && query.p !== "" ? Number(query.p) : null;
  const choose = (partition) => patch({ p: partition === chosen ? "" : partition });
  return html`<div class=${isStale ? "stale" : null}>
    <h2 class="of"><span>${topic.topic}</span> <span class="muted">read by</span> <span>${group.group}</span> <${State} state=${topic.state} why=${topic.why ?? group.why} /> <${Lost} lost=${topic.lost} />
      <span class="links"><${Link} to="/topics" query=${{ topic: topic.topic }}>topic<//> <${Link} to="/groups" query=${{ group: group.group }}>group<//></span></h2>
    <${Numbers} ids=${ids} topic=${topic} now=${now} />
    ${span.isFixed && html`<p class="zoomed">${moment(span.from)} – ${clock(span.to)} <button onClick=${() => patch({ from: "", to: "", at: "" })}>Back to now</button></p>`}
    <section class="panel"><${Plot} label="Lag, records" data=${lag} series=${[{ label: "lag", colour: "--series-1", format: count, isFilled: true }]} ...${shared} /></section>
    <section class="panel"><${Plot} label="Behind by, seconds" data=${seconds} series=${[{ label: "behind by", colour: "--series-4", format: duration, isFilled: true }]} ...${shared} /></section>
    <section class="panel"><${Plot} label="Records per second; what lies between is the growth" between data=${flow} series=${[{ label: "in", colour: "--series-2", format: count }, { label: "out", colour: "--series-3", format: count }]} ...${shared} /></section>
    <${Marks} marks=${marks} at=${shared.at} />
    <${HeatStrip} ids=${ids} partitions=${partitionsOf(topic)} span=${span} chosen=${chosen} onChoose=${choose} opened=${opened} />
    <${WhatIf} ids=${ids} query=${query} partitions=${partitionsOf(topic)} members=${memberCount(group)} isWell=${keepsUp(topic) || topic.lag === 0} />
    ${chosen != null && html`<${Chosen} key=${chosen} ids=${ids} partition=${chosen} onClose=${() => patch({ p: "" })} />`}
    <${Partitions} ids=${ids} query=${query} chosen=${chosen} choose=${choose} opened=${opened} />
  </div>`;
}

/** Per second, over what was seen in the last minute; null while that is too little. */
function useTrend(now, values) {
  const seen = useRef([]);
  const last = seen.current[seen.current.length - 1];
  if (now && last?.[0] !== now) seen.current = [...seen.current, [now, ...values]].filter(([at]) => at > now - 60_000);
  const begin = seen.current[0];
  return values.map((value, i) => {
    const before = begin?.[i + 1];
    return value == null || before == null || now - begin[0] < 5000 ? null : (value - before) / ((now - begin[0]) / 1000);
  });
}

function Numbers({ ids, topic, now }) {
  const left = topic.drain === "never" || topic.drain == null ? null : topic.drain.seconds;
  const [lagSlope, secondsSlope, leftSlope, usedSlope] = useTrend(now, [topic.lag, topic.lag_seconds, left, topic.retention_used]);
  const growth = topic.in_1m != null && topic.out_1m != null ? topic.in_1m - topic.out_1m : topic.in_rate != null && topic.out_rate != null ? topic.in_rate - topic.out_rate : lagSlope;
  const isIdle = topic.lag === 0;
  const isWell = keepsUp(topic);
  const perSecond = (value) => duration(Math.round(value * 100) / 100);
  return html`<dl class="big">
    <${Big} name="Lag" ids=${ids} of="lag" topic=${topic} now=${now} note=${isIdle ? "nothing to read" : html`<${Slope} value=${growth} epsilon=${Math.max(0.05, (topic.in_rate ?? 0) * 0.01)} />`}>
      ${topic.state === "uncommitted" && topic.lag == null ? html`<span class="words">no commit yet</span>` : html`${count(topic.lag)} <small>${topic.lag === 1 ? "record" : "records"}</small>`}<//>
    <${Big} name="Behind by" ids=${ids} of="seconds" topic=${topic} now=${now} note=${isIdle ? "nothing to read" : html`<${Slope} value=${secondsSlope} format=${perSecond} epsilon=${0.02} /> <span class="muted">oldest unread record</span>`}>${duration(topic.lag_seconds)}<//>
    <${Big} name="Empty in" ids=${ids} of="drain" topic=${topic} now=${now} note=${isWell ? "less than 5 s of what arrives" : topic.drain === "never" ? html`<span class="warn">${growth > 0 ? `${count(growth)}/s more arrive than are read` : "at least one partition is not worked off"}</span>` : isIdle ? "nothing to read" : html`<${Slope} value=${leftSlope} format=${perSecond} epsilon=${0.2} />`}>
      ${isWell ? html`<span class="words">keeping up</span>` : topic.drain === "never" ? html`<span class="bad">never</span>` : drain(topic.drain)}<//>
    <${Big} name="Retention used" ids=${ids} of="retention" topic=${topic} now=${now} note=${topic.lost > 0 ? html`<${Lost} lost=${topic.lost} />` : topic.retention_used == null ? "" : html`<${Slope} value=${usedSlope == null ? null : usedSlope * 60} format=${percent} unit="/m" epsilon=${0.0005} /> <span class="muted">of the oldest unread record</span>`}>
      <span class=${topic.retention_used > 0.8 ? "bad" : null}>${percent(topic.retention_used)}</span><//>
  </dl>`;
}

function Big({ name, ids, of, topic, now, note, children }) {
  const [isOpen, setOpen] = useState(false);
  return html`<div><dt>${name} <button class="why-button" aria-expanded=${isOpen ? "true" : "false"} aria-label=${`How ${name.toLowerCase()} is computed`} onClick=${() => setOpen(!isOpen)}>?</button></dt>
    <dd>${children}</dd><dd class="note">${note}</dd>
    ${isOpen && html`<dd class="note formula"><${Formula} ids=${ids} of=${of} topic=${topic} now=${now} /></dd>`}</div>`;
}

/** How the figure comes about, with the values of the partition that it is about. */
function Formula({ ids, of, topic, now }) {
  const sort = of === "seconds" || of === "drain" ? "lag_seconds" : of === "retention" ? "retention_used" : "lag";
  const { body } = useAnswer("/api/v1/lag/partitions", { ...ids, sort, desc: 1, limit: 1 }, { every: 5000 });
  const p = body?.rows[0];
  const n = partitionsOf(topic);
  const show = (value) => (value == null ? "unknown" : exact(Math.round(value * 10) / 10));
  const on = p ? `partition ${p.partition}` : "";
  return {
    lag: () => html`<code>Σ max(0, end − committed)</code> over ${plural(n, "partition")} = ${exact(topic.lag)}.${p && p.committed != null && html` The largest, ${on}: <code>${exact(p.end)} − ${exact(p.committed)} = ${exact(p.lag)}</code>.`}`,
    seconds: () => html`<code>now − time of the record at the committed offset</code>, the worst of ${plural(n, "partition")}; 0 with nothing to read.${p?.lag_seconds > 0 && html` ${on}: <code>${clock(now)} − ${clock(now - p.lag_seconds * 1000)} = ${duration(p.lag_seconds)}</code>.`}`,
    drain: () => html`<code>lag ÷ (out − in)</code> at the rates of the last minute, the latest of ${plural(n, "partition")}; never where no more is read than arrives.${p && html` ${on}: <code>${exact(p.lag)} ÷ (${show(p.out_1m)} − ${show(p.in_1m)}) = ${drain(p.drain)}</code>.`}`,
    retention: () => html`The share of its retention that the oldest unread record has used: the larger of <code>its age ÷ retention.ms</code> and <code>unread bytes ÷ retention.bytes</code>, the worst of ${plural(n, "partition")}. From 100 % on it may be deleted.${p && html` ${on}: ${retentionText(p)} = <code>${percent(p.retention_used)}</code>.`} Lost are records deleted before they were read.`,
  }[of]();
}

/** What bounds a partition's records, with the present values. */
function retentionText({ retention, lag, lag_seconds: seconds, start, end }) {
  if (!lag) return "nothing is unread";
  if (!retention) return "its brokers do not say how long it is kept";
  const { ms, bytes: most, size_bytes: size } = retention;
  const age = ms != null && html`<code>${seconds == null ? "unknown" : duration(seconds)} ÷ ${duration(ms / 1000)}</code>`;
  const room = most != null && html`<code>${exact(lag)} ÷ (${exact(end)} − ${exact(start)}) × ${size == null ? "unknown" : bytes(size)} ÷ ${bytes(most)}</code>`;
  if (!age && !room) return "it is kept for ever";
  return age && room ? html`the larger of ${age} and ${room}` : age || room;
}

/** [seconds, lag, lag seconds, in, out]: what the server remembers, then each new snapshot; a gap while it is old. */
function useHistory(ids, topic, snapshot, span, opened) {
  const { now_ms: now, sent_ms: sent, stale: isStale } = snapshot;
  const [points, setPoints] = useState([]);
  const fixed = span.isFixed ? `${span.from} ${span.to}` : "";
  const wide = span.to - span.from;
  useEffect(() => {
    const abort = new AbortController();
    const wanted = span.isFixed ? { from_ms: span.from, to_ms: span.to } : { from_ms: span.from };
    setPoints([]);
    ask("/api/v1/lag/history", { ...ids, ...wanted }, { signal: abort.signal })
      .then((body) => setPoints((fresh) => {
        const last = body.points.length ? body.points[body.points.length - 1][0] : 0;
        return [...body.points, ...(span.isFixed ? [] : fresh.filter((point) => point[0] > last))];
      }))
      .catch(() => {}); // The plot then begins with what arrives.
    return () => abort.abort();
  }, [ids.group, ids.topic, fixed, fixed ? 0 : wide, opened]);
  useEffect(() => {
    if (span.isFixed) return;
    const point = isStale ? [sent / 1000, null, null, null, null] : [now / 1000, topic.lag, topic.lag_seconds, topic.in_rate, topic.out_rate];
    setPoints((old) => (old.length && old[old.length - 1][0] >= point[0] ? old : [...old, point].slice(-PLOT_POINTS)));
  }, [now, sent, fixed]);
  return useMemo(() => points.filter(([at]) => at * 1000 >= span.from && (!span.isFixed || at * 1000 <= span.to)), [points, fixed, fixed ? 0 : wide]);
}

const MARKS_EVERY_MS = 10_000;
const NONE = [];

/** What happened to this group or topic, or to the cluster. */
function useMarks(ids, span, name, opened) {
  const from = span.isFixed ? span.from : Math.floor(span.from / MARKS_EVERY_MS) * MARKS_EVERY_MS;
  const { body } = useAnswer("/api/v1/marks", span.isFixed ? { from_ms: from, to_ms: span.to } : { from_ms: from }, { again: opened });
  return useMemo(() => (body?.marks ?? NONE).filter((mark) => (!mark.group || mark.group === ids.group) && (!mark.topic || mark.topic === ids.topic)), [body]);
}

const MARKS_SHOWN = 8;

function Marks({ marks, at }) {
  const [isOpen, setOpen] = useState(false);
  if (!marks.length) return null;
  const newest = [...marks].sort((a, b) => b.at_ms - a.at_ms);
  const shown = isOpen ? newest.slice(0, 200) : newest.filter((mark, i) => i < MARKS_SHOWN || mark.at_ms === at);
  return html`<section class="panel" aria-label="What happened">
    <p class="side-title">What happened</p>
    <ul class="marks">${shown.map((mark) => html`<li key=${`${mark.at_ms}${mark.kind}${mark.text}`} class=${mark.at_ms === at ? "chosen" : null}>
      <button class="link" aria-pressed=${mark.at_ms === at ? "true" : "false"} onClick=${() => patch({ at: mark.at_ms === at ? "" : mark.at_ms }, true)}>${moment(mark.at_ms)}</button>
      <span class=${`mark mark-${MARKS[mark.kind] ? mark.kind : "restart"}`}><span aria-hidden="true">${(MARKS[mark.kind] ?? MARKS.restart)[0]}</span> ${MARKS[mark.kind]?.[2] ?? mark.kind}</span> <span>${mark.text}</span></li>`)}</ul>
    ${newest.length > shown.length && html`<button class="link" onClick=${() => setOpen(true)}>${plural(newest.length - shown.length, "earlier one")}</button>`}
  </section>`;
}

/** As far back as the server remembers each partition. */
const HEAT_MINUTES = 30;

function HeatStrip({ ids, partitions, span, chosen, onChoose, opened }) {
  const minutes = Math.min(Math.max(Math.round((span.to - span.from) / 60_000), 10), HEAT_MINUTES);
  const answer = useAnswer("/api/v1/lag/heat", { ...ids, minutes }, { every: 15_000, again: opened });
  const { body } = answer;
  return html`<section class="panel" id="heat">
    <${Trouble} of=${answer} what="The heat strip" />
    ${body && body.partitions.length > 0 && body.times_ms.length > 0 && html`<${Heat} heat=${body} chosen=${chosen} onChoose=${onChoose} />`}
    ${body && !(body.partitions.length && body.times_ms.length) && html`<p class="muted">Seconds behind per partition show here once they have been measured for a while.</p>`}
    ${body && partitions > body.partitions.length && body.partitions.length > 0 && html`<p class="muted">The ${exact(body.partitions.length)} worst of ${plural(partitions, "partition")}.</p>`}
  </section>`;
}

function WhatIf({ ids, query, partitions, members, isWell }) {
  const n = Number(query.n) || partitions;
  const m = Number(query.m) || Math.max(members, 1);
  const isOther = Boolean(query.n || query.m);
  const answer = useAnswer("/api/v1/lag/whatif", { ...ids, partitions: n, consumers: m }, { every: 5000 });
  const change = (name) => (event) => { const value = Math.floor(Number(event.target.value)); if (value >= 1 && value <= 100_000) patch({ [name]: value }, true); };
  return html`<section class="panel what-if" aria-label="What if">
    <p><label>What if there were <input type="number" aria-label="Partitions" min=${partitions} max="100000" value=${n} onChange=${change("n")} /> partitions</label>${" "}
      <label>and <input type="number" aria-label="Consumers" min="1" max="100000" value=${m} onChange=${change("m")} /> consumers</label>?
      ${!isOther && isWell && html` <strong id="what-if">It keeps up as it is.</strong>`}
      ${answer.body && (isOther || !isWell) && html` <strong id="what-if">${answer.body.drain === "never" ? "It would never be empty." : answer.body.drain == null ? "That cannot be told." : `Empty in ${drain(answer.body.drain)}.`}</strong> <span class="muted">${answer.body.why}</span>`}
      ${isOther && html` <button class="link" onClick=${() => patch({ n: "", m: "" }, true)}>as it is</button>`}</p>
    <${Trouble} of=${answer} what="The estimate" />
  </section>`;
}

const ago = (ms, now) => (ms == null ? "–" : `${duration(Math.max(Math.round((now - ms) / 1000), 0))} ago`);

/** Everything about one partition. */
function Chosen({ ids, partition, onClose }) {
  const answer = useAnswer("/api/v1/lag/partitions", { ...ids, q: partition, sort: "partition", limit: 500 }, { every: 2000 });
  const p = answer.body?.rows.find((each) => each.partition === partition);
  const facts = p && [
    ["leader", p.leader == null ? "–" : `broker ${p.leader}`], ["member", p.member ?? "none"], ["committed", p.committed == null ? "no commit yet" : exact(p.committed)],
    ["start – end", `${exact(p.start)} – ${exact(p.end)}`], ["last commit that moved", ago(p.moved_ms, Date.now())], ["lag", exact(p.lag)], ["behind by", duration(p.lag_seconds)],
    ["empty in", left(p)], ["in, 10 s · 1 m · 10 m", [p.in_rate, p.in_1m, p.in_10m].map(rate).join(" · ")], ["out, 10 s · 1 m · 10 m", [p.out_rate, p.out_1m, p.out_10m].map(rate).join(" · ")],
    ["retention used", percent(p.retention_used)], ["lost", p.lost > 0 ? html`<${Lost} lost=${p.lost} />` : "none"],
  ];
  return html`<section class="panel" id="chosen" aria-label=${`Partition ${partition}`}>
    <p class="side-title"><span>Partition ${partition} ${p && html`<${State} state=${p.state} why=${p.why} />`}</span> <button class="link" onClick=${onClose}>close</button></p>
    <${Trouble} of=${answer} what="The partition" />
    ${facts && html`<dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`}
    ${answer.body && !p && html`<p class="muted">The group has no partition ${partition} of this topic.</p>`}
  </section>`;
}

const COLUMNS = [
  { name: "partition", key: "partition", isNumber: true }, { name: "state", key: "state" }, { name: "lag", key: "lag", isNumber: true }, { name: "behind by", key: "lag_seconds", isNumber: true },
  { name: "empty in", isNumber: true }, { name: "in", key: "in_rate", isNumber: true }, { name: "out", key: "out_rate", isNumber: true }, { name: "committed", isNumber: true }, { name: "end", isNumber: true },
  { name: "moved", isNumber: true, hint: "When the committed offset was last seen to move" }, { name: "leader", isNumber: true }, { name: "member", key: "member" },
];

function Partitions({ ids, query, chosen, choose, opened }) {
  const sort = query.sort ?? "partition";
  const desc = Boolean(query.desc);
  const offset = Number(query.offset) || 0;
  const answer = useAnswer("/api/v1/lag/partitions", { ...ids, sort, desc: desc ? 1 : "", offset, limit: ROWS, q: query.q }, { every: 1000, again: opened });
  const { body } = answer;
  const now = Date.now();
  return html`<section class="panel" aria-label="Partitions">
    <p class="bar-title"><span class="side-title">Partitions</span> <${Find} label="Find a partition or member" value=${query.q ?? ""} onFind=${(q) => patch({ q, offset: "" }, true)} /></p>
    <${Trouble} of=${answer} what="The partitions" />
    ${body && html`<div class="wide" tabindex="0" role="region" aria-label="Table of partitions">
      <table id="partitions"><${Head} columns=${COLUMNS} sort=${sort} desc=${desc} onSort=${(key, isDesc) => patch({ sort: key, desc: isDesc ? "1" : "", offset: "" }, true)} />
        <tbody>${body.rows.map((p) => html`<tr key=${p.partition} class=${p.partition === chosen ? "chosen" : null}>
          <td class="number"><button class="link" aria-pressed=${p.partition === chosen ? "true" : "false"} onClick=${() => choose(p.partition)}>${p.partition}</button></td><td><${State} state=${p.state} why=${p.why} /> <${Lost} lost=${p.lost} /></td><td class="number">${exact(p.lag)}</td><td class="number">${duration(p.lag_seconds)}</td>
          <td class="number">${left(p)}</td><td class="number">${rate(p.in_rate)}</td><td class="number">${rate(p.out_rate)}</td><td class="number">${exact(p.committed)}</td><td class="number">${exact(p.end)}</td>
          <td class="number">${ago(p.moved_ms, now)}</td><td class="number">${p.leader ?? "–"}</td><td class="member">${p.member ?? "–"}</td></tr>`)}</tbody></table></div>
      ${!body.rows.length && html`<p class="muted">No partition or member matches “${query.q}”.</p>`}
      <${Pager} total=${body.total} offset=${offset} limit=${ROWS} what="partitions" onPage=${(at) => patch({ offset: at || "" }, true)} />`}
  </section>`;
}
