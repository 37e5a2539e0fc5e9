"use strict";
const EVERY_MS = 2000;
const KINDS = { healthy: "good", ready: "good", initializing: "wait", starting: "wait", degraded: "warn", paused: "warn", unhealthy: "bad", down: "bad" };
const MAX_DOTS = 32;
const plots = [
  new Plot("Tasks per second", [{ key: "done_per_s", label: "done", look: "first" }, { key: "failed_per_s", label: "failed", look: "bad" }], rate),
  new Plot("Duration of tasks", [{ key: "p50_s", label: "median", look: "first" }, { key: "p95_s", label: "95 %", look: "second" }], span, 0.01),
  new Plot("Load", [{ key: "in_flight", label: "in flight", look: "first" }, { key: "queued", label: "queued", look: "second" }], rate),
];
let timer = null;
// The last status and its time; the page keeps showing it when the Coordinator stops answering.
let last = null;
let skewMs = 0;
let lostAt = null;
const samples = new Map();
const outages = [];

function kindOf(word) { return KINDS[word] || "none"; }
function setText(element, text) {
  // Set the text only if it has changed, because a screen reader announces every assignment.
  if (element.textContent !== text) element.textContent = text;
}
function shape(kind, className) {
  const svg = draw("svg", { class: `${className || "small"} is-${kind}`, "aria-hidden": "true" });
  svg.append(draw("use", { href: `#shape-${kind}` }));
  return svg;
}
function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole % 86400 / 3600)} h`;
}
function rate(value) {
  return value >= 100 ? Math.round(value).toLocaleString("en") : String(Math.round(value * 10) / 10);
}
function span(seconds) {
  if (seconds < 1e-4) return `${Math.round(seconds * 1e6)} \u00b5s`;
  if (seconds < 1) return `${seconds < 0.01 ? Math.round(seconds * 1e4) / 10 : Math.round(seconds * 1e3)} ms`;
  return seconds < 100 ? `${Math.round(seconds * 10) / 10} s` : duration(seconds);
}
function moment(value) {
  // ISO 8601 text, or seconds since 1970.
  const date = new Date(typeof value === "number" ? value * 1000 : value);
  return value === null || value === undefined || Number.isNaN(date.getTime()) ? null : date;
}
function clock(date) {
  const today = date.toDateString() === new Date().toDateString();
  return today ? date.toLocaleTimeString() : date.toLocaleString();
}
function there(value) { return value !== undefined && value !== null && value !== ""; }
function fact(name, value, className) {
  if (!there(value)) return [];
  const group = put("div");
  group.append(put("dt", name), put("dd", value, className));
  return [group];
}
function showFacts(body, lately) {
  const organs = Array.isArray(body.organs) ? body.organs : [];
  const sum = (key) => organs.reduce((total, organ) => total + (organ[key] || 0), 0);
  const now = lately && last.samples.length ? last.samples[last.samples.length - 1] : null;
  $("facts").replaceChildren(
    ...fact("Agents ready", organs.length ? `${sum("ready_agents").toLocaleString("en")} of ${sum("agent_count").toLocaleString("en")}` : null, "large"),
    ...fact("Tasks per second", now ? rate(now.done_per_s + now.failed_per_s) : null, "large"),
    ...fact("In flight", organs.length ? sum("in_flight") : null, "large"),
    ...fact("Nodes alive", body.nodes && body.nodes.names.length ? body.nodes.alive : null, "large"),
    ...fact("Release", body.release),
    ...fact("Up for", there(body.uptime_s) ? duration(body.uptime_s) : null),
    ...fact("Initialised in", there(body.init_seconds) ? `${Number(body.init_seconds).toFixed(1)} s` : null),
    ...fact("Restarts", body.restarts),
  );
}
function showNodes(body) {
  const nodes = (body.nodes && body.nodes.list) || [];
  $("nodes").hidden = !nodes.length;
  const lines = nodes.map((node) => {
    const kind = node.alive ? (node.draining || node.drained ? "wait" : "good") : "bad";
    const line = put("li", null, `is-${kind}`);
    const gone = moment(node.gone_since);
    line.append(shape(kind), put("span", node.node_name));
    const leaving = node.alive && node.draining ? "draining" : null;
    const left = (node.left || []).length;
    const drained = node.drained ? `drained by ${node.drained.by}${left ? `, ${left} processes left` : ""}` : null;
    if (left) line.title = node.left.map((one) => `${one.organ_id} process ${one.replica}: ${one.why}`).join("\n");
    const words = [node.head ? "head" : null, leaving, drained, node.alive ? null : `gone since ${gone ? clock(gone) : "?"}`].filter(Boolean);
    if (words.length) line.append(put("span", words.join(", "), "soft"));
    line.append(put("span", node.alive ? ", alive" : "", "unseen"));
    if (mayOperate()) line.append(orderButton(node.drained ? "undrain" : "drain", node.node_name));
    return line;
  });
  const before = [...$("nodes").children];
  $("nodes").replaceChildren(...lines.map((line, index) => before[index] && before[index].isEqualNode(line) ? before[index] : line));
}
function cell(replica, organ) {
  const kind = kindOf(replica.state);
  const box = put("li", null, `cell is-${kind}`);
  const lost = replica.agent_count - replica.ready_agents;
  box.append(shape(kind));
  if (replica.agent_count <= MAX_DOTS) {
    const dots = put("span", null, "dots");
    dots.setAttribute("aria-hidden", "true");
    for (let index = 0; index < replica.agent_count; index += 1) {
      dots.append(put("i", null, `dot is-${index < replica.ready_agents ? "good" : kind === "wait" ? "wait" : "bad"}`));
    }
    box.append(dots);
  } else {
    box.append(put("span", `${replica.ready_agents.toLocaleString("en")}/${replica.agent_count.toLocaleString("en")}`));
  }
  const restarts = replica.restarts ? `, replaced ${replica.restarts} times` : "";
  const text = `Process ${replica.replica}: ${replica.state}, ${replica.ready_agents} of ${replica.agent_count} agents ready${restarts}`;
  box.append(put("span", text, "unseen"));
  if (replica.restarts) {
    const times = put("span", `\u21bb${replica.restarts}`, "soft");
    times.setAttribute("aria-hidden", "true");
    box.append(times);
  }
  box.title = `${text}, pid ${replica.pid}, ${replica.in_flight} in flight, ${replica.queued} queued${lost && replica.error ? `\n${replica.error}` : ""}`;
  if (mayOperate()) {
    const sign = draw("svg", { "aria-hidden": "true" });
    sign.append(draw("use", { href: "#shape-replace" }));
    box.append(orderButton("replace", `${organ.organ_id}/${replica.replica}`, sign));
  }
  return box;
}
function organCard(organ, names, figures) {
  const word = organ.paused ? "paused" : organ.status;
  const kind = kindOf(word);
  const card = put("li", null, `organ is-${kind}`);
  card.dataset.organ = organ.organ_id;
  const head = put("header");
  const title = put("h3", organ.organ_id);
  title.append(put("span", organ.required === false ? `${organ.organ_type}, optional` : organ.organ_type, "kind"));
  head.append(shape(kind), title, put("p", word, "is"));
  const places = put("div", null, "places");
  const byNode = new Map();
  for (const replica of organ.replicas || []) {
    const name = names.get(replica.node_id) || (replica.node_id ? `node ${replica.node_id.slice(0, 6)}` : "not placed");
    if (!byNode.has(name)) byNode.set(name, []);
    byNode.get(name).push(replica);
  }
  for (const [name, replicas] of [...byNode].sort(([a], [b]) => a.localeCompare(b))) {
    const place = put("div", null, "place");
    const cells = put("ul", null, "cells");
    cells.setAttribute("aria-label", `Processes on ${name}`);
    cells.append(...replicas.map((replica) => cell(replica, organ)));
    place.append(put("span", name), cells);
    places.append(place);
  }
  const line = put("p", null, "figures");
  const figure = (value, text) => { const one = put("span"); one.append(put("b", value), ` ${text}`); line.append(one); };
  figure(`${organ.ready_agents}/${organ.agent_count}`, "agents");
  figure(organ.in_flight, "in flight");
  figure(organ.queued, "queued");
  if (figures && figures.per_s) figure(rate(figures.per_s), "per s");
  if (figures && there(figures.mean_s)) figure(span(figures.mean_s), "each");
  card.append(head, places, line);
  if (organ.paused) card.append(put("p", `Paused by ${organ.paused.by} since ${clock(moment(organ.paused.since))}: begins no task.`, "fault"));
  const errors = [...(organ.failed || []).map((one) => `${one.agent_id}: ${one.error}`), ...(organ.replicas || []).map((one) => one.error)];
  const error = errors.find(Boolean);
  if (error) card.append(put("p", error.split("\n")[0], "fault"));
  if (mayOperate()) {
    const row = put("div", null, "orders");
    row.append(orderButton(organ.paused ? "resume" : "pause", organ.organ_id));
    card.append(row);
  }
  return card;
}
function showOrgans(body, lately) {
  const names = new Map(((body.nodes && body.nodes.list) || []).map((node) => [node.node_id, node.node_name]));
  const figures = new Map(((lately && lately.organs) || []).map((one) => [one.organ_id, one]));
  const organs = Array.isArray(body.organs) ? body.organs : [];
  $("no-organs").hidden = organs.length > 0;
  const before = new Map([...$("organs").children].map((card) => [card.dataset.organ, card]));
  $("organs").replaceChildren(...organs.map((organ) => {
    const card = organCard(organ, names, figures.get(organ.organ_id));
    // Keep an unchanged card, so that a text selection or a tooltip in it survives the update.
    const old = before.get(organ.organ_id);
    return old && old.isEqualNode(card) ? old : card;
  }));
}
function failureLine(failure, now) {
  const line = put("li");
  const parts = { task: [failure.task_type, failure.agent_id || failure.organ_id], process: [failure.organ_id, `process ${failure.replica}`], outage: ["Coordinator"] };
  const what = (parts[failure.kind] || [failure.kind]).filter(Boolean).join(" \u00b7 ");
  const times = failure.count > 1 ? `${failure.count.toLocaleString("en")} times, last ` : "";
  const when = put("span", `${times}${duration(now - failure.at)} ago`, "when");
  when.title = new Date(failure.at * 1000).toLocaleString();
  const type = failure.error_type ? `${failure.error_type}: ` : "";
  line.append(shape(failure.kind === "task" ? "warn" : "bad"), put("span", what, "what"), when, put("span", `${type}${failure.error}`, "cause"));
  return line;
}
function showFailures(lately, now) {
  const all = [...((lately && lately.failures) || []), ...outages].sort((a, b) => b.at - a.at).slice(0, 12);
  $("no-failures").hidden = all.length > 0;
  setText($("no-failures"), lately ? "None since the Coordinator's process started." : "Not known yet.");
  const lines = all.map((failure) => failureLine(failure, now));
  const before = [...$("failures").children];
  $("failures").replaceChildren(...lines.map((line, index) => before[index] && before[index].isEqualNode(line) ? before[index] : line));
}
function icon(kind) {
  const colour = { good: "1f9254", wait: "c98a15", warn: "c98a15", bad: "d5392f", none: "7f8a96" }[kind];
  const body = { good: "<circle cx='8' cy='8' r='7'/>", warn: "<path d='M8 1l8 14H0z'/>", wait: "<path d='M3 1h10L9 8l4 7H3l4-7z'/>", bad: "<path d='M5 0h6l5 5v6l-5 5H5l-5-5V5z'/>", none: "<path d='M1 6h14v4H1z'/>" }[kind];
  const text = `<svg xmlns='${SVG}' viewBox='0 0 16 16' fill='#${colour}'>${body}</svg>`;
  const address = `data:image/svg+xml,${encodeURIComponent(text)}`;
  if ($("icon").getAttribute("href") !== address) $("icon").setAttribute("href", address);
}
function showWord(word, kind) {
  setText($("status"), word);
  $("overall").className = `card overall is-${kind}`;
  $("shape").setAttribute("href", `#shape-${kind}`);
  $("beat").className = `beat is-${kind}`;
  document.title = `${word} - SeedCore`;
  icon(kind);
}
function remember(lately) {
  const columns = lately.samples;
  columns.at.forEach((at, index) => {
    samples.set(at, Object.fromEntries(Object.entries(columns).map(([key, column]) => [key, column[index]])));
  });
  for (const at of samples.keys()) if (lately.now - at > SPAN_S) samples.delete(at);
  return [...samples.values()].sort((a, b) => a.at - b.at);
}
function tick() {
  // Update the ages, which change every second.
  if (!last) return;
  const now = Date.now() + skewMs;
  const since = lostAt === null ? moment(last.body.since) : new Date(lostAt + skewMs);
  const words = lostAt === null ? "Since" : "No answer since";
  setText($("since"), since ? `${words} ${clock(new Date(since - skewMs))}, for ${duration((now - since) / 1000)}` : "");
  const age = Math.round((Date.now() - last.at) / 1000);
  setText($("updated"), lostAt === null ? `Live, updated ${clock(new Date(last.at))}` : `Stale, last updated ${clock(new Date(last.at))}, ${duration(age)} ago`);
  showFailures(last.lately, now / 1000);
  for (const plot of plots) plot.update(last.samples, now / 1000, last.interval);
}
function show(body, lately, undecided) {
  const word = body.status === "healthy" && body.degraded ? "degraded" : body.status || "unknown";
  if (lostAt !== null) {
    const away = (Date.now() - lostAt) / 1000;
    outages.unshift({ kind: "outage", error: `It did not answer this page for ${duration(away)}, from ${clock(new Date(lostAt))} on.`, at: (Date.now() + skewMs) / 1000, count: 1 });
    outages.length = Math.min(outages.length, 5);
  }
  lostAt = null;
  skewMs = there(body.snapshot_at) ? body.snapshot_at * 1000 - Date.now() : 0;
  // A small difference is latency, not another clock.
  if (Math.abs(skewMs) < 2000) skewMs = 0;
  last = { body, lately, at: Date.now(), samples: lately ? remember(lately) : [...samples.values()], interval: lately ? lately.interval_s : 2 };
  $("data").hidden = false;
  $("main").classList.remove("is-old");
  showWord(word, kindOf(word));
  const message = body.message || body.error || "";
  setText($("message"), there(body.reason) && body.reason !== "ready" && body.reason !== word ? `${body.reason}: ${message}` : message);
  setText($("remedy"), body.remedy || "");
  setText($("trouble"), "");
  const progress = body.progress || {};
  $("progress").hidden = body.status !== "initializing" || !progress.agents;
  if (progress.agents) {
    $("progress").setAttribute("aria-valuemax", progress.agents);
    $("progress").setAttribute("aria-valuenow", progress.agents_ready);
    $("progress-bar").style.width = `${(100 * progress.agents_ready) / progress.agents}%`;
  }
  showFacts(body, lately);
  keepFocus(() => {
    showNodes(body);
    showOrgans(body, lately);
    showInbox(body, undecided);
    const offered = $("organism-orders").children.length > 0;
    if (mayOperate() !== offered) $("organism-orders").replaceChildren(...(mayOperate() ? [orderButton("rebalance", "")] : []));
  });
  setText($("who"), [there(body.pid) ? `Coordinator pid ${body.pid}` : "", there(body.config) ? body.config : ""].filter(Boolean).join(", "));
  tick();
}
function trouble(text) {
  // Keep the last status, marked as stale: it shows the state before the Coordinator stopped answering.
  if (lostAt === null) lostAt = last ? last.at : Date.now();
  $("data").hidden = false;
  $("main").classList.add("is-old");
  $("progress").hidden = true;
  showWord("no answer", "none");
  setText($("message"), last ? `Stale: the last known status, at ${clock(new Date(last.at))}, was ${last.body.status}.` : "");
  setText($("trouble"), text);
  tick();
}
async function poll() {
  clearTimeout(timer);
  timer = null;
  if (document.hidden) return;
  try {
    const [response, second] = await Promise.all([ask("coordinator/status"), ask("coordinator/activity")]);
    if (wantToken(response)) {
      $("data").hidden = true;
      $("forget").hidden = true;
      setText($("updated"), "Waiting for the token");
      document.title = "token - SeedCore";
      return;
    }
    const body = await response.json();
    if (!body || typeof body.status !== "string") throw new Error(`unexpected answer, HTTP ${response.status}`);
    await learnAccess();
    show(body, second.ok ? await second.json() : null, await askUndecided(body));
    $("forget").hidden = !store.token;
  } catch (error) {
    const why = error.name === "TimeoutError" ? "it did not answer within 5 s" : error.name === "TypeError" ? "it cannot be reached" : error.message;
    trouble(`The Coordinator does not answer: ${why}. This page retries every 2 seconds.`);
  }
  clearTimeout(timer);
  timer = setTimeout(poll, EVERY_MS);
}
$("plots").append(...plots.map((plot) => plot.figure));
document.addEventListener("visibilitychange", () => { if (!document.hidden && $("token-card").hidden) poll(); });
setInterval(() => { if (!document.hidden) tick(); }, 1000);
tokenForm(poll);
poll();
