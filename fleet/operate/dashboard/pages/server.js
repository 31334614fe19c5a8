// What a page asks the server: documents, streams of updates, and what is to be done.

const body = document.body.dataset;
const status = document.getElementById("connection");

function failed(document, code) {
  const error = new Error(document?.error?.message ?? `the server answered ${code}`);
  error.hint = document?.error?.hint ?? "";
  return error;
}

async function answered(response) {
  let found = null;
  try {
    found = await response.json();
  } catch {
    found = null;
  }
  if (response.status === 401) location.assign("/login");
  if (!response.ok) throw failed(found, response.status);
  return found;
}

export const fleetPath = (path) => `/api/fleets/${encodeURIComponent(body.fleet)}/${path}`;

export const get = async (path) => answered(await fetch(path, { headers: { accept: "application/json" } }));

export async function post(path, document) {
  const headers = { "content-type": "application/json", "x-fleet-page": body.mark };
  return answered(await fetch(path, { method: "POST", headers, body: JSON.stringify(document) }));
}

// Calls take(document) for each update. The browser connects again by itself; what it gets first then is whole.
export function stream(path, take) {
  const source = new EventSource(path);
  source.onopen = () => say("good", "live");
  source.onmessage = (event) => take(JSON.parse(event.data));
  source.onerror = () => {
    say("bad", "no connection, trying again");
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  };
  return source;
}

function say(kind, text) {
  const shown = kind === "good" ? `\u25cf ${text}` : `\u25cb ${text}`;
  if (status.textContent !== shown) status.textContent = shown;
  status.className = kind;
}

export const once = () => say("good", "loaded");

// Follows one fleet: keeps the whole picture and calls draw(picture, now) after each update.
export function followFleet(draw) {
  const picture = { head: {}, groups: {}, replicas: {}, queues: {} };
  let ahead = 0;
  stream(`/api/stream?fleet=${encodeURIComponent(body.fleet)}`, (update) => {
    ahead = update.at - Date.now() / 1000;
    if (update.whole) {
      Object.assign(picture, { head: update.head, groups: update.groups, replicas: update.replicas, queues: update.queues });
    } else {
      if (update.head) picture.head = update.head;
      if (update.queues) picture.queues = update.queues;
      for (const part of ["groups", "replicas"]) {
        Object.assign(picture[part], update[part] ?? {});
        for (const gone of update[`${part}Gone`] ?? []) delete picture[part][gone];
      }
    }
    draw(picture, Date.now() / 1000 + ahead);
  });
}
