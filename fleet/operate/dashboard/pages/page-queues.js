// What waits in the broker, and who takes it.

import { age, el, sign, show, table } from "/static/dom.js";
import { followFleet } from "/static/server.js";

export function begin(content) {
  let before = "";
  followFleet((picture, now) => {
    const found = picture.queues;
    const rows = Object.entries(found.queues ?? {}).map(([name, queue]) => [
      name,
      queue.waiting ?? "not known",
      queue.oldestAt ? age(now - queue.oldestAt) : queue.waiting === 0 ? "none waits" : "not known",
      queue.groups.join(", ") || sign("bad", "no group takes from it"),
    ]);
    const text = JSON.stringify([found, rows.map((row) => row[2])]);
    if (text === before) return;
    before = text;
    const note = found.problem ? el("p", { class: "problem", role: "alert" }, sign("bad", found.problem)) : null;
    const asking = found.known || !rows.length ? null : el("p", { role: "status" }, "The broker has not answered yet.");
    show(content, note, asking, rows.length ? table("Queues", ["Queue", "Waiting", "Oldest waits", "Groups"], rows) : el("p", {}, "No group takes from a queue."));
  });
}
