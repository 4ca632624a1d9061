// A stage's card: which end is which, the curves, and on request everything else about it.
// desk: see tab.js
function stageCard(stage, index, desk) {
  const title = desk.stageTitle(index);
  const models = modelsOf(stage);
  const isSlerp = stage.method === "slerp";
  const isResult = index === desk.recipe().stages.length - 1;
  const blocks = parametersOf(stage, desk.layers()).map((parameter, which) =>
    parameterBlock(stage, index, parameter, { ...desk, which, models, title }));
  const isEdited = desk.edited() === index;
  const editor = isEdited ? stageEditor(stage, index, desk) : null;
  const open = h("button", { type: "button", class: "ms-button ms-small", "data-key": `s${index}-edit`, "aria-expanded": String(isEdited),
    "aria-label": `${isEdited ? "Close" : "Edit"} ${title}`, onclick: () => desk.setEdited(isEdited ? null : index) }, isEdited ? "Done" : "Edit");
  const reset = h("button", { type: "button", class: "ms-button ms-small", "data-key": `s${index}-reset`, "aria-label": `Reset ${title}`,
    title: "This stage as the recipe had it when it was opened", onclick: () => desk.resetStage(index) }, "Reset");
  const isUsed = isResult || desk.recipe().stages.some((other) => modelsOf(other).includes(stage.name));
  const impact = h("p", { class: "ms-hint", hidden: true });
  const element = h("section", { class: "ms-card ms-stage", id: `ms-stage-${index}`, tabindex: -1, "aria-label": `Stage ${index + 1}: ${title}` },
    h("div", { class: "ms-row ms-stage-head" },
      h("span", { class: "ms-number", "aria-hidden": "true", style: `background:${desk.stageColour(index)}` }, index + 1),
      h("h3", {}, title),
      h("span", { class: "ms-chip" }, stage.method),
      (stage.out_dtype || stage.dtype) && h("span", { class: "ms-chip ms-quiet" }, stage.out_dtype || stage.dtype),
      stage.tokenizer && h("span", { class: "ms-chip ms-quiet", title: "Merged by token, not by row" }, `tokens: ${shortName(stage.tokenizer, [])}`),
      h("span", { class: "ms-space" }), reset, open),
    editor || h("dl", { class: "ms-ends" }, models.map((model, k) => h("div", {},
      h("dt", {}, isSlerp ? `t = ${k}` : METHODS[stage.method].needs_base && k === 0 ? "base" : `input ${k + 1}`),
      h("dd", {}, swatch(desk.colour(model)), reference(model),
        isSlerp && k === 0 && h("span", { class: "ms-quiet ms-note" }, "base"))))),
    !isUsed && h("p", { class: "ms-warn" }, "No other stage uses this one yet: choose it as an input of the stage that should."),
    blocks.map((block) => block.element), impact);
  return {
    element,
    refresh() {
      reset.disabled = !desk.isStageChanged(index);
      blocks.forEach((block) => block.refresh());
      const found = desk.preview()?.stages[index];
      impact.hidden = !(isUsed && !isResult && found && found.effect < 0.01);
      if (!impact.hidden) impact.textContent = "This stage changes the result very little.";
    },
  };
}

function reference(model) { // in full: 7B and 70B models differ in little more than the name
  const cut = model.replace(/\/+$/, "").lastIndexOf("/") + 1;
  return h("span", {}, h("span", { class: "ms-quiet" }, model.slice(0, cut)), model.slice(cut));
}
const swatch = (colour) => h("span", { class: "ms-swatch", style: `background:${colour}`, "aria-hidden": "true" });

function parameterBlock(stage, index, parameter, desk) {
  const { name, rules, spans, input, places } = parameter;
  const key = `s${index}-p${desk.which}`;
  const inner = rules.filter((rule) => !isOutside(rule));
  const lines = inner.map((rule, k) => ({
    rule, rules, key: `${key}-r${k}`, spans, dashed: rule.filter !== null, order: k, count: inner.length,
    colour: rule.filter === null ? null : `var(--ms-s${(k + index) % 4})`,
    title: [desk.title, input && desk.label(input), rule.filter && `“${rule.filter}”`].filter(Boolean).join(", "),
  }));
  const ends = stage.method === "slerp" && name === "t" && {
    low: { label: desk.label(desk.models[0]), colour: desk.colour(desk.models[0]) },
    high: { label: desk.label(desk.models[1]), colour: desk.colour(desk.models[1]) },
  };
  const values = () => {
    const found = desk.preview()?.stages[index]?.values[name];
    if (!found) return null;
    const column = input === null ? null : desk.models.indexOf(input);
    return found.map((row) => (column === null || !Array.isArray(row) ? row : row[column]));
  };
  const rowsOf = (kind) => (desk.preview()?.rows || []).map((row, k) => [row, k]).filter(([row]) => kind(row)).map(([, k]) => k);
  const curve = lines.length ? makeCurve(
    () => ({
      layers: desk.layers(), name, ends, snap: desk.snap(),
      lines: lines.map((line) => ({ ...line, anchors: line.rule.anchors })),
      // where some tensors of a layer follow a rule of their own, no dot could stand for all
      dots: desk.layers() <= MOST_DOTS && lines.every((line) => !line.dashed) && values() && rowsOf((row) => row.startsWith("layer")).map((k) => values()[k]),
    }),
    {
      move: (which, k, value, isFinal) => desk.edit(`${lines[which].key}-${k}`, () => { lines[which].rule.anchors[k] = value; }, { isFinal }),
      add: (which, k = 0) => changeCount(lines[which], desk, "point", k, addAnchor),
      remove: (which, k) => changeCount(lines[which], desk, "point", k, (rule) => rule.anchors.splice(k, 1)),
    },
  ) : null;
  const blocks = lines.map((line) => lineBlock(line, name, desk));
  const outside = outsideFields({ key, name, rules, input, places }, values, desk);
  return {
    element: h("div", { class: "ms-parameter" },
      (input || name !== "t") && h("h4", {}, input && swatch(desk.colour(input)), input ? `${name} of ${desk.label(input)}` : name),
      curve && curve.box, blocks.map((block) => block.element), places.length > 0 && outside.element),
    refresh() {
      if (curve) curve.update();
      blocks.forEach((block) => block.refresh());
      outside.refresh();
    },
  };
}

const MOST_DOTS = 40; // side by side they would be a line
// One anchor more or less: a line keeps at least one, and has room for 33.
const MOST_ANCHORS = 33;
function changeCount(line, desk, kind, k, change) {
  const before = line.rule.anchors.length, isMore = change === addAnchor;
  if (isMore ? before >= MOST_ANCHORS : before <= 1) return;
  const near = isMore ? k : Math.max(0, k - 1);
  desk.edit(null, () => change(line.rule), { rebuild: true, focus: `${line.key}-${kind}-${near}` });
  desk.tell(`${line.title}: ${isMore ? before + 1 : before - 1} anchors, evenly spaced over the layers.`);
}

function outsideFields({ key, name, rules, input, places }, values, desk) {
  const owner = [desk.title, input && desk.label(input)].filter(Boolean).join(", ");
  const inherited = (place) => {
    const rows = desk.preview()?.rows || [], at = rows.indexOf(place.row), found = values();
    if (found && at >= 0) return number(found[at]);
    const main = mainRule(rules);
    return main ? number(main.anchors[0]) : "";
  };
  const own = (place) => rules.find((rule) => rule.filter === place.filter);
  const cells = places.map((place) => {
    const set = (value) => desk.edit(`${key}-${place.row}`, () => setOutside(rules, place.filter, value));
    const { field, show } = numberField({
      key: `${key}-${place.row}`, label: `${owner}, ${place.title}, ${name}`,
      value: () => own(place)?.anchors[0] ?? null, placeholder: () => inherited(place), set,
    });
    const clear = h("button", { type: "button", class: "ms-icon", title: "Follow the first anchor again",
      "aria-label": `${owner}, ${place.title}: follow the first anchor again`, onclick: () => { set(null); field.focus(); } }, "×");
    const tag = h("span", { class: "ms-tag" });
    return {
      element: h("div", { class: "ms-cell" }, h("span", { class: "ms-label" }, place.title, " ", tag), h("span", { class: "ms-pair" }, field, clear)),
      refresh() { show(); clear.hidden = !own(place); tag.textContent = own(place) ? "own" : "inherited"; },
    };
  });
  return {
    element: h("div", { class: "ms-outside" },
      h("div", { class: "ms-cells" }, cells.map((cell) => cell.element)),
      h("p", { class: "ms-hint" }, `Outside the layers. Empty: the first anchor, as in mergekit.`)),
    refresh: () => cells.forEach((cell) => cell.refresh()),
  };
}
