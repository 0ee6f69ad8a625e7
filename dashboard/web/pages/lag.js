// Lag: per group and partition how far behind, how fast in and out, and whether that is well.
import { html, useState, useEffect, useMemo } from "../html.js";
import { go } from "../parts/address.js";
import { Plot } from "../parts/plot.js";
import { count, duration } from "../parts/format.js";

const STATES = {
  ok: ["✔", "ok"], behind: ["▲", "behind"], stalled: ["■", "stalled"], stopped: ["✖", "stopped"],
  uncommitted: ["○", "no commit yet"], unknown: ["?", "unknown"],
};

function State({ state, why }) {
  const [glyph, name] = STATES[state] ?? STATES.unknown;
  return html`<span class=${`state-${state}`} title=${why ?? null}><span aria-hidden="true">${glyph}</span> ${name}</span>`;
}

const rate = (value) => (value == null ? "–" : `${count(value)}/s`);

export function Lag({ address, stream }) {
  const snapshot = stream.lag;
  const rows = snapshot?.groups ?? [];
  const group = rows.find((each) => each.group === address.query.group) ?? rows[0];
  const topic = group?.topics.find((each) => each.topic === address.query.topic) ?? group?.topics[0];
  if (!snapshot) return html`<p class="muted">Waiting for the first measurement…</p>`;
  if (!group) return html`<p class="muted">No consumer group has committed an offset or has members yet.</p>`;
  return html`
    <div class="sides">
      <section class="panel" aria-label="Groups">
        <ul class="tree">${rows.map((each) => html`
          <li key=${each.group}><strong>${each.group}</strong> <span class="muted">${each.state}, ${each.members} member${each.members === 1 ? "" : "s"}</span>
            <ul>${each.topics.map((inner) => html`<li key=${inner.topic}>
              <button aria-pressed=${each === group && inner === topic ? "true" : "false"} onClick=${() => go("/lag", { group: each.group, topic: inner.topic })}>
                <span>${inner.topic}</span><span class="number">${count(inner.lag)}</span></button></li>`)}</ul>
          </li>`)}</ul>
      </section>
      ${topic ? html`<${Topic} key=${group.group + "\n" + topic.topic} group=${group.group} topic=${topic} now=${snapshot.now_ms} />` : html`<p class="muted">This group reads no topic.</p>`}
    </div>`;
}

function Topic({ group, topic, now }) {
  const points = useHistory(group, topic, now);
  const lag = useMemo(() => [points.map((p) => p[0]), points.map((p) => p[1])], [points]);
  const flow = useMemo(() => [points.map((p) => p[0]), points.map((p) => p[3]), points.map((p) => p[4])], [points]);
  return html`<div>
    <dl class="big">
      <div><dt title="sum over partitions of: end offset − committed offset">Lag</dt><dd>${count(topic.lag)} <small>records</small></dd></div>
      <div><dt title="now − time of the record at the committed offset; the worst partition">Behind by</dt><dd>${duration(topic.lag_seconds)}</dd></div>
      <div><dt title="end offsets per second, over 10 s">In</dt><dd>${rate(topic.in_rate)}</dd></div>
      <div><dt title="committed offsets per second, over 10 s">Out</dt><dd>${rate(topic.out_rate)} <small>${drain(topic)}</small></dd></div>
    </dl>
    <section class="panel"><${Plot} label="lag, records" data=${lag} series=${[{ label: "lag", colour: "--series-1", format: count }]} /></section>
    <section class="panel"><${Plot} label="records per second" data=${flow} series=${[{ label: "in", colour: "--series-2", format: count }, { label: "out", colour: "--series-3", format: count }]} /></section>
    <section class="panel" aria-label="Partitions">
      <table id="partitions"><thead><tr><th class="number">partition</th><th>member</th><th class="number">committed</th><th class="number">end</th><th class="number">lag</th><th class="number">behind by</th><th class="number">in</th><th class="number">out</th><th>state</th></tr></thead>
        <tbody>${topic.partitions.map((p) => html`<tr key=${p.partition}>
          <td class="number">${p.partition}</td><td>${p.member ?? "–"}</td><td class="number">${p.committed?.toLocaleString("en") ?? "–"}</td><td class="number">${p.end?.toLocaleString("en") ?? "–"}</td>
          <td class="number">${p.lag?.toLocaleString("en") ?? "–"}</td><td class="number">${duration(p.lag_seconds)}</td><td class="number">${rate(p.in_rate)}</td><td class="number">${rate(p.out_rate)}</td>
          <td><${State} state=${p.state} why=${p.why} /></td></tr>`)}</tbody></table>
    </section></div>`;
}

function drain({ lag, in_rate, out_rate }) {
  if (!lag || in_rate == null || out_rate == null) return "";
  const net = out_rate - in_rate;
  return net > 0 ? `empty in ${duration(lag / net)}` : net < 0 ? `growing by ${count(-net)}/s` : "";
}

/** [seconds, lag, lag seconds, in, out]: what the server remembers, then each new snapshot. */
function useHistory(group, topic, now) {
  const [points, setPoints] = useState([]);
  useEffect(() => {
    let isCurrent = true;
    fetch(`/api/v1/lag/history?${new URLSearchParams({ group, topic: topic.topic })}`).then((answer) => answer.json())
      .then((body) => { if (isCurrent) setPoints((fresh) => [...body.points.filter((p) => !fresh.length || p[0] < fresh[0][0]), ...fresh]); })
      .catch(() => {}); // The plot then begins with what arrives.
    return () => { isCurrent = false; };
  }, [group, topic.topic]);
  useEffect(() => {
    setPoints((old) => [...old, [now / 1000, topic.lag, topic.lag_seconds, topic.in_rate, topic.out_rate]].slice(-3600));
  }, [now]);
  return points;
}
