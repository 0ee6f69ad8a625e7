// usage: node fake-server.js [PORT] [GROUPS] [PARTITIONS]
// Serves the page's files, and answers as the dashboard does with made-up figures, so that a page can be looked at,
// and tested with names and sizes that take long to make for real. What it answers is docs/dashboard.md.
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { extname, join, normalize } from "node:path";

const WEB = fileURLToPath(new URL("../web/", import.meta.url));
const KINDS = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml" };
const PAGES = new Set(["/", "/overview", "/lag", "/topics", "/groups", "/discover", "/ensemble", "/alerts"]);
/** As http.rs sends it. */
export const POLICY = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
/** What must never become an element or run. */
export const HOSTILE = '<img src=x onerror=alert(1)></script><script>alert(2)</script>"\'`${1}';

/** 0..1, always the same for the same numbers. */
function chance(...seed) {
  let n = 2166136261;
  for (const each of seed) n = Math.imul(n ^ each, 16777619) ^ (n >>> 13);
  n = Math.imul(n ^ (n >>> 15), 2246822507);
  return ((n ^ (n >>> 13)) >>> 0) / 4294967296;
}

const STATES = ["ok", "uncommitted", "behind", "rewound", "unknown", "stalled", "stopped"];

const RETENTION = { ms: 7 * 86_400_000, bytes: null, size_bytes: null };

function figures(state, lag, inRate, outRate, seconds, lost = 0) {
  if (state === "unknown" || state === "uncommitted") return { lag: null, lag_seconds: null, in_rate: state === "unknown" ? null : inRate, out_rate: null, in_1m: null, out_1m: null, in_10m: null, out_10m: null, drain: null, retention_used: null, lost: 0, state };
  return { lag, lag_seconds: lag ? seconds : 0, in_rate: inRate, out_rate: outRate, in_1m: inRate, out_1m: outRate, in_10m: inRate * 0.9, out_10m: outRate * 0.95, drain: !lag ? { seconds: 0 } : outRate > inRate ? { seconds: lag / (outRate - inRate) } : "never", retention_used: lag ? (seconds * 1000) / RETENTION.ms : 0, lost, state };
}

/** Of several as of one: sums, and the worst of what cannot be added. */
function total(all) {
  const sum = (name) => all.reduce((n, each) => (each[name] == null ? n : (n ?? 0) + each[name]), null);
  const most = (name) => all.reduce((n, each) => (each[name] == null ? n : Math.max(n ?? 0, each[name])), null);
  const drains = all.map((each) => each.drain).filter(Boolean);
  return {
    ...Object.fromEntries(["lag", "in_rate", "out_rate", "in_1m", "out_1m", "in_10m", "out_10m"].map((name) => [name, sum(name)])), lag_seconds: most("lag_seconds"), retention_used: most("retention_used"), lost: sum("lost") ?? 0,
    drain: !drains.length ? null : drains.includes("never") ? "never" : { seconds: Math.max(...drains.map((each) => each.seconds)) },
    state: STATES[Math.max(0, ...all.map((each) => STATES.indexOf(each.state)))],
  };
}

/** `groups` groups besides `sink`, and one topic of `partitions` partitions besides small ones. */
export function world({ groups = 4, partitions = 12, isHostile = false } = {}) {
  const names = Array.from({ length: groups }, (_, i) => `group-${String(i).padStart(3, "0")}`);
  if (isHostile) names.push(`hostile ${HOSTILE}`);
  const topics = [["logs", partitions], ["orders", 6], ["payments", 3], ["audit", 1]];
  const clientOf = (p) => (isHostile && p === 1 ? HOSTILE : `elkfk-sink-${p % 3} (10.0.0.${p % 3})`);
  const partition = (group, topic, p, now) => {
    const wave = 1 + 0.5 * Math.sin(now / 20_000 + p);
    const random = chance(group, topic, p);
    const isBad = group === 0 && topic === 0;
    const state = isBad && p === 3 ? "stalled" : isBad && p === 4 ? "uncommitted" : isBad && p === 5 ? "unknown" : isBad && p === 6 ? "rewound" : random > 0.7 ? "behind" : "ok";
    const inRate = 40 + Math.round(random * 400);
    const lag = Math.round((state === "ok" ? 40 : 90_000) * random * wave);
    const outRate = state === "stalled" ? 0 : Math.round(inRate * (random > 0.8 ? 0.8 : 1.3));
    const lost = isBad && p === 7 ? 4321 : 0;
    const end = 1_000_000 + Math.round(now / 100) % 1_000_000 + p * 1000;
    return {
      partition: p, leader: p % 3, member: clientOf(p), committed: state === "uncommitted" || state === "unknown" ? null : end - lag, start: state === "unknown" ? null : end - lag * 3 - 1000, end: state === "unknown" ? null : end,
      retention: lag ? RETENTION : null, moved_ms: now - Math.round(random * 9000), why: state === "unknown" ? (isHostile ? HOSTILE : "broker 2 did not answer within 3 s") : null, ...figures(state, lag, inRate, outRate, outRate ? lag / outRate : 3 * 3600, lost),
    };
  };
  const rows = (g, t, now, most = Infinity) => Array.from({ length: Math.min(topics[t][1], most) }, (_, p) => partition(g, t, p, now));
  /** In large worlds a sample stands for all: this is about the page, which shares the machine with this server. */
  const sample = groups > 100 ? 8 : 64;
  const topicOf = (g, t, now) => ({ topic: topics[t][0], partitions: topics[t][1], ...total(rows(g, t, now, sample)) });
  const all = ["sink", ...names];
  const topicsOf = (g) => (g === 0 ? [0, 1] : [[1, 2], [2, 3], [0], [1]][g % 4]);
  const group = (g, now) => {
    const inner = topicsOf(g).map((t) => topicOf(g, t, now));
    return { group: all[g], group_state: g % 7 === 3 ? "Empty" : "Stable", members: g % 7 === 3 ? 0 : 3, why: null, ...total(inner), topics: inner };
  };
  return { all, topics, rows, group, topicOf, topicsOf, isHostile };
}

const page = (rows, { sort, desc, offset = 0, limit = 100 }, keys = {}) => {
  const key = keys[sort] ?? sort;
  const value = (row) => row[key] ?? -1;
  const sorted = key ? [...rows].sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * (desc ? -1 : 1)) : rows;
  return { total: rows.length, rows: sorted.slice(Number(offset), Number(offset) + Math.min(Number(limit), 500)) };
};

function decisions(now, isHostile) {
  const inputs = { arrival_per_s: 5200, consumed_per_s: 3900, lag_records: 412_000, counted_lag_records: 412_000, time_lag_s: 94.2, growth_per_s: 1300, drain_s: null, all_hot_for_s: 130, hot_for_s: 130, calm_for_s: 0, blocked_share: 0, stalled: 0, workers: 2, workers_max: 8, consumers: 3, consumers_max: 6, partitions: 6, partitions_max: 24, since_consumers_s: null, since_partitions_s: null, pause_left_s: 0, consumer_capacity_per_s: 1300, peak_arrival_per_s: 5600, hottest_partition_share: 0.21, fullest_partition_share: 0.2, idle_partitions: 0 };
  const base = { event: "decision", group: "sink", topic: "logs", mode: "auto", inputs };
  const action = { do: "partitions", from: 6, to: 9, consumers_from: 3, consumers_to: 6 };
  return [
    { ...base, at_ms: now - 40_000, rule: "draining", inputs: { ...inputs, drain_s: 180 }, why: "the backlog will be worked off within 3 minutes" },
    { event: "effect", at_ms: now - 300_000, of_ms: now - 600_000, group: "sink", topic: "logs", action, consumed_before_per_s: 3900, consumed_after_per_s: 6100, expected_gain: 0.5, gain: 0.56, verdict: "gained", why: "consumption rose by 56 %" },
    { ...base, at_ms: now - 400_000, rule: "sink-blocked", inputs: { ...inputs, blocked_share: 0.8 }, alarms: [{ alarm: "sink" }], advice: [{ advice: "bulk-concurrency" }], why: "Elasticsearch is what limits: more consumers would not help" },
    { ...base, at_ms: now - 600_000, rule: "partitions", action, why: "three consumers cannot keep up with 5200 records a second, and every partition has one" },
    { ...base, at_ms: now - 900_000, topic: "orders", mode: "advise", rule: "consumers", advised: { do: "consumers", from: 2, to: 4 }, alarms: [{ alarm: "hot-file", path: isHostile ? HOSTILE : "/var/log/big.log" }], why: isHostile ? HOSTILE : "two consumers more would halve the time to drain" },
  ];
}

const hex = (said) => Buffer.from(said).toString("hex");

/** Answers on `port` (0: any) until `stop()`. `asked` are the requests that change something. */
export async function start({ port = 0, missing = new Set(), ...options } = {}) {
  const it = world(options);
  /** As much as one event of the stream may hold. */
  const briefBytesMax = 256 << 10;
  const bad = options.isHostile ? HOSTILE : "";
  const streams = new Set();
  const asked = [];
  let undo = null;
  const rules = [
    { id: "stopped", name: "consumer stopped", metric: "stopped", group: "", topic: "", op: ">", value: 0, for_s: 60, severity: "critical", receiver: "", enabled: true, state: "ok", since_ms: null, shipped: true, text: "no member reads a topic with records" },
    { id: "seconds", name: `behind by a minute ${bad}`, metric: "lag_seconds", group: "sink", topic: "", op: ">", value: 60, for_s: 300, severity: "warning", receiver: "hook", enabled: true, state: "firing", since_ms: Date.now() - 400_000, shipped: false, text: bad || "sink / logs: lag_seconds is 94.2", targets: [{ group: "sink", topic: "logs", place: "", firing: true, value: 94.2 }] },
    { id: "retention", name: "retention", metric: "retention_used", group: "", topic: "", op: ">", value: 0.8, for_s: 60, severity: "critical", receiver: "hook", enabled: true, state: "pending", since_ms: Date.now() - 10_000, shipped: true, text: null },
  ];
  const receivers = [{ name: "hook", kind: "webhook", url: "https://hooks.example/T1" }];
  const find = (name) => it.all.indexOf(name);
  const of = (q) => { const [g, t] = [find(q.group), it.topics.findIndex(([name]) => name === q.topic)]; return g < 0 || t < 0 ? null : [g, t]; };
  const snapshot = (now = Date.now()) => {
    const groups = it.all.map((_, g) => it.group(g, now)).sort((a, b) => (b.lag_seconds ?? -1) - (a.lag_seconds ?? -1)).slice(0, 1000);
    return { now_ms: now, sent_ms: now, stale: false, broker: { ok: true, text: `answers, ${it.all.length} consumer groups` }, store: { ok: true, text: "answers" }, groups: fitting(groups), groups_total: it.all.length };
  };
  const fitting = (groups) => {
    let bytes = 1000;
    return groups.filter((group) => (bytes += JSON.stringify(group).length) < briefBytesMax);
  };
  const reset = ({ group, topics, to, execute }) => {
    const rows = topics.flatMap(({ topic, partitions }) => {
      const place = of({ group, topic });
      return place ? it.rows(...place, Date.now()).filter((p) => !partitions || partitions.includes(p.partition)).map((p) => {
        const at = { earliest: p.start, latest: p.end, offset: to.value, timestamp: p.end - 10, shift: (p.committed ?? p.end) + (to.value ?? 0) }[to.kind];
        return { topic, partition: p.partition, from: p.committed, to: at, delta: p.committed == null || at == null ? null : at - p.committed, why: p.committed == null ? "no commit yet" : null };
      }) : [];
    });
    const refused = it.group(find(group), Date.now()).members ? `group ${group} has 3 members; stop them first` : null;
    if (execute && !refused) undo = { group, until_ms: Date.now() + 600_000, text: `${rows.length} offsets were moved just now` };
    return { rows, executed: Boolean(execute) && !refused, refused, rows_total: rows.length, undo_until_ms: undo?.until_ms ?? null };
  };

  const api = {
    "/api/v1/lag": () => { const now = Date.now(); const whole = snapshot(now); return { ...whole, groups: whole.groups.slice(0, 20).map((g) => ({ ...g, topics: g.topics.map((t) => ({ ...t, partitions: it.rows(...of({ group: g.group, topic: t.topic }), now) })) })) }; },
    "/api/v1/lag/partitions": (q) => {
      const place = of(q);
      if (!place) return [404, { error: "there is no such group and topic" }];
      if ((q.sort ?? "partition") === "partition" && !q.desc && !q.q) {
        const end = Number(q.offset ?? 0) + Math.min(Number(q.limit ?? 100), 500);
        return { total: it.topics[place[1]][1], rows: it.rows(...place, Date.now(), end).slice(Number(q.offset ?? 0)) };
      }
      const all = it.rows(...place, Date.now()).filter((p) => !q.q || String(p.partition) === q.q || p.state === q.q || p.member.includes(q.q));
      return page(all, { ...q, sort: q.sort ?? "partition" });
    },
    "/api/v1/lag/history": (q) => {
      const now = Date.now();
      const from = Number(q.from_ms ?? now - 3_600_000);
      const to = Number(q.to_ms ?? now);
      const n = Math.min(Math.floor((to - from) / 1000), 1200);
      return { points: Array.from({ length: n }, (_, i) => {
        const at = from + ((i + 1) * (to - from)) / n - 1000;
        const rise = 0.5 + 0.5 * Math.sin(at / 400_000);
        const inward = 3000 + 900 * Math.sin(at / 90_000) + 200 * chance(Math.floor(at / 1000));
        return n > 300 && i > n * 0.42 && i < n * 0.45 ? [at / 1000, null, null, null, null] : [at / 1000, Math.round(400_000 * rise + 2000), 95 * rise + 1, inward, inward - 900 * Math.cos(at / 400_000)];
      }) };
    },
    "/api/v1/lag/heat": (q) => {
      const place = of(q);
      if (!place) return [404, { error: "there is no such group and topic" }];
      const n = Math.min(it.topics[place[1]][1], 400);
      const now = Date.now();
      const wide = (Number(q.minutes ?? 30) * 60_000) / 120;
      return { partitions: Array.from({ length: n }, (_, p) => p), times_ms: Array.from({ length: 120 }, (_, i) => now - (119 - i) * wide), seconds: Array.from({ length: n }, (_, p) => Array.from({ length: 120 }, (__, i) => (p === 5 && i > 80 ? null : Math.max(0, (chance(p) ** 3 * 900 + (p === 3 ? i * 40 : 0)) * (1 + Math.sin(i / 12 + p)))))) };
    },
    "/api/v1/lag/whatif": (q) => ({ drain: Number(q.consumers) > 3 ? { seconds: 180 } : "never", why: `${q.consumers} consumers on ${q.partitions} partitions would read ${1300 * Math.min(Number(q.consumers), Number(q.partitions))} records a second, and 5200 arrive` }),
    "/api/v1/marks": () => { const now = Date.now(); return { marks: [{ at_ms: now - 600_000, kind: "expansion", group: "sink", topic: "logs", text: "partitions 6 → 9" }, { at_ms: now - 590_000, kind: "rebalance", group: "sink", text: "generation 4: 6 members" }, { at_ms: now - 1_500_000, kind: "leader", topic: "logs", text: "partition 2: broker 1 → 2" }, { at_ms: now - 2_200_000, kind: "reset", group: "sink", topic: "logs", text: bad || "9 offsets to the beginning" }, { at_ms: now - 2_700_000, kind: "restart", text: "the dashboard started" }].reverse() }; },
    "/api/v1/overview": () => {
      const now = Date.now();
      const wave = 1 + 0.1 * Math.sin(now / 5000);
      return { now_ms: now, hops: [
        { name: "files", rate: 5210 * wave, text: "14 files, none in trouble", lag: null, lag_seconds: null, waiting_bytes: 240_000, latency_s: 0.12, latency_is: "from when a line stood in its file to when it was read", ok: true, detail: { files: 14, unread_bytes: 240_000, oldest_s: 0.4, errors_total: 0 } },
        { name: "shipper", rate: 5190 * wave, text: "", lag: null, lag_seconds: null, waiting_bytes: 31_000, latency_s: 0.02, latency_is: bad || "from the reading of a line to the broker's acknowledgement", ok: true, detail: { in_flight: 310, retries_total: 2 } },
        { name: "topics", rate: 5190 * wave, text: "4 topics, 22 partitions", lag: 412_000, lag_seconds: 94.2, latency_s: 94.2, ok: true, detail: { topics: 4, partitions: 22, offline: 0 } },
        { name: "sink", rate: 3900 * wave, text: bad || "3 members, 2 workers each", lag: 412_000, lag_seconds: 94.2, latency_s: 0.4, ok: true, detail: { members: 3, workers: 6, grok_failures_per_s: 1.5, blocked_share: 0.02 } },
        { name: "indices", rate: 3900 * wave, text: "2 indices", lag: 40, lag_seconds: null, latency_s: 1.1, ok: true, detail: { documents: 12_400_000, size_bytes: 3_400_000_000 } },
      ], bottleneck_hop: "sink", bottleneck: "The sink is the bottleneck: sink reads 3900 records/s while 5200/s arrive; 3 of 12 possible consumers are there.", end_to_end_s: 95.8, decisions: decisions(now, options.isHostile).slice(0, 20) };
    },
    "/api/v1/decisions": (q) => ({ decisions: decisions(Date.now(), options.isHostile).filter((d) => (!q.topic || d.topic === q.topic) && (!q.acted || d.event === "effect" || d.action || d.advised)), why: null }),
    "/api/v1/topics": (q) => {
      const now = Date.now();
      const rows = it.topics.map(([name, partitions], t) => ({ topic: name, partitions, replication_factor: 3, isr_ok: t !== 1, offline: t === 3 ? 1 : 0, in_rate: 1000 / (t + 1), size_bytes: t === 3 ? null : 40_000_000 * (t + 1), records: 3_000_000 / (t + 1), internal: false, under_replicated: t === 1 ? 2 : 0, groups_total: it.all.filter((_, g) => it.topicsOf(g).includes(t)).length, groups: it.all.flatMap((group, g) => (it.topicsOf(g).includes(t) ? [g] : [])).slice(0, 4).map((g) => { const { lag, lag_seconds, state } = it.topicOf(g, t, now); return { group: it.all[g], lag, lag_seconds, state }; }) }))
        .concat([{ topic: "__consumer_offsets", partitions: 50, replication_factor: 3, isr_ok: true, offline: 0, in_rate: 3, size_bytes: 30_000, records: 900, groups: [], internal: true }]).filter((t) => !q.q || t.topic.includes(q.q));
      return page(rows, q, { name: "topic", size: "size_bytes", lag: "topic" });
    },
    "/api/v1/topic": (q) => {
      const t = it.topics.findIndex(([name]) => name === q.topic);
      if (t < 0) return [404, { error: `there is no topic ${q.topic}` }];
      const now = Date.now();
      return { topic: q.topic, partitions: it.rows(0, t, now).slice(0, 500).map((p) => ({ partition: p.partition, leader: p.partition === 2 ? -1 : p.leader, replicas: [0, 1, 2], isr: p.partition % 5 ? [0, 1, 2] : [0, 1], start: p.start, end: p.end, size_bytes: 1_000_000 + p.partition * 1000 })), partitions_total: it.topics[t][1],
        configs: [{ name: "retention.ms", value: bad || "86400000", source: "DYNAMIC_TOPIC_CONFIG", default: "604800000" }, { name: "cleanup.policy", value: "delete", source: "DEFAULT_CONFIG", default: "delete" }, { name: "segment.bytes", value: "1073741824", source: "DEFAULT_CONFIG", default: "1073741824" }],
        groups: it.all.flatMap((group, g) => (it.topicsOf(g).includes(t) ? [{ group, ...it.topicOf(g, t, now) }] : [])).slice(0, 50) };
    },
    "/api/v1/groups": (q) => {
      const now = Date.now();
      const rows = it.all.map((_, g) => { const { topics, ...rest } = it.group(g, now); return { ...rest, topics: topics.slice(0, 4).map((t) => t.topic), topics_total: topics.length, assignor: "cooperative-sticky" }; }).filter((g) => !q.q || g.group.includes(q.q));
      return page(rows, q);
    },
    "/api/v1/group": (q) => {
      const g = find(q.group);
      if (g < 0) return [404, { error: `there is no group ${q.group}` }];
      const whole = it.group(g, Date.now());
      const all = whole.topics.flatMap((t) => Array.from({ length: t.partitions }, (_, partition) => ({ topic: t.topic, partition })));
      const members = whole.members ? Array.from({ length: 4 }, (_, m) => ({ member_id: `elkfk-${m}-7f3a`, client_id: bad && m === 1 ? bad : `elkfk-sink-${m}`, host: `10.0.0.${m}`, instance_id: m === 2 ? bad || "sink-2" : null, partitions: m === 3 ? [] : all.filter((p) => p.partition % 3 === m), idle: m === 3 })) : [];
      return { ...whole, assignor: whole.members ? "cooperative-sticky" : null, coordinator: "1 (10.0.0.1:9092)", members, members_total: members.length, idle_members: members.filter((each) => each.idle).length, topics: whole.topics, undo: undo?.group === q.group ? undo : null, why: null };
    },
    "/api/v1/group/reset": (q, body) => reset(body),
    "/api/v1/group/undo": (q, { group }) => { undo = null; return { rows: [{ topic: "orders", partition: 0, from: 100, to: 90, delta: -10, why: null }], executed: true, refused: null, undo_until_ms: null, group }; },
    "/api/v1/ensemble": () => ({ text: "10.0.0.1:2181 leads 1 follower (1 in sync), 1 of 3 servers not serving.", servers: [0, 1, 2].map((n) => (n === 2 ? { address: "10.0.0.3:2181", ok: false, why: bad || "connection refused", mode: null } : { address: `10.0.0.${n + 1}:2181`, ok: true, why: null, mode: n ? "follower" : "leader", version: "elkfk 0.3.0, ZooKeeper 3.5.7", zxid: "0x300000a1f", latency_ms: { min: 0, avg: 0.4, max: 12 }, outstanding: 0, connections: 7, znodes: 214, watches: 33, ephemerals: 3, learners: n ? null : 1, synced_followers: n ? null : 1, raw: { zk_avg_latency: 0, zk_packets_received: 41_233, zk_server_state: n ? "follower" : "leader" } })),
      elections: [{ at_ms: Date.now() - 3_600_000, text: "10.0.0.1:2181 leads, term 3" }, { at_ms: Date.now() - 7_200_000, text: "10.0.0.3:2181 leads, term 2" }], sessions: [{ id: "0x100001", client: bad || "10.0.0.1:45001", timeout_ms: 18_000, ephemerals: 1 }, { id: "0x100002", client: "10.0.0.2:45002", timeout_ms: 18_000, ephemerals: 2 }] }),
    "/api/v1/ensemble/znode": (q) => {
      const tree = { "/": ["brokers", "config", "controller", "admin", ...(bad ? [bad] : [])], "/brokers": ["ids", "topics"], "/brokers/ids": ["0", "1", "2"], "/brokers/topics": it.topics.map(([name]) => name), "/config": ["topics", "changes"] };
      const json = q.path === "/brokers/ids/0" ? { endpoints: ["PLAINTEXT://10.0.0.1:9092"], host: bad || "10.0.0.1", port: 9092, version: 5 } : null;
      const said = json ? JSON.stringify(json) : q.path === "/controller" ? bad || "text" : "";
      return { path: q.path, data: { text: said || null, json, hex: hex(said), bytes: said.length, truncated: false }, stat: { czxid: "0x1", mzxid: "0x1f", ctime_ms: Date.now() - 9e6, mtime_ms: Date.now() - 1e6, version: 2, cversion: 0, aversion: 0, ephemeral_owner: null, data_length: said.length, num_children: 0, pzxid: "0x1" }, children: tree[q.path] ?? [], children_total: (tree[q.path] ?? []).length, acl: [{ perms: "cdrwa", scheme: "world", id: "anyone" }] };
    },
    "/api/v1/alerts": () => ({ rules, receivers, can_edit: true, is_kept: true }),
    "/api/v1/alerts/rule": (q, body, method) => {
      const at = rules.findIndex((rule) => rule.id === (method === "DELETE" ? q.id : body.id));
      if (method === "DELETE") { rules.splice(at, 1); return {}; }
      const rule = { ...body, id: body.id || `rule-${rules.length}`, state: "ok", since_ms: null, shipped: false, text: null };
      if (at < 0) rules.push(rule); else rules[at] = { ...rules[at], ...body };
      return { rule };
    },
    "/api/v1/alerts/preview": (q, body) => { const now = Date.now(); const n = body.value > 100 ? 0 : 3; return { would_have_fired: n, spans: [[now - 5e8, now - 4.9e8], [now - 2e8, now - 1.99e8], [now - 400_000, now]].slice(0, n), over_s: 604_800 }; },
    "/api/v1/alerts/silence": (q, body) => { const rule = rules.find((each) => each.id === body.id); rule.state = body.for_s ? "silenced" : "ok"; return { rule }; },
    "/api/v1/alerts/receiver": (q, body) => { receivers.push(body); return { receiver: body }; },
    "/api/v1/search": () => ({ total: 1, exact: true, timed_out: false, took: 1, from: null, interval: "second", interval_ms: 1000, histogram: [[Date.now() - 1000, 1]], hits: [{ index: "logs-1", id: "1", sort: [1], source: { "@timestamp": new Date().toISOString(), message: bad || "a line", log: { file: { path: "/var/log/a.log" } } } }] }),
  };

  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://fake");
    const send = (status, kind, text) => { response.writeHead(status, { "content-type": kind, "content-security-policy": POLICY, "cache-control": "no-cache" }); response.end(text); };
    const path = url.pathname;
    if (path === "/api/v1/stream" && !missing.has(path)) {
      response.writeHead(200, { "content-type": "text/event-stream", "content-security-policy": POLICY });
      response.write("retry: 500\n\n");
      const push = () => response.write(`event: snapshot\ndata: ${JSON.stringify(snapshot())}\n\n`);
      push();
      const timer = setInterval(push, 1000);
      streams.add(response);
      request.on("close", () => { clearInterval(timer); streams.delete(response); });
      return;
    }
    if (path.startsWith("/api/")) {
      if (!api[path] || missing.has(path)) return send(404, "text/plain", "no such page");
      let said = "";
      for await (const part of request) said += part;
      const body = said ? JSON.parse(said) : {};
      if (request.method !== "GET") {
        if (request.headers["content-type"] !== "application/json") return send(415, "text/plain", "JSON is wanted");
        asked.push({ method: request.method, path, body });
      }
      const answer = api[path](Object.fromEntries(url.searchParams), body, request.method);
      const [status, json] = Array.isArray(answer) ? answer : [200, answer];
      return send(status, "application/json", JSON.stringify(json));
    }
    const file = PAGES.has(path) ? "index.html" : normalize(path).slice(1);
    try { send(200, KINDS[extname(file)] ?? "text/plain", await readFile(join(WEB, file))); } catch { send(404, "text/plain", "no such page"); }
  });
  await new Promise((resolve, reject) => { server.once("error", reject); server.listen(port, "127.0.0.1", resolve); });
  return {
    url: `http://127.0.0.1:${server.address().port}`, port: server.address().port, asked, missing, groups: it.all, topics: it.topics,
    stop: () => new Promise((done) => { for (const each of streams) each.destroy(); server.close(done); server.closeAllConnections(); }),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [port = 5700, groups = 4, partitions = 12] = process.argv.slice(2).map(Number);
  console.log((await start({ port, groups, partitions })).url);
}
