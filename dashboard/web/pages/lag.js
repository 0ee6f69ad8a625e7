// Lag: per group and partition how far behind, how fast in and out, and whether that is well.
import { html, useState, useEffect, useMemo } from "../html.js";
import { go } from "../parts/address.js";
import { Plot } from "../parts/plot.js";
import { count, duration, exact, time } from "../parts/format.js";

const STATES = {
  ok: ["✔", "ok"], behind: ["▲", "behind"], stalled: ["■", "stalled"], stopped: ["✖", "stopped"],
  uncommitted: ["○", "no commit yet"], unknown: ["?", "unknown"],
};
/** Worst first, for a topic in the list. */
const BY_TROUBLE = ["stopped", "stalled", "unknown", "behind", "uncommitted", "ok"];
const worst = (topic) => BY_TROUBLE.find((state) => topic.partitions.some((each) => each.state === state)) ?? "unknown";

function State({ state, why }) {
  const [glyph, name] = STATES[state] ?? STATES.unknown;
  return html`<span class=${`state-${state}`} title=${why ?? null}><span aria-hidden="true">${glyph}</span> ${name}${why && html`<span class="skip">: ${why}</span>`}</span>`;
}

const rate = (value) => (value == null ? "–" : `${count(value)}/s`);

export function Lag({ address, stream }) {
  const snapshot = stream.lag;
  const rows = snapshot?.groups ?? [];
  const group = rows.find((each) => each.group === address.query.group) ?? rows[0];
  const topic = group?.topics.find((each) => each.topic === address.query.topic) ?? group?.topics[0];
  if (!snapshot) return html`<p class="muted" role="status">Waiting for the first measurement…</p>`;
  return html`
    ${snapshot.stale && html`<${Stale} snapshot=${snapshot} />`}
    ${!group && !snapshot.stale && html`<p class="muted">No consumer group has committed an offset or has members yet. As soon as one reads from the broker, it shows here.</p>`}
    ${group && html`<div class="sides">
      <section class="panel side" aria-label="Groups">
        <p class="side-title">Groups and topics <span class="muted">lag</span></p>
        <ul class="tree">${rows.map((each) => html`
          <li key=${each.group}><p><strong>${each.group}</strong><br /><span class="muted">${each.why ? `unknown: ${each.why}` : `${each.state}, ${each.members} member${each.members === 1 ? "" : "s"}`}</span></p>
            <ul>${each.topics.map((inner) => html`<li key=${inner.topic}>
              <button aria-pressed=${each === group && inner === topic ? "true" : "false"} onClick=${() => go("/lag", { group: each.group, topic: inner.topic })}>
                <span><span class=${`state-${worst(inner)}`} title=${STATES[worst(inner)][1]}>${STATES[worst(inner)][0]}</span> ${inner.topic}</span><span class="number">${count(inner.lag)}</span></button></li>`)}</ul>
          </li>`)}</ul>
      </section>
      ${topic ? html`<${Topic} key=${group.group + "\n" + topic.topic} group=${group.group} topic=${topic} now=${snapshot.now_ms} sent=${snapshot.sent_ms} isStale=${snapshot.stale} />` : html`<p class="muted">${group.why ? "Nothing is known of this group at the moment." : "This group reads no topic."}</p>`}
    </div>`}`;
}

function Stale({ snapshot }) {
  const what = snapshot.now_ms
    ? `These are the figures of ${time(snapshot.now_ms).slice(11, 19)}, ${duration(Math.round((snapshot.sent_ms - snapshot.now_ms) / 1000))} ago.`
    : "There is nothing to show until it does.";
  return html`<p class="notice" id="stale" role="status"><span aria-hidden="true">▲</span> Lag cannot be measured: ${snapshot.broker.text}. ${what}</p>`;
}

function Topic({ group, topic, now, sent, isStale }) {
  const points = useHistory(group, topic, now, sent, isStale);
  const columns = (...wanted) => [0, ...wanted].map((n) => points.map((point) => point[n]));
  const lag = useMemo(() => columns(1), [points]);
  const seconds = useMemo(() => columns(2), [points]);
  const flow = useMemo(() => columns(3, 4), [points]);
  const sync = "lag";
  return html`<div class=${isStale ? "stale" : null}>
    <dl class="big">
      <div><dt title="sum over partitions of: end offset − committed offset">Lag</dt><dd>${count(topic.lag)} <small>${topic.lag === 1 ? "record" : "records"}</small></dd><dd class="note">${drain(topic)}</dd></div>
      <div><dt title="now − time of the record at the committed offset; the worst partition">Behind by</dt><dd>${duration(topic.lag_seconds)}</dd><dd class="note">oldest unread record</dd></div>
      <div><dt title="end offsets per second, over 10 s">In</dt><dd>${rate(topic.in_rate)}</dd><dd class="note">written</dd></div>
      <div><dt title="committed offsets per second, over 10 s">Out</dt><dd>${rate(topic.out_rate)}</dd><dd class="note">read and committed</dd></div>
    </dl>
    <section class="panel"><${Plot} label="Lag, records" sync=${sync} data=${lag} series=${[{ label: "lag", colour: "--series-1", format: count, isFilled: true }]} /></section>
    <section class="panel"><${Plot} label="Behind by, seconds" sync=${sync} data=${seconds} series=${[{ label: "behind by", colour: "--series-4", format: duration, isFilled: true }]} /></section>
    <section class="panel"><${Plot} label="Records per second" sync=${sync} data=${flow} series=${[{ label: "in", colour: "--series-2", format: count }, { label: "out", colour: "--series-3", format: count }]} /></section>
    <section class="panel wide" aria-label="Partitions" tabindex="0">
      <table id="partitions"><thead><tr><th class="number">partition</th><th>state</th><th class="number">lag</th><th class="number">behind by</th><th class="number">in</th><th class="number">out</th><th class="number">committed</th><th class="number">end</th><th>member</th></tr></thead>
        <tbody>${topic.partitions.map((p) => html`<tr key=${p.partition}>
          <td class="number">${p.partition}</td><td><${State} state=${p.state} why=${p.why} /></td><td class="number">${exact(p.lag)}</td><td class="number">${duration(p.lag_seconds)}</td>
          <td class="number">${rate(p.in_rate)}</td><td class="number">${rate(p.out_rate)}</td><td class="number">${exact(p.committed)}</td><td class="number">${exact(p.end)}</td><td class="member">${p.member ?? "–"}</td></tr>`)}</tbody></table>
    </section></div>`;
}

/** What becomes of the lag at the present rates. */
function drain({ lag, in_rate, out_rate }) {
  if (lag == null || in_rate == null || out_rate == null) return "";
  // A few seconds' worth is what is under way, not a backlog.
  if (lag <= in_rate * 5) return "keeping up";
  const net = out_rate - in_rate;
  return net > 0 ? `empty in ${duration(lag / net)}` : net < 0 ? `growing by ${count(-net)}/s` : "neither growing nor shrinking";
}

/** [seconds, lag, lag seconds, in, out]: what the server remembers, then each new snapshot; a gap while it is old. */
function useHistory(group, topic, now, sent, isStale) {
  const [points, setPoints] = useState([]);
  useEffect(() => {
    let isCurrent = true;
    fetch(`/api/v1/lag/history?${new URLSearchParams({ group, topic: topic.topic })}`).then((answer) => answer.json())
      .then((body) => { if (isCurrent) setPoints((fresh) => [...body.points.filter((p) => !fresh.length || p[0] < fresh[0][0]), ...fresh]); })
      .catch(() => {}); // The plot then begins with what arrives.
    return () => { isCurrent = false; };
  }, [group, topic.topic]);
  useEffect(() => {
    const point = isStale ? [sent / 1000, null, null, null, null] : [now / 1000, topic.lag, topic.lag_seconds, topic.in_rate, topic.out_rate];
    setPoints((old) => (old.length && old[old.length - 1][0] >= point[0] ? old : [...old, point].slice(-3600)));
  }, [now, sent]);
  return points;
}
