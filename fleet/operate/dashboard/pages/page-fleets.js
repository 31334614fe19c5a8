// All fleets of this host.

import { el, fleetSign, show, table } from "/static/dom.js";
import { stream } from "/static/server.js";

export function begin(content) {
  const heads = {};
  stream("/api/stream", (update) => {
    if (update.whole) for (const name of Object.keys(heads)) delete heads[name];
    Object.assign(heads, update.fleets ?? {});
    for (const gone of update.fleetsGone ?? []) delete heads[gone];
    draw(content, heads);
  });
}

let before = "";

function draw(content, heads) {
  const now = JSON.stringify(heads);
  if (now === before) return;
  before = now;
  const names = Object.keys(heads).sort();
  if (!names.length) return show(content, el("p", {}, "No fleet was applied yet. `fleet init` writes a manifest to start from."));
  const rows = names.map((name) => {
    const head = heads[name];
    const link = el("a", { href: `/fleets/${encodeURIComponent(name)}` }, name);
    const ready = head.replicas ? `${head.replicas.ready} of ${head.replicas.desired}` : "";
    const slots = head.slots ? `${head.slots.busy} of ${head.slots.desired}` : "";
    return [link, fleetSign(head), head.groups ?? 0, ready, slots, head.failed ?? 0, head.revision];
  });
  const titles = ["Fleet", "State", "Groups", "Replicas ready", "Slots busy", "Failed tasks", "Revision"];
  show(content, table("Fleets of this host", titles, rows));
}
