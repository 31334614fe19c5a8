// One replica: what it does, its stacks when asked, and where its log is.

import { buttons } from "/static/act.js";
import { age, el, memory, replicaSign, show, table } from "/static/dom.js";
import { fleetPath, followFleet, post } from "/static/server.js";

const name = document.body.dataset.subject;
const fleet = encodeURIComponent(document.body.dataset.fleet);

export function begin(content) {
  const facts = el("div", {});
  const tasks = el("div", {});
  const stacks = el("div", {});
  const ask = el("button", { type: "button", id: "stacks", onclick: () => askStacks(ask, stacks) }, "Show its stacks");
  content.append(
    facts,
    tasks,
    el(
      "p",
      { class: "choices" },
      ask,
      el("a", { class: "button", href: `/fleets/${fleet}/logs?name=${encodeURIComponent(name)}` }, "Its log"),
      buttons(name, ["restart", "drain", "resume"]),
    ),
    stacks,
  );
  let before = "";
  followFleet((picture, now) => {
    const one = picture.replicas[name];
    const text = JSON.stringify(one ?? null) + Math.round(now);
    if (text === before) return;
    before = text;
    if (!one) {
      show(tasks);
      return show(facts, el("p", {}, "It is not there now."));
    }
    show(facts, drawn(one, now));
    const rows = one.tasks.map(([id, task, since, until]) => [task, age(now - since), until ? age(until - now) : "no limit", el("code", {}, id)]);
    show(tasks, rows.length ? table("Running tasks", ["Task", "Age", "Time left", "Id"], rows) : el("p", {}, "No task runs."));
  });
}

function drawn(one, now) {
  const facts = [
    ["State", replicaSign(one)],
    ["Group", one.group],
    ["Process", one.pid ?? "none"],
    ["Slots busy", `${one.busy} of ${one.slots}`],
    ["Done", one.processed],
    ["Failed", one.failed],
    ["Memory", memory(one.memory)],
    ["Up for", one.startedAt ? age(now - one.startedAt) : ""],
  ];
  if (one.drift) facts.push(["Drift", one.drift]);
  if (one.note) facts.push(["Note", one.note]);
  return el("dl", {}, facts.map(([title, value]) => el("div", {}, el("dt", {}, title), el("dd", {}, value))));
}

async function askStacks(button, node) {
  button.disabled = true;
  show(node, el("p", { role: "status" }, "Asking"));
  try {
    const run = await post(fleetPath("stacks"), { replica: name });
    const text = run.result?.[0]?.stacks ?? run.result?.error?.message ?? run.said.join("\n");
    show(node, el("h2", {}, "Stacks"), el("pre", { tabindex: "0", "aria-label": `Stacks of ${name}` }, text || "It wrote nothing to its log."));
  } catch (error) {
    show(node, el("p", { class: "problem", role: "alert" }, error.message, error.hint ? ` (${error.hint})` : ""));
  }
  button.disabled = false;
}
