// The Merge tab: the recipe on the page, its history, the charts and the merge.
const COLOURS = 8;
const shipped = props.value.presets;
const page = { preset: shipped[0].id, recipe: null, layers: shipped[0].layers, file: "", name: "", preview: null, error: "", taken: [] };
let past = [], future = [], lastEdit = { key: null, time: 0 }, cards = [], state = null;

const copyOf = (value) => JSON.parse(JSON.stringify(value));
const presetOf = (id) => shipped.find((preset) => preset.id === id);
const layersNow = () => page.preview?.layers ?? page.layers;
const sources = () => sourcesOf(page.recipe);
const colour = (model) => {
  const at = sources().indexOf(model);
  if (at >= 0) return `var(--ms-c${at % COLOURS})`;
  return page.recipe.stages.findIndex((stage) => stage.name === model) % 2 ? "var(--ms-part-1)" : "var(--ms-part-0)";
};
const label = (model) => shortName(model, sources());

// ---- editing -------------------------------------------------------------------------------
function edit(key, change, options = {}) {
  const now = Date.now();
  if (key === null || key !== lastEdit.key || now - lastEdit.time > 1200) {
    past.push(copyOf(page.recipe));
    if (past.length > 200) past.shift();
    future = [];
  }
  lastEdit = { key, time: now };
  change();
  if (options.rebuild) rebuild(options.focus); else refresh();
  changed();
}
function travel(from, to) {
  if (!from.length) return;
  to.push(page.recipe);
  page.recipe = from.pop();
  lastEdit = { key: null, time: 0 };
  rebuild();
  changed();
}
function changed() {
  keepDraft();
  undo.disabled = !past.length;
  redo.disabled = !future.length;
  requestPreview();
}
function load(recipe, options) { // options: { preset, file, layers, name }
  Object.assign(page, { recipe, preview: null, error: "", name: "", preset: null, file: "" }, options);
  past = []; future = [];
  panel.clear();
  fillPicker();
  rebuild();
  changed();
}
function keepDraft() {
  const { preset, recipe, file, layers, name } = page;
  remember(DRAFT_KEY, JSON.stringify({ preset, recipe, file, layers, name }));
}
function restoreDraft() {
  try {
    const draft = JSON.parse(recall(DRAFT_KEY));
    if (!draft?.recipe?.stages?.length) return false;
    sourcesOf(draft.recipe).forEach((model) => shortName(model, []));
    Object.assign(page, draft);
    if (page.preset && !presetOf(page.preset)) page.preset = null;
    return true;
  } catch { return false; } // a draft of another version: begin afresh
}

// ---- preview: the latest recipe wins ---------------------------------------------------------
let flying = false, waiting = false, again = 0, checkedShape = "";
async function requestPreview() {
  waiting = true;
  if (flying) return;
  flying = true;
  while (waiting) {
    waiting = false;
    const sent = page.recipe;
    const answer = await ask("preview", { recipe: sent, layers: page.layers });
    if (sent !== page.recipe) { waiting = true; continue; }
    page.error = answer.error || "";
    if (!answer.error) {
      const isOtherDepth = page.preview && page.preview.layers !== answer.layers;
      page.preview = answer;
      if (isOtherDepth) rebuild(); else refresh();
      clearTimeout(again);
      if (answer.measuring) again = setTimeout(requestPreview, 500);
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
  if (!state?.access.owner || !found || found.missing.length || ["running", "cancelling"].includes(state.job.state)) return;
  const shape = shapeOf(page.recipe);
  if (shape === checkedShape) return;
  checkedShape = shape;
  panel.check();
}

// ---- the page --------------------------------------------------------------------------------
const picker = h("select", { id: "ms-recipe", class: "ms-select", onchange: () => {
  const preset = presetOf(picker.value);
  if (preset) load(copyOf(preset.recipe), { preset: preset.id, layers: preset.layers });
} });
const chooser = h("input", { type: "file", accept: ".yaml,.yml,.txt", class: "ms-hidden", tabindex: -1, "aria-label": "Recipe file to upload", onchange: () => upload() });
const button = (text, action, more) => h("button", { type: "button", class: "ms-button", onclick: action, ...more }, text);
const undo = button("Undo", () => travel(past, future), { disabled: true });
const redo = button("Redo", () => travel(future, past), { disabled: true });
const reset = button("Reset", () => {
  const preset = presetOf(page.preset);
  if (preset) edit(null, () => { page.recipe = copyOf(preset.recipe); }, { rebuild: true });
}, { title: "Back to the recipe as shipped" });
const message = h("div", { "aria-live": "polite" });
const stagesBox = h("div", { class: "ms-stages" });
const basis = h("div", { class: "ms-basis" });
const desk = { edit, colour, label, layers: layersNow, preview: () => page.preview };
const shares = makeShares(desk);
const panel = mergePanel({
  recipe: () => page.recipe, missing: () => page.preview?.missing.map(label) || [], adopt: (answer) => adopt(answer),
  name: () => page.name || freeName(), setName: (text) => { page.name = text; keepDraft(); },
});
const offline = h("div", { class: "ms-offline", role: "status", hidden: true }, OFFLINE);

function freeName() {
  const stem = `${(page.preset || page.file.replace(/\.[^.]*$/, "") || "my").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[.]+/, "").slice(0, 60) || "my"}-merge`;
  const taken = new Set((state?.results || []).map((result) => result.name));
  let name = stem;
  for (let k = 2; taken.has(name); k += 1) name = `${stem}-${k}`;
  return name;
}
function fillPicker() {
  const options = shipped.map((preset) => h("option", { value: preset.id }, preset.title));
  if (!page.preset) options.unshift(h("option", { value: "" }, page.file || "My recipe"));
  picker.replaceChildren(...options);
  picker.value = page.preset || "";
  reset.disabled = !page.preset;
}
async function upload() {
  const file = chooser.files[0];
  chooser.value = "";
  if (!file) return;
  if (file.size > 200000) { say(`${file.name} has ${bytes(file.size)}; a recipe has at most 200 kB.`); return; }
  const answer = await ask("read_yaml", { text: await file.text(), file: file.name });
  if (answer.error) { say(answer.error); return; }
  load(answer.recipe, { file: file.name, layers: page.layers });
  if (answer.warnings.length) message.replaceChildren(h("ul", { class: "ms-warn" }, answer.warnings.map((line) => h("li", {}, line))));
}
async function download() {
  const answer = await ask("write_yaml", { recipe: page.recipe });
  if (answer.error) { say(answer.error); return; }
  const url = URL.createObjectURL(new Blob([answer.text], { type: "application/yaml" }));
  h("a", { href: url, download: page.file || `${page.preset || "recipe"}.yaml` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
const say = (text) => message.replaceChildren(alertBox(text));

function rebuild(focus) {
  const wanted = focus || document.activeElement?.dataset?.key;
  cards = page.recipe.stages.map((stage, index) => stageCard(stage, index, desk));
  stagesBox.replaceChildren(...cards.map((card) => card.element));
  refresh();
  if (wanted) stagesBox.querySelector(`[data-key="${wanted}"]`)?.focus({ preventScroll: true });
}
function refresh() {
  cards.forEach((card) => card.refresh());
  shares.update();
  panel.refresh();
  basis.replaceChildren(...basisWords());
}
function basisWords() {
  if (page.error) return [alertBox(page.error)];
  const found = page.preview;
  if (!found) return [h("p", { class: "ms-hint" }, "Reading the sources …")];
  if (found.problem) return [alertBox(found.problem), h("p", { class: "ms-hint" }, "Until this is mended the chart is a linear approximation.")];
  if (found.missing.length) {
    const field = h("input", { type: "number", class: "ms-field", min: 1, max: 400, step: 1, value: page.layers, "aria-label": "Number of layers to assume", "data-key": "layers",
      onchange: () => { const layers = Number(field.value); if (Number.isInteger(layers) && layers >= 1 && layers <= 400) { page.layers = layers; page.preview = null; rebuild(); changed(); } else field.value = page.layers; } });
    return [h("p", { class: "ms-hint" }, "Linear approximation: the sources are not on this machine. Layers assumed: ", field)];
  }
  if (found.measuring) return [h("p", { class: "ms-hint" }, "Linear approximation; measuring the angles between the sources …")];
  return [h("p", { class: "ms-hint" }, found.exact ? "Exact: from the angles between the sources’ tensors."
    : `Linear approximation: ${found.large ? "sources this large are not measured for the preview." : "the sources could not be measured; the studio’s log tells why."}`)];
}

// ---- the state of the studio -------------------------------------------------------------------
function adopt(answer) {
  state = { ...state, ...answer };
  panel.show(state);
}
let polling = 0;
async function poll() {
  clearTimeout(polling);
  const answer = await ask("state", {});
  offline.hidden = !answer.offline;
  if (!answer.error) {
    const wasOwner = state?.access.owner;
    adopt(answer);
    if (!wasOwner && answer.access.owner) requestPreview();
  }
  polling = setTimeout(poll, document.hidden ? 5000 : 1000);
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
window.addEventListener("merge-studio-token", () => { poll(); requestPreview(); });
document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.target.closest?.("input, textarea, select")) return;
  const letter = event.key.toLowerCase();
  if (letter === "z" && !event.shiftKey) travel(past, future);
  else if (letter === "y" || (letter === "z" && event.shiftKey)) travel(future, past);
  else return;
  event.preventDefault();
});

const root = element.querySelector(".ms");
if (!restoreDraft()) page.recipe = copyOf(presetOf(page.preset).recipe);
root.replaceChildren(
  offline,
  h("div", { class: "ms-toolbar" },
    h("div", { class: "ms-pick" }, h("label", { for: "ms-recipe", class: "ms-label" }, "Recipe"), picker),
    h("div", { class: "ms-row" }, button("Upload YAML", () => chooser.click(), { class: "ms-button ms-wide" }), chooser, button("Download YAML", download, { class: "ms-button ms-wide" }), undo, redo, reset)),
  message,
  shares.strip,
  h("div", { class: "ms-columns" },
    stagesBox,
    h("div", { class: "ms-side" },
      h("section", { class: "ms-card", "aria-label": "Shares of the result" },
        h("h2", {}, "Share of each source, %"), shares.elements, basis),
      panel.element)));
root.removeAttribute("aria-busy");
try {
  rebuild();
} catch (error) { // a draft of another version: begin afresh
  console.warn(error);
  Object.assign(page, { preset: shipped[0].id, recipe: copyOf(shipped[0].recipe), layers: shipped[0].layers, file: "", name: "" });
  rebuild();
}
fillPicker();
changed();
poll();
