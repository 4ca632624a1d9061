// The Serve tab: what was chosen, the state of the engines, and the four panels.
const SERVE_KEY = "merge-studio-serve";
const kept = { chosen: [], added: [], gpus: "", wish: {}, rates: {}, prompts: null, merge: false, idle: null, engine: "", talk: "", preset: "", sampling: null };
try { Object.assign(kept, JSON.parse(recall(SERVE_KEY)) || {}); } catch { /* of another version: begin afresh */ }
const keep = () => remember(SERVE_KEY, JSON.stringify(kept));
let state = null, models = [], logOf = null, busy = false, recipeText = null;

const list = modelList({ kept, changed, add: (model) => { kept.added = [...new Set([...kept.added, model])]; kept.chosen = [...new Set([...kept.chosen, model])]; changed(true); },
  drop: (model) => { kept.added = kept.added.filter((each) => each !== model); kept.chosen = kept.chosen.filter((each) => each !== model); changed(true); } });
const plan = planPanel({ kept, changed, start, isBusy: () => busy, engineKinds, engineKind });
const engines = enginePanel({ act, attach, models: () => models, logOf: () => logOf, showLog: (id, isOpen) => {
  if (isOpen) { logOf = id; poll(); } else if (logOf === id) logOf = null;
} });
const chat = chatPanel({ kept, keep, engines: () => state?.engines || [], changed: () => findModels(true) });
const offline = h("div", { class: "ms-offline", role: "status", hidden: true }, `${OFFLINE} Trying again …`);
const closed = h("section", { class: "ms-card", hidden: true }, h("h2", {}, "Serving is the owner's"), h("p"));
const board = h("div", { class: "ms-columns ms-serve", hidden: true }, h("div", { class: "ms-stages" }, list.element, plan.element), h("div", { class: "ms-stages" }, engines.element, chat.element));

function engineKinds() { // the one that suits this machine first
  const vllm = ["vllm", "vLLM"], embedded = ["embedded", "embedded engine"];
  if (!state?.has_vllm) return [embedded];
  return state.engine === "embedded" ? [embedded, vllm] : [vllm, embedded];
}
function engineKind() { // the one that was chosen, where it can be had
  const kinds = engineKinds().map(([kind]) => kind);
  return kinds.includes(kept.engine) ? kept.engine : kinds[0];
}
function changed(withModels = false) {
  keep();
  plan.tell(null);
  if (withModels) findModels(true);
  findPlan();
}
async function findModels(force = false) {
  const text = recallHere(DRAFT_KEY) || recall(DRAFT_KEY); // the Merge tab keeps its recipe there
  if (!force && text === recipeText) return;
  recipeText = text;
  let recipe = null;
  try { recipe = JSON.parse(text)?.recipe || null; } catch { /* no recipe yet */ }
  const found = await ask("models", { recipe, added: kept.added });
  if (found.offline) { recipeText = null; return; }
  if (!found.error) {
    models = found.models;
    const known = [...models.map((entry) => entry.model), ...kept.added]; // one may have been added since it asked
    if (kept.chosen.some((model) => !known.includes(model))) { kept.chosen = kept.chosen.filter((model) => known.includes(model)); keep(); findPlan(); }
  }
  list.show(found);
}
let planning = 0;
async function findPlan() {
  const round = ++planning;
  if (!kept.chosen.length) { plan.show(null); return; }
  const found = await ask("plan", planRequest());
  if (round === planning) plan.show(found);
}
const planRequest = () => ({ models: kept.chosen, gpus: kept.gpus, wish: kept.wish, rates: kept.rates, prompts: kept.prompts || 0, merge: Boolean(kept.merge) });

async function start(only) {
  busy = true;
  plan.refresh();
  const found = await ask("start", { ...planRequest(), only, engine: engineKind(), idle_minutes: kept.idle ?? null });
  busy = false;
  plan.tell(found.error);
  plan.refresh();
  await poll();
  if (!found.error) engines.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
}
async function act(id, action, model) {
  const found = await ask("act", { id, action, model });
  engines.tell(found.error);
  poll();
}
async function attach(fields) {
  const found = await ask("attach", fields);
  engines.tell(found.error);
  poll();
  return !found.error;
}

let polling = 0;
async function poll() {
  clearTimeout(polling);
  const isSeen = !document.hidden && element.offsetParent !== null;
  const answer = await ask("engines", { log: logOf });
  clearTimeout(polling);
  polling = setTimeout(poll, isSeen ? 1000 : 5000);
  const wasOffline = !offline.hidden;
  offline.hidden = !answer.offline;
  if (answer.error) { engines.tell(answer.offline ? null : answer.error); return; }
  const wasOwner = state?.access.owner, ran = (state?.engines || []).filter((each) => each.is_live);
  state = answer;
  const owner = answer.access.owner;
  board.hidden = !owner;
  closed.hidden = owner;
  if (!owner) { closed.lastChild.textContent = answer.access.token_set ? "Starting engines and talking to them is for the owner of this studio: enter the owner token at the top." : "Serving is off: this studio can be reached by others and has no owner token; start it with STUDIO_OWNER_TOKEN."; return; }
  const isRoomier = ran.some((old) => !state.engines.some((each) => each.id === old.id && each.is_live));
  if (isRoomier) plan.tell(null); // what was said before may be wrong now
  if (!wasOwner || wasOffline) findModels(true); else findModels();
  if (!wasOwner || wasOffline || isRoomier) findPlan();
  engines.show(answer);
  chat.show();
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
window.addEventListener("merge-studio-token", () => poll());
window.addEventListener("merge-studio-wish", () => serveWish());
function serveWish() { // a merge that was just made
  const model = takeWish("Serve");
  if (model === null) return;
  kept.chosen = [model];
  changed(true);
}
new IntersectionObserver((seen) => { if (seen.some((each) => each.isIntersecting)) { poll(); if (state?.access.owner) findModels(true); } }).observe(element);

const root = element.querySelector(".ms");
root.replaceChildren(offline, closed, board);
root.removeAttribute("aria-busy");
plan.show(null);
serveWish();
poll();
