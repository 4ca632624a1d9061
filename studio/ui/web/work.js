// The work on the page: the recipe, its history, what is kept of it, and its preview.
const HISTORY = 200, SNAP_KEY = "merge-studio-snap", HISTORY_KEY = "merge-studio-history";
const STORED_STEPS = 64, STORED_TEXT = 1e6;
const shipped = props.value.presets;
const page = { preset: shipped[0].id, recipe: null, origin: null, layers: shipped[0].layers, depth: null, file: "", saved: "", note: "", name: "", base: null, preview: null, error: "" };
let past = [], future = [], lastEdit = { key: null, time: 0 }, edited = null, snaps = recall(SNAP_KEY) === "yes";

const presetOf = (id) => shipped.find((preset) => preset.id === id);
const USUAL_LAYERS = 32;
const layersToAssume = () => (page.preview?.missing.length ? page.layers : USUAL_LAYERS); // of models that are not here
const layersNow = () => page.preview?.layers ?? page.depth ?? page.layers;
const sources = () => sourcesOf(page.recipe);
const stageColour = (index) => (index >= page.recipe.stages.length - 1 ? "var(--ms-ink)" : `var(--ms-s${index % 4})`);
const stageTitle = (index) => page.recipe.stages[index]?.name || "Result";
const label = (model) => shortName(model, sources());
const COLOURS = 8;
function colour(model) {
  const at = sources().indexOf(model);
  return at >= 0 ? `var(--ms-c${at % COLOURS})` : stageColour(page.recipe.stages.findIndex((stage) => stage.name === model));
}

// ---- history ---------------------------------------------------------------------------------
const KEPT = ["preset", "origin", "layers", "file", "saved", "note", "name", "base"];
const snapshot = () => ({ recipe: copyOf(page.recipe), ...Object.fromEntries(KEPT.map((key) => [key, page[key]])) });
function keepForUndo() {
  past.push(snapshot());
  if (past.length > HISTORY) past.shift();
  future = [];
  isHistoryStored = false;
}
// options: { rebuild, focus }; edits of one key within a moment are one step back
function edit(key, change, options = {}) {
  const now = Date.now(), before = options.rebuild && shapeOf(page.recipe);
  if (key === null || key !== lastEdit.key || now - lastEdit.time > 1200) keepForUndo();
  lastEdit = { key, time: now };
  change();
  if (options.rebuild && shapeOf(page.recipe) !== before) forgetPreview();
  if (options.rebuild) rebuild(options.focus);
  changed(); // the question is on its way while the curve is drawn
  if (!options.rebuild) refreshEditors();
}
function forgetPreview() { // it is another recipe's; the charts stand until the next one
  page.depth = page.preview?.layers ?? page.depth;
  page.preview = null;
}
function travel(from, to) {
  if (!from.length) return;
  to.push(snapshot());
  Object.assign(page, from.pop());
  isHistoryStored = false;
  edited = null;
  forgetPreview();
  lastEdit = { key: null, time: 0 };
  fillPicker();
  rebuild();
  changed();
}
function load(recipe, options) { // options: { preset, file, saved, note, layers }
  keepForUndo();
  Object.assign(page, { recipe, origin: copyOf(recipe), preview: null, depth: null, error: "", name: "", preset: null, file: "", saved: "", note: "", base: null }, options);
  lastEdit = { key: null, time: 0 };
  edited = null;
  checkedShape = "";
  message.replaceChildren();
  panel.clear();
  fillPicker();
  rebuild();
  changed();
}
const originOf = (index) => page.origin?.stages.find((stage) => stage.name === page.recipe.stages[index].name) || null;
const isStageChanged = (index) => originOf(index) !== null && JSON.stringify(originOf(index)) !== JSON.stringify(page.recipe.stages[index]);
function resetStage(index) {
  edit(null, () => { page.recipe.stages[index] = copyOf(originOf(index)); sortStages(page.recipe); }, { rebuild: true, focus: `s${index}-edit` });
}

// ---- drafts ------------------------------------------------------------------------------------
// A tab keeps its own, with the steps back and forth; a new one begins with the latest of all tabs.
let resting = 0, isHistoryStored = true;
function keepDraft() { // when the hand rests: a store is slow
  clearTimeout(resting);
  resting = setTimeout(storeDraft, 250);
}
window.addEventListener("pagehide", () => storeDraft());
function storeDraft() {
  clearTimeout(resting);
  const draft = JSON.stringify({ recipe: page.recipe, ...Object.fromEntries(KEPT.map((key) => [key, page[key]])) });
  rememberHere(DRAFT_KEY, draft);
  remember(DRAFT_KEY, draft);
  if (!isHistoryStored) storeHistory();
}
function storeHistory() { // the latest steps, as many as have room
  isHistoryStored = true;
  for (let steps = STORED_STEPS; steps >= 1; steps = Math.floor(steps / 2)) {
    const text = JSON.stringify([past, future].map((all) => all.slice(-steps)));
    if (text.length <= STORED_TEXT) { rememberHere(HISTORY_KEY, text); return; }
  }
}
function restoreDraft() {
  for (const [text, isOwn] of [[recallHere(DRAFT_KEY), true], [recall(DRAFT_KEY), false]]) {
    try {
      Object.assign(page, sound(JSON.parse(text)));
    } catch { continue; } // a draft of another version: try the next
    if (isOwn) restoreHistory();
    return true;
  }
  return false;
}
function restoreHistory() {
  try {
    [past, future] = JSON.parse(recallHere(HISTORY_KEY)).map((all) => all.map(sound));
  } catch { [past, future] = [[], []]; } // none, or of another version
}
function sound(draft) { // what was stored, if it is a draft; throws otherwise
  sourcesOf(draft.recipe).forEach((model) => shortName(model, []));
  const kept = Object.fromEntries(Object.entries(draft).filter(([key]) => key === "recipe" || KEPT.includes(key)));
  if (kept.preset && !presetOf(kept.preset)) kept.preset = null;
  kept.origin ||= copyOf(presetOf(kept.preset)?.recipe || kept.recipe);
  return kept;
}

// ---- preview: the latest recipe wins, and nothing queues up -----------------------------------
let flying = false, waiting = false, again = 0, asked = 0, checkedShape = "";
async function requestPreview() {
  waiting = true;
  if (flying) return;
  flying = true;
  while (waiting) {
    waiting = false;
    asked = performance.now();
    const sent = page.recipe, shape = shapeOf(sent), base = page.base;
    const answer = await ask("preview", { recipe: sent, layers: page.layers, base, heatmap: results.showsHeatmap() });
    if (sent !== page.recipe || shape !== shapeOf(page.recipe) || base !== page.base) { waiting = true; continue; }
    page.error = answer.error || "";
    if (!answer.error) {
      const isOtherDepth = layersNow() !== answer.layers, isRenamed = nameOutside(answer.outside);
      page.preview = answer;
      if (isOtherDepth || isRenamed) rebuild(); else refresh();
      clearTimeout(again);
      if (answer.measuring) again = setTimeout(requestPreview, answer.progress === null ? 500 : 1000);
      checkOnce();
    } else {
      refresh();
      if (answer.offline) again = setTimeout(requestPreview, 2000);
    }
  }
  flying = false;
}
function checkOnce() { // what the check says does not depend on the numbers
  const found = page.preview;
  if (!state?.access.owner || !found || ["running", "cancelling"].includes(state.job.state)) return;
  const shape = `${found.missing} ${shapeOf(page.recipe)}`;
  if (shape === checkedShape) return;
  checkedShape = shape;
  if (found.missing.length) panel.clear(); else panel.check(); // a check of models elsewhere fetches files
}
function changed() {
  keepDraft();
  undo.disabled = !past.length;
  redo.disabled = !future.length;
  requestPreview();
  reset.disabled = JSON.stringify(page.recipe) === JSON.stringify(page.origin);
}
