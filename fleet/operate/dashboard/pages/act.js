// Does something to a fleet: first the plan, then a question, then what became of it.

import { el, show, sign, table } from "/static/dom.js";
import { fleetPath, get, post } from "/static/server.js";

const allowed = new Set((document.body.dataset.actions ?? "").split(" ").filter(Boolean));
const WORDS = {
  scale: "Scale",
  drain: "Drain",
  resume: "Resume",
  pause: "Pause",
  restart: "Restart",
  rollback: "Roll back",
};
const POLL_MS = 500;

// Buttons for what may be done to a group or replica; none where the dashboard only shows.
export function buttons(name, actions, about = {}) {
  const shown = actions.filter((action) => allowed.has(action));
  return shown.map((action) =>
    el("button", { type: "button", "data-action": action, "aria-label": `${WORDS[action]} ${name}`, onclick: () => open(action, name, about) }, WORDS[action]),
  );
}

function open(action, name, about) {
  const content = el("div", {});
  const title = `${WORDS[action]} ${name}`;
  const dialog = el("dialog", { "aria-labelledby": "act-title" }, el("h2", { id: "act-title" }, title), content);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  ask({ action, name, about, dialog, content });
  dialog.showModal();
}

const close = (dialog, text = "Close") => el("button", { type: "button", onclick: () => dialog.close() }, text);

function asked({ action, name, about }, count) {
  if (action === "scale") return { action, group: name, count };
  if (action === "rollback") return { action, revision: about.revision };
  return { action, names: [name] };
}

function ask(one) {
  const { action, about, dialog, content } = one;
  if (action !== "scale") return plan(one, asked(one));
  const input = el("input", { type: "number", id: "act-count", min: "0", step: "1", required: true, value: about.replicas ?? 1 });
  const form = el(
    "form",
    { onsubmit: (event) => { event.preventDefault(); plan(one, asked(one, Number(input.value))); } },
    el("p", {}, el("label", { for: "act-count" }, "Replicas"), " ", input),
    el("p", { class: "quiet" }, "An exception to the manifest, as `fleet scale --live` makes it; Resume ends it."),
    el("p", { class: "choices" }, el("button", { type: "submit", class: "main" }, "Show the plan"), close(dialog, "Cancel")),
  );
  show(content, form);
  input.focus();
}

async function plan(one, wish) {
  const { dialog, content } = one;
  show(content, el("p", { role: "status" }, "Planning"));
  let run;
  try {
    run = await post(fleetPath("plan"), wish);
  } catch (error) {
    return problem(one, error.message, error.hint);
  }
  const found = run.result;
  if (run.code !== 0) return problem(one, found?.error?.message ?? run.said.join("\n"), found?.error?.hint);
  const steps = found.steps ?? [];
  const notes = [...(found.warnings ?? []), ...(found.notes ?? []), ...run.said];
  if (!steps.length && wish.action !== "resume" && wish.action !== "drain") {
    notes.push("No replica changes.");
  }
  const reason = el("input", { type: "text", id: "act-reason", maxlength: "500", autocomplete: "off" });
  const form = el(
    "form",
    { onsubmit: (event) => { event.preventDefault(); act(one, { ...wish, planDigest: found.planDigest, reason: reason.value }); } },
    el("p", {}, `${steps.length} ${steps.length === 1 ? "step" : "steps"}`),
    steps.length ? table("The plan", ["Replica", "What", "Why"], steps.map((step) => [step.replica, step.action, step.reason])) : null,
    notes.length ? el("ul", {}, notes.map((text) => el("li", {}, text))) : null,
    el("p", {}, el("label", { for: "act-reason" }, "Reason, for the audit"), " ", reason),
    el("p", { class: "choices" }, el("button", { type: "submit", class: "main", id: "act-do" }, "Do this"), close(dialog, "Cancel")),
  );
  show(content, form);
  reason.focus();
}

async function act(one, wish) {
  const { dialog, content } = one;
  show(content, el("p", { role: "status" }, "Beginning"));
  let run;
  try {
    run = await post(fleetPath("act"), wish);
    while (run.code === null) {
      show(content, el("p", { role: "status" }, sign("wait", "under way")), said(run), el("p", { class: "choices" }, close(dialog, "Close; it goes on")));
      await new Promise((done) => setTimeout(done, POLL_MS));
      run = await get(`/api/runs/${run.id}`);
    }
  } catch (error) {
    return problem(one, error.message, error.hint);
  }
  if (run.code !== 0) return problem(one, run.result?.error?.message ?? run.said.join("\n"), run.result?.error?.hint, run.code);
  const button = close(dialog);
  show(content, el("p", { role: "status", id: "act-outcome" }, sign("good", "done")), said(run), el("p", { class: "choices" }, button));
  button.focus();
}

const said = (run) => (run.said.length ? el("pre", { tabindex: "0", "aria-label": "What it says" }, run.said.slice(-15).join("\n")) : null);

function problem({ dialog, content }, message, hint, code) {
  const button = close(dialog);
  const what = code ? `exit ${code}: ${message}` : message;
  show(content, el("p", { role: "alert", class: "problem", id: "act-outcome" }, sign("bad", what)), hint ? el("p", {}, hint) : null, el("p", { class: "choices" }, button));
  button.focus();
}
