// What happened, by whom and why.

import { el, moment, show, sign, table } from "/static/dom.js";
import { fleetPath, get, once } from "/static/server.js";

const BAD = /(failed|crashed|parked|lost|stuck)$/;
const AGAIN_MS = 5000;

export async function begin(content) {
  const filter = el("input", { type: "search", id: "filter", autocomplete: "off" });
  const list = el("div", {});
  content.append(el("p", {}, el("label", { for: "filter" }, "Only events with"), " ", filter), list);
  let events = [];
  let before = "";
  const draw = () => {
    const wanted = filter.value.toLowerCase();
    const found = events.filter((one) => JSON.stringify(one).toLowerCase().includes(wanted));
    const rows = found.map((one) => [
      moment(one.at),
      BAD.test(one.event) || one.outcome === "failed" ? sign("bad", one.event) : one.event,
      one.about ?? "",
      [one.outcome, one.revision ? `revision ${one.revision}` : "", one.why].filter(Boolean).join(", "),
      one.by ?? "",
    ]);
    show(list, rows.length ? table("Events, the newest first", ["When", "What", "About", "Why", "By"], rows) : el("p", {}, "No event."));
  };
  filter.addEventListener("input", draw);
  const load = async () => {
    const found = await get(fleetPath("events?last=300"));
    once();
    const text = JSON.stringify(found.events);
    if (text === before) return;
    before = text;
    events = found.events;
    draw();
  };
  await load();
  setInterval(() => load().catch(() => {}), AGAIN_MS);
}
