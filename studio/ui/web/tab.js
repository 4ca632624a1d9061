// The Merge tab: the page around the work.
let cards = [], state = null, saved = [];
const button = (text, action, more) => h("button", { type: "button", class: "ms-button", onclick: action, ...more }, text);
const picker = h("select", { id: "ms-recipe", class: "ms-select", onchange: () => {
  const preset = presetOf(picker.value), entry = saved.find((each) => `saved:${each.name}` === picker.value);
  if (preset) load(copyOf(preset.recipe), { preset: preset.id, layers: preset.layers });
  else if (entry) library.open(entry.name);
} });
const chooser = h("input", { type: "file", accept: ".yaml,.yml,.txt", class: "ms-hidden", tabindex: -1, "aria-label": "Recipe file to upload", onchange: () => upload() });
const undo = button("Undo", () => travel(past, future), { disabled: true });
const redo = button("Redo", () => travel(future, past), { disabled: true });
const reset = button("Reset", () => edit(null, () => { page.recipe = copyOf(page.origin); }, { rebuild: true }), { title: "Back to the recipe as it was opened", disabled: true });
const keep = button("Library", () => library.show(!library.isOpen()), { "aria-expanded": "false" });
const message = h("div", { class: "ms-message", "aria-live": "polite" });
const news = h("p", { class: "ms-news", role: "status", hidden: true });
const stagesBox = h("div", { class: "ms-stages" });
const basis = h("div", { class: "ms-basis" });
let fading = 0;
function tell(text) { // for a moment, at the bottom
  news.textContent = text;
  news.hidden = false;
  clearTimeout(fading);
  fading = setTimeout(() => { news.hidden = true; }, 6000);
}
const desk = {
  edit, colour, label, stageColour, stageTitle, tell, resetStage, isStageChanged,
  recipe: () => page.recipe, layers: layersNow, preview: () => page.preview, snap: () => snaps,
  inputs: (index) => (page.recipe.stages[index] ? modelsOf(page.recipe.stages[index]) : []),
  isSwitch: (index, name) => !isTuned(page.recipe.stages[index]?.method, name),
  knownModels: () => [...new Set(shipped.flatMap((preset) => sourcesOf(preset.recipe)))],
  edited: () => edited,
  setEdited(index, isSilent) { edited = index; if (!isSilent) rebuild(index === null ? null : `s${index}-edit`); },
  focus: (key) => stagesBox.querySelector(`[data-key="${key}"]`)?.focus({ preventScroll: true }),
  hasFailed: () => Boolean(page.error), ask: requestPreview, tensors: () => ask("tensors", { recipe: page.recipe, layers: page.layers, base: page.base }),
};
const results = makeResults(desk);
const graph = makeGraph(desk, (index) => {
  const card = document.getElementById(`ms-stage-${index}`);
  card?.scrollIntoView({ block: "nearest", behavior: "smooth" });
  card?.focus({ preventScroll: true });
});
const panel = mergePanel({
  recipe: () => page.recipe, missing: () => page.preview?.missing.map(label) || [], adopt: (answer) => adopt(answer),
  name: () => page.name || freeName(), setName: (text) => { page.name = text; keepDraft(); },
  setTokenizer: (source) => edit(null, () => page.recipe.stages.forEach((stage) => { stage.tokenizer = source; }), { rebuild: true }),
});
const stem = () => `${(page.preset || page.saved || page.file.replace(/\.[^.]*$/, "") || "my").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[.]+/, "").slice(0, 60) || "my"}`;
const library = makeLibrary({
  recipe: () => page.recipe, saved: () => page.saved, note: () => page.note, suggest: () => `${stem()}-tuned`, owner: () => state?.access.owner,
  open: (entry, answer) => load(answer.recipe, { saved: entry.name, note: entry.note, layers: layersToAssume() }),
  failed(text) { say(text); fillPicker(); },
  keep(name, note) { Object.assign(page, { saved: name, note, preset: null, file: "", origin: copyOf(page.recipe) }); fillPicker(); changed(); },
  listed(entries) { saved = entries.filter((entry) => !entry.problem); fillPicker(); },
  shown: (isOpen) => keep.setAttribute("aria-expanded", String(isOpen)),
});
const offline = h("div", { class: "ms-offline", role: "status", hidden: true }, `${OFFLINE} Your tuning is kept on this page; trying again …`);
const snapBox = h("input", { type: "checkbox", onchange: () => { snaps = snapBox.checked; remember(SNAP_KEY, snaps ? "yes" : "no"); } });
snapBox.checked = snaps;

function freeName() {
  const first = `${stem()}-merge`, taken = new Set((state?.results || []).map((result) => result.name));
  let name = first;
  for (let k = 2; taken.has(name); k += 1) name = `${first}-${k}`;
  return name;
}
function fillPicker() {
  const group = (title, options) => h("optgroup", { label: title }, options);
  const options = [group("Shipped", shipped.map((preset) => h("option", { value: preset.id }, preset.title)))];
  if (saved.length) options.push(group("Library", saved.map((entry) => h("option", { value: `saved:${entry.name}` }, entry.name))));
  const isListed = page.preset || saved.some((entry) => entry.name === page.saved);
  if (!isListed) options.unshift(h("option", { value: "" }, page.saved || page.file || "My recipe"));
  picker.replaceChildren(...options);
  picker.value = isListed ? page.preset || `saved:${page.saved}` : "";
}
async function upload() {
  const file = chooser.files[0];
  chooser.value = "";
  if (!file) return;
  if (file.size > 200000) { say(`${file.name} has ${bytes(file.size)}; a recipe has at most 200 kB.`); return; }
  const answer = await ask("read_yaml", { text: await file.text(), file: file.name });
  if (answer.error) { say(answer.offline ? answer.error : `Not opened: ${answer.error}`); return; }
  load(answer.recipe, { file: file.name, layers: layersToAssume() });
  if (answer.warnings.length) message.replaceChildren(h("ul", { class: "ms-warn" }, answer.warnings.map((line) => h("li", {}, line))));
}
async function download() {
  const answer = await ask("write_yaml", { recipe: page.recipe });
  if (answer.error) { say(answer.error); return; }
  const url = URL.createObjectURL(new Blob([answer.text], { type: "application/yaml" }));
  h("a", { href: url, download: page.file || `${page.saved || page.preset || "recipe"}.yaml` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
const say = (text) => message.replaceChildren(alertBox(text), h("button", { type: "button", class: "ms-icon", "aria-label": "Close this message", onclick: () => message.replaceChildren() }, "×"));

function rebuild(focus) {
  const wanted = focus || document.activeElement?.dataset?.key;
  cards = page.recipe.stages.map((stage, index) => stageCard(stage, index, desk));
  stagesBox.replaceChildren(...cards.map((card) => card.element));
  refresh();
  if (wanted) desk.focus(wanted);
}
function refreshEditors() {
  graph.update();
  cards.forEach((card) => card.refresh());
}
function refresh() {
  results.update(); // first: it measures what it draws, and would have all that is new laid out
  refreshEditors();
  panel.refresh();
  showBasis();
}

// ---- what the charts rest on ---------------------------------------------------------------------
let basisKey = "";
function showBasis() { // made anew only where it says something else: fields keep their focus
  const found = page.preview;
  const key = JSON.stringify(page.error || [shapeOf(page.recipe), found && [found.problem, found.missing, found.basis, found.measuring, found.wanted, found.progress, found.sampled, found.large, found.base_problem, found.note], page.base, page.layers, page.preset, state?.access.owner]);
  if (key === basisKey || basis.contains(document.activeElement) && document.activeElement.tagName !== "BUTTON" && basis.dataset.kind === basisKind()) return;
  basisKey = key;
  basis.dataset.kind = basisKind();
  basis.replaceChildren(...[basisWords(), found?.note && h("p", { class: "ms-hint" }, found.note), found && !page.error && baseChoice()].flat().filter(Boolean));
}
const basisKind = () => `${Boolean(page.error)} ${page.preview?.missing.length > 0} ${page.base}`;
function basisWords() {
  if (page.error) return [alertBox(page.error)];
  const found = page.preview, hint = (...parts) => h("p", { class: "ms-hint" }, parts);
  if (!found) return [hint("Reading the sources …")];
  const certainty = found.basis === "estimated" ? estimateWords(found) : "Linear approximation";
  if (found.problem) return [alertBox(found.problem), hint(`Until this is mended: ${certainty.charAt(0).toLowerCase()}${certainty.slice(1)}.`)];
  if (found.missing.length) {
    const absent = `Linear approximation: ${found.missing.length < found.sources.length ? `${found.missing.map(label).join(", ")} ${found.missing.length > 1 ? "are" : "is"}` : "the sources are"} not on this machine.`;
    if (found.layers_named) return [hint(absent)];
    const field = h("input", { type: "number", class: "ms-field", min: 1, max: 400, step: 1, value: page.layers, "aria-label": "Number of layers to assume", "data-key": "layers",
      onchange: () => { const layers = Number(field.value); if (Number.isInteger(layers) && layers >= 1 && layers <= 400) { page.layers = layers; page.depth = layers; page.preview = null; rebuild(); changed(); } else field.value = page.layers; } });
    return [hint(`${absent} Layers assumed: `, field)];
  }
  if (found.basis === "exact") return [hint("Exact: from the angles between the sources’ tensors.")];
  const isMeasuring = found.progress !== null, part = Math.round(100 * (found.progress || 0)), isEnding = isMeasuring && found.large && !found.wanted;
  const measured = isMeasuring && h("div", { class: "ms-bar", role: "progressbar", "aria-label": "Progress of measuring", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": part }, h("div", { style: `width:${part}%` }));
  const act = found.large && state?.access.owner && (isMeasuring
    ? button(isEnding ? "Cancelling …" : "Cancel", cancelMeasuring, { class: "ms-button ms-small", disabled: isEnding, "aria-label": "Cancel measuring" })
    : button("Measure exactly", measure, { class: "ms-button ms-small" }));
  const more = isMeasuring ? `; measuring exactly, ${part} % …` : found.measuring ? "; sampling the weights …" : ".";
  const nothing = found.large || isMeasuring ? "" : "; the sources could not be measured, the studio’s log tells why";
  return [h("div", { class: "ms-row" }, hint(certainty, found.basis === "assumed" && !found.measuring ? `${nothing}.` : more), act), measured];
}
function estimateWords(found) { // the bands are often too thin to be seen
  const most = (lists) => Math.max(0, ...lists.flat(2).filter(Number.isFinite)), plain = (value) => Number(Math.max(value, 1e-3).toPrecision(2));
  const angle = most(found.stages.map((stage) => stage.degrees_error || []));
  return `Estimated from ${plain(100 * found.sampled)} % of the weights: shares within ± ${plain(100 * most(found.share_error))} %, angles within ± ${plain(angle)}°`.replaceAll("± ", "±\u00a0").replaceAll(" %", "\u00a0%");
}
async function cancelMeasuring() {
  const answer = await ask("cancel_measuring", { recipe: page.recipe, base: page.base });
  if (answer.error) say(answer.error);
  requestPreview();
}
async function measure() {
  const answer = await ask("measure", { recipe: page.recipe, base: page.base });
  if (answer.error || answer.problem) say(answer.error || answer.problem);
  requestPreview();
}
function baseChoice() { // fine-tunes of one base are nearly parallel: their changes of it say more
  const choose = (base) => { page.base = base; keepDraft(); showBasis(); requestPreview(); };
  const own = page.recipe.stages.filter((stage) => METHODS[stage.method].needs_base).map((stage) => modelsOf(stage)[0]);
  const known = [...new Set([presetOf(page.preset)?.base, ...own.filter((model) => sources().includes(model)), ...shipped.map((preset) => preset.base), page.base].filter(Boolean))];
  const other = h("input", { type: "text", class: "ms-text", hidden: true, "aria-label": "Folder or Hub name of the common base model", placeholder: "folder or Hub name, then Enter", spellcheck: "false", autocomplete: "off", maxlength: 500,
    onchange: () => { if (other.value.trim()) choose(other.value.trim()); } });
  const select = h("select", { class: "ms-select", id: "ms-base", "data-key": "base", onchange: () => {
    if (select.value === "other") { other.hidden = false; other.focus(); } else choose(select.value || null);
  } }, h("option", { value: "" }, "weights as they are"), known.map((base) => h("option", { value: base }, `task vectors: changes from ${base}`)), h("option", { value: "other" }, "task vectors: changes from another base model …"));
  select.value = page.base || "";
  return [h("div", { class: "ms-row ms-base" }, h("label", { class: "ms-label", for: "ms-base" }, "Compare"), select, other),
          page.preview?.base_problem && alertBox(page.preview.base_problem)];
}

// ---- the state of the studio -------------------------------------------------------------------
function adopt(answer) {
  state = { ...state, ...answer };
  keep.disabled = !state.access?.owner;
  keep.title = state.access?.owner ? "Recipes kept on the server" : "The library is the owner’s";
  panel.show(state);
}
let polling = 0;
async function poll() {
  clearTimeout(polling);
  const answer = await ask("state", {});
  offline.hidden = !answer.offline;
  if (!answer.error) {
    const wasOwner = Boolean(state?.access.owner);
    adopt(answer);
    if (wasOwner !== Boolean(answer.access.owner)) { library.refresh(); if (answer.access.owner) requestPreview(); else library.show(false); }
  }
  // Another page may have had the sources measured.
  if (page.preview?.basis === "estimated" && performance.now() - asked > 10000) requestPreview();
  polling = setTimeout(poll, document.hidden ? 5000 : 1000);
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
window.addEventListener("merge-studio-token", () => { poll(); requestPreview(); });
document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || !element.offsetParent || event.target.closest?.("input, textarea, select")) return;
  const letter = event.key.toLowerCase();
  if (letter === "z" && !event.shiftKey) travel(past, future);
  else if (letter === "y" || (letter === "z" && event.shiftKey)) travel(future, past);
  else return;
  event.preventDefault();
});

const root = element.querySelector(".ms");
const begin = () => Object.assign(page, { preset: shipped[0].id, recipe: copyOf(shipped[0].recipe), origin: copyOf(shipped[0].recipe), layers: shipped[0].layers, file: "", saved: "", note: "", name: "", base: null });
if (!restoreDraft()) begin();
root.replaceChildren(
  offline, news,
  h("div", { class: "ms-toolbar" },
    h("div", { class: "ms-pick" }, h("label", { for: "ms-recipe", class: "ms-label" }, "Recipe"), picker),
    h("div", { class: "ms-row" }, keep, button("Upload YAML", () => chooser.click()), chooser, button("Download YAML", download), undo, redo, reset)),
  message, library.element,
  results.strip,
  h("div", { class: "ms-columns" },
    h("div", { class: "ms-stages" },
      h("section", { class: "ms-card", "aria-label": "Recipe graph" },
        h("div", { class: "ms-row" }, h("h2", {}, "Stages"), h("span", { class: "ms-space" }),
          h("label", { class: "ms-row ms-check", title: `Anchors move in steps of ${SNAP}` }, snapBox, `Snap to ${SNAP}`),
          button("+ Stage", () => { let made; edit(null, () => { made = addStage(page.recipe); edited = page.recipe.stages.indexOf(made); }, { rebuild: true, focus: `s${page.recipe.stages.length - 1}-name` }); desk.focus(`s${edited}-name`); }, { class: "ms-button ms-small", "data-key": "add-stage" })),
        graph.box,
        h("p", { class: "ms-hint" }, "Drag the points. A click on a line adds one, a double click or Delete removes it; anchors are always evenly spaced, as in mergekit, so the others move along the same curve.")),
      stagesBox),
    h("div", { class: "ms-side" },
      h("section", { class: "ms-card", "aria-label": "Shares of the result" },
        h("div", { class: "ms-row" }, h("h2", {}, "The result"), results.certainty), results.element, basis),
      panel.element)));
root.removeAttribute("aria-busy");
try {
  rebuild();
} catch (error) { // a draft of another version: begin afresh
  console.warn(error);
  begin();
  [past, future] = [[], []];
  rebuild();
}
fillPicker();
changed();
poll();
