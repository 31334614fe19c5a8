// Why each group has its slots: a picture, and the reasons.

import { slotsPicture } from "/static/chart.js";
import { age, el, show, table } from "/static/dom.js";
import { fleetPath, get, once } from "/static/server.js";

const AGAIN_MS = 5000;

export async function begin(content) {
  let before = "";
  const load = async () => {
    const found = await get(fleetPath("explain"));
    once();
    const text = JSON.stringify(found);
    if (text === before) return;
    before = text;
    show(content, ...drawn(found));
  };
  await load();
  setInterval(() => load().catch(() => {}), AGAIN_MS);
}

function drawn(found) {
  const decided = found.live?.groups ?? {};
  const rows = Object.entries(found.groups).map(([name, group]) => {
    const live = decided[name];
    return { name, has: live ? live.has : group.slots, needs: live ? live.need : null, wants: live ? live.wants : null };
  });
  const parts = [el("p", {}, totals(found)), slotsPicture(rows, found.budget)];
  const reasons = Object.entries(found.groups).map(([name, one]) => [name, one.slots, one.replicas, one.concurrency, one.weight ?? "", one.reason]);
  parts.push(table("As it was applied", ["Group", "Slots", "Replicas", "Slots of one", "Weight", "Why"], reasons));
  if (found.live) {
    const live = Object.entries(decided).map(([name, one]) => [
      name, one.has, one.need, one.wants, one.share, one.gets, one.queue ?? "not known", one.oldestAge === null ? "" : age(one.oldestAge), one.why,
    ]);
    const squeezed = found.live.squeezed ? "somebody is short, so needs come before wants" : "nobody is short";
    parts.push(el("p", {}, `The controller: ${squeezed}. ${found.live.note}`));
    parts.push(table("What the controller decided last", ["Group", "Has", "Needs", "Wants", "Share", "Gets", "Waiting", "Oldest waits", "Why"], live));
  }
  if (found.overrides.length) parts.push(el("h2", {}, "Exceptions by hand"), el("ul", {}, found.overrides.map((text) => el("li", {}, text))));
  return parts;
}

function totals(found) {
  const words = [found.budget === null ? `${found.allocated} slots, no budget` : `${found.allocated} of ${found.budget} slots are given out`];
  if (found.nextInLine) words.push(`one slot more would go to ${found.nextInLine}`);
  if (found.givesFirst) words.push(`${found.givesFirst} gives first`);
  return `${words.join("; ")}.`;
}
