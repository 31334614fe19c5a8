// The revisions that were applied: what each changed, and what was planned to get there.

import { buttons } from "/static/act.js";
import { el, moment, show, sign, table } from "/static/dom.js";
import { fleetPath, get, once } from "/static/server.js";

export async function begin(content) {
  const found = await get(fleetPath("history"));
  once();
  if (found.damaged.length) content.append(el("p", { class: "problem" }, `Damaged and left out: ${found.damaged.join(", ")}`));
  if (!found.revisions.length) return content.append(el("p", {}, "Nothing was applied yet."));
  content.append(...found.revisions.map(revision));
}

function revision(one) {
  const outcome = one.outcome === "good" ? sign("good", "good") : one.outcome === "failed" ? sign("bad", "failed") : sign("wait", "not concluded");
  const git = [one.git.sha?.slice(0, 10), one.git.branch].filter(Boolean).join(" ");
  const body = el("div", {}, el("p", { role: "status" }, "Loading"));
  const details = el("details", { ontoggle: () => details.open && load(one, body) }, el("summary", {}, "What it changed, and its plans"), body);
  const undo = one.current ? [] : buttons(`to revision ${one.revision}`, ["rollback"], { revision: one.revision });
  return el(
    "section",
    { class: "group", "aria-labelledby": `revision-${one.revision}` },
    el("h2", { id: `revision-${one.revision}` }, `Revision ${one.revision} `, outcome, one.current ? " (current)" : ""),
    el("p", {}, [moment(one.at), `by ${one.by}`, git, one.failure || one.message || one.sources.join(", ")].filter(Boolean).join(" \u00b7 ")),
    undo.length ? el("p", { class: "choices" }, undo) : null,
    details,
  );
}

const loaded = new Set();

async function load(one, body) {
  if (loaded.has(one.revision)) return;
  loaded.add(one.revision);
  let found;
  try {
    found = await get(fleetPath(`history/${one.revision}`));
  } catch (error) {
    return show(body, el("p", { class: "problem", role: "alert" }, error.message));
  }
  const rows = found.difference.map((row) => [
    el("code", {}, row.path),
    row.was === null ? sign("good", "added") : row.is === null ? sign("bad", "removed") : sign("wait", "changed"),
    row.was ?? "",
    row.is ?? "",
  ]);
  const title = found.before === null ? "The first manifest that is kept" : `Changes from revision ${found.before}`;
  show(body, rows.length ? table(title, ["Field", "How", "Was", "Is"], rows) : el("p", {}, `${title}: none in the manifest.`), found.plans.map(planned));
}

function planned(plan) {
  const title = `${plan.verb} by ${plan.by}, ${moment(plan.at)}: ${plan.outcome || "not ended"}${plan.reason ? `, ${plan.reason}` : ""}`;
  return plan.steps.length ? table(title, ["Step", "Why"], plan.steps) : el("p", {}, `${title}; no step`);
}
