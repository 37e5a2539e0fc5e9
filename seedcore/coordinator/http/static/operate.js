"use strict";
// What a token with the scope "operate" can do here. Each order shows the command that does the same, and asks once.
const ORDERS = {
  pause: ["Pause", "organs/*/pause", "It begins no task until it is resumed. Tasks that run go on, the others wait within their deadlines."],
  resume: ["Resume", "organs/*/resume", "It begins tasks again, those first that wait."],
  replace: ["Replace", "organs/*/replace", "A new process starts, where there is room beside the old one, which ends after its tasks."],
  rebalance: ["Rebalance", "rebalance", "Processes move, one at a time, to the nodes that a new start would choose."],
  drain: ["Drain", "nodes/*/drain", "No organ is placed there any more, and those that are there move away, one process after the other. The node itself goes on."],
  undrain: ["Undrain", "nodes/*/undrain", "Organs may run there again. Those that have moved stay where they are until a rebalance."],
  retry: ["Retry", "tasks/*/retry", "It runs again. If it was executed before, it is then executed twice."],
  done: ["Done", "tasks/*/done", "It counts as done, and does not run again."],
  discard: ["Discard", "tasks/*/discard", "It is given up, and does not run again."],
};
const OF_TASKS = ["retry", "done", "discard"];
const SIMPLE = /^[A-Za-z0-9_.@%+=:,/-]+$/;
const access = { token: undefined, scope: null };
let ordered = null;

function mayOperate() { return access.scope === "operate"; }
async function learnAccess() {
  // Once for each token: what it permits does not change while it is valid.
  if (access.token === store.token && access.scope !== null) return;
  const response = await ask("coordinator/access");
  access.scope = response.ok ? (await response.json()).scope : null;
  access.token = store.token;
}
function command(verb, of) {
  const name = SIMPLE.test(of) ? of : `'${of.replaceAll("'", "'\\''")}'`;
  return ["seedcore", OF_TASKS.includes(verb) ? "task" : "", verb, of ? name : ""].filter(Boolean).join(" ");
}
function pathOf(verb, of) {
  const [organ, replica] = of.split("/");
  const path = ORDERS[verb][1];
  if (verb === "replace") return `coordinator/organs/${encodeURIComponent(organ)}/replicas/${replica}/replace`;
  return `coordinator/${path.replace("*", () => encodeURIComponent(of))}`;
}
function orderButton(verb, of, content) {
  const button = put("button", content ? null : ORDERS[verb][0], "order");
  button.type = "button";
  button.dataset.verb = verb;
  button.dataset.of = of;
  if (content) button.append(content);
  if (of) {
    button.setAttribute("aria-label", `${ORDERS[verb][0]} ${of}`);
    button.title = command(verb, of);
  }
  return button;
}
function keepFocus(update) {
  // An update replaces buttons; the keyboard must stay on the one that it was on.
  const held = document.activeElement && document.activeElement.dataset.verb ? { ...document.activeElement.dataset } : null;
  update();
  if (held) focusAgain(held);
}
function focusAgain({ verb, of }) {
  if (document.activeElement && document.activeElement !== document.body) return;
  const again = [...document.querySelectorAll("button.order")].find((one) => one.dataset.verb === verb && one.dataset.of === of);
  if (again) again.focus();
}
function openOrder(verb, of) {
  ordered = { verb, of };
  const what = OF_TASKS.includes(verb) ? `task ${of}` : of;
  setText($("order-title"), `${ORDERS[verb][0]}${what ? ` ${what}` : ""}?`);
  setText($("order-effect"), ORDERS[verb][2]);
  setText($("order-command"), command(verb, of));
  setText($("order-said"), "");
  setText($("order-fault"), "");
  $("order-answer").hidden = true;
  $("order-do").hidden = false;
  $("order-do").disabled = false;
  setText($("order-do"), ORDERS[verb][0]);
  setText($("order-close"), "Cancel");
  $("order").showModal();
}
async function doOrder() {
  const { verb, of } = ordered;
  $("order-do").disabled = true;
  setText($("order-said"), "Waiting for the answer ...");
  setText($("order-close"), "Close");
  try {
    const headers = { Accept: "application/json" };
    if (store.token) headers.Authorization = `Bearer ${store.token}`;
    // A replacement or a rebalance ends with its tasks: the Coordinator limits it, not this page.
    const response = await fetch(pathOf(verb, of), { method: "POST", headers, cache: "no-store", credentials: "omit" });
    const body = await response.json();
    if (ordered === null || ordered.verb !== verb || ordered.of !== of) return;
    setText($("order-said"), response.ok ? "Done." : "");
    setText($("order-fault"), response.ok ? "" : `Not done: ${body.error || `HTTP ${response.status}`}`);
    setText($("order-answer"), JSON.stringify(body, null, 1));
    $("order-answer").hidden = !response.ok;
  } catch (error) {
    setText($("order-said"), "");
    setText($("order-fault"), `The Coordinator has not answered (${error.message}); look at the state before you repeat it.`);
  }
  $("order-do").hidden = true;
  $("order-close").focus();
  poll();
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("button.order");
  if (button) openOrder(button.dataset.verb, button.dataset.of);
});
$("order-do").addEventListener("click", doOrder);
$("order-close").addEventListener("click", () => $("order").close());
$("order").addEventListener("close", () => {
  const closed = ordered;
  ordered = null;
  focusAgain(closed);
});

function taskRow(task) {
  const row = put("tr");
  const id = put("th", task.id);
  id.scope = "row";
  const cause = [task.error_type, task.error].filter(Boolean).join(": ");
  const ended = moment(task.ended);
  row.append(id, put("td", task.type), put("td", task.state), put("td", task.executed || "-"), put("td", ended ? clock(ended) : ""), put("td", cause, "cause"));
  if (mayOperate()) {
    const cell = put("td");
    const orders = put("div", null, "orders");
    orders.append(...OF_TASKS.map((verb) => orderButton(verb, task.id)));
    cell.append(orders);
    row.append(cell);
  }
  return row;
}
async function askUndecided(body) {
  // Only where there is something to decide about; without an inbox there is no such question.
  const counts = body.inbox && body.inbox.is_open ? body.inbox.tasks : {};
  if (!counts.parked && !counts.failed) return [];
  try {
    const response = await ask("coordinator/tasks?state=parked,failed&limit=20");
    return response.ok ? await response.json() : [];
  } catch {
    return [];
  }
}
function showInbox(body, undecided) {
  const inbox = body.inbox;
  $("inbox-card").hidden = !inbox;
  if (!inbox) return;
  const count = (...states) => states.reduce((sum, state) => sum + (inbox.tasks[state] || 0), 0);
  const parked = count("parked", "failed");
  $("inbox-facts").replaceChildren(
    ...fact("Waiting", count("ready", "later"), "large"),
    ...fact("Running", count("leased"), "large"),
    ...fact("To be decided", parked, "large"),
    ...fact("Stored in", inbox.store),
  );
  setText($("inbox-none"), inbox.is_open ? (parked ? "" : "No task waits for a decision.") : "The inbox is not open.");
  $("inbox-scroll").hidden = !undecided.length;
  $("inbox-orders").hidden = !mayOperate();
  setText($("inbox-caption"), `Tasks that wait for a decision${parked > undecided.length ? `, the newest ${undecided.length} of ${parked}` : ""}`);
  const rows = undecided.map(taskRow);
  const before = [...$("inbox-tasks").children];
  if (before.length !== rows.length || rows.some((row, index) => !row.isEqualNode(before[index]))) $("inbox-tasks").replaceChildren(...rows);
}
