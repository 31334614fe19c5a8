// How far the newest rollout got, and what its judge says.

import { el, moment, show, sign } from "/static/dom.js";
import { fleetPath, get, once } from "/static/server.js";

const AGAIN_MS = 2000;
const SIGNS = { complete: "good", progressing: "wait", paused: "held", interrupted: "bad", failed: "bad", none: "wait", down: "wait" };

export async function begin(content) {
  let before = "";
  const load = async () => {
    const found = await get(fleetPath("rollout"));
    once();
    const text = JSON.stringify(found);
    if (text === before) return;
    before = text;
    show(content, drawn(found));
  };
  await load();
  setInterval(() => load().catch(() => {}), AGAIN_MS);
}

function drawn(found) {
  const walked = found.walked;
  const facts = [["State", sign(SIGNS[found.state] ?? "wait", found.state)], ["Revision", found.revision], ["Last good", found.good || "none"]];
  if (found.pid) facts.push(["Carried out by process", found.pid]);
  if (found.failure) facts.push(["Failure", found.failure]);
  const parts = [];
  if (walked) {
    facts.push(["Begun", `${moment(walked.at)}, ${walked.verb} by ${walked.by}${walked.isWayBack ? ", going back" : ""}`]);
    facts.push(["Steps", `${walked.done} of ${walked.steps} done`]);
    parts.push(el("progress", { max: Math.max(1, walked.steps), value: walked.steps ? walked.done : 1, "aria-label": "Steps done" }));
    parts.push(list("Under way", walked.underWay), list("Failed", walked.failures));
    if (walked.comparing) parts.push(el("p", {}, sign("wait", `comparing ${walked.comparing}, ${walked.comparison[0]} of ${walked.comparison[1]}`)));
    parts.push(el("h2", {}, "The judge"), walked.verdicts.length ? el("ol", {}, walked.verdicts.map((text) => el("li", {}, text))) : el("p", {}, "No canary was judged."));
  }
  return [el("dl", {}, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))), parts];
}

const list = (title, items) => (items.length ? el("div", {}, el("h2", {}, title), el("ul", {}, items.map((text) => el("li", {}, text)))) : null);
