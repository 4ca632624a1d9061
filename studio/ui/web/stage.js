// A stage's card: which end is which, the curve, a field for every number.
// desk: { recipe, layers(), preview(), edit(key, change), colour(model), label(model) }
function stageCard(stage, index, desk) {
  const title = stage.name || "Result";
  const models = stage.slices[0].inputs.map((input) => input.model);
  const isSlerp = stage.method === "slerp";
  const blocks = parametersOf(stage, desk.layers()).map((parameter, which) =>
    parameterBlock(stage, index, parameter, { ...desk, which, models, title }));
  const element = h("section", { class: "ms-card ms-stage", "aria-label": `Stage ${index + 1}: ${title}` },
    h("div", { class: "ms-row" },
      h("span", { class: "ms-number", "aria-hidden": "true" }, index + 1),
      h("h3", {}, title),
      h("span", { class: "ms-chip" }, stage.method),
      (stage.out_dtype || stage.dtype) && h("span", { class: "ms-chip ms-quiet" }, stage.out_dtype || stage.dtype)),
    h("dl", { class: "ms-ends" }, models.map((model, k) => h("div", {},
      h("dt", {}, isSlerp ? `t = ${k}` : `input ${k + 1}`),
      h("dd", {}, swatch(desk.colour(model)), reference(model),
        isSlerp && k === 0 && h("span", { class: "ms-quiet ms-note" }, "base"))))),
    blocks.map((block) => block.element));
  return { element, refresh: () => blocks.forEach((block) => block.refresh()) };
}

function reference(model) { // in full: 7B and 70B models differ in little more than the name
  const cut = model.replace(/\/+$/, "").lastIndexOf("/") + 1;
  return h("span", {}, h("span", { class: "ms-quiet" }, model.slice(0, cut)), model.slice(cut));
}
const swatch = (colour) => h("span", { class: "ms-swatch", style: `background:${colour}`, "aria-hidden": "true" });

function parameterBlock(stage, index, parameter, desk) {
  const { name, rules, spans, input } = parameter;
  const key = `s${index}-p${desk.which}`;
  const lines = rules.filter((rule) => !isOutside(rule));
  const wide = lines.map((rule, k) => ({
    rule, key: `${key}-r${k}`, spans, dashed: rule.filter !== null,
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
      layers: desk.layers(), name, ends,
      lines: wide.map((line) => ({ ...line, anchors: line.rule.anchors })),
      // where some tensors of a layer follow a rule of their own, no dot could stand for all
      dots: wide.every((line) => !line.dashed) && values() && rowsOf((row) => row.startsWith("layer")).map((k) => values()[k]),
    }),
    (which, k, value, isFinal) => desk.edit(`${wide[which].key}-${k}`, () => { wide[which].rule.anchors[k] = value; }, { isFinal }),
  ) : null;
  const fields = wide.map((line) => anchorFields(line, name, desk));
  const outside = outsideFields({ key, name, rules, input }, values, desk);
  return {
    element: h("div", { class: "ms-parameter" },
      input && h("h4", {}, swatch(desk.colour(input)), `${name} of ${desk.label(input)}`),
      curve && curve.box, fields.map((field) => field.element), outside.element),
    refresh() {
      if (curve) curve.update();
      fields.forEach((field) => field.refresh());
      outside.refresh();
    },
  };
}

function numberField(options) { // { key, label, value(), placeholder?(), set(value|null) }
  const field = h("input", { type: "number", step: "0.01", inputmode: "decimal", class: "ms-field",
                             "data-key": options.key, "aria-label": options.label, autocomplete: "off" });
  const show = () => {
    if (options.placeholder) field.placeholder = options.placeholder();
    const value = options.value();
    if (document.activeElement !== field) field.value = value === null ? "" : number(value);
  };
  field.addEventListener("input", () => {
    const text = field.value.trim(), value = Number(text);
    const isEmpty = text === "" && !field.validity.badInput;
    const isWrong = field.validity.badInput || !Number.isFinite(value) || Math.abs(value) > 1000 || (isEmpty && !options.placeholder);
    field.classList.toggle("ms-bad", isWrong);
    field.setAttribute("aria-invalid", String(isWrong));
    if (!isWrong) options.set(isEmpty ? null : value);
  });
  field.addEventListener("blur", () => {
    field.classList.remove("ms-bad");
    field.removeAttribute("aria-invalid");
    show();
  });
  return { field, show };
}

function anchorFields(line, name, desk) {
  const { rule, key, spans } = line;
  const beyond = h("p", { class: "ms-hint ms-beyond", hidden: true }, "Outside 0 … 1: extrapolates beyond an input.");
  const cells = rule.anchors.map((_, k) => {
    const where = anchorTitle(rule.anchors, spans[0], k);
    const { field, show } = numberField({
      key: `${key}-field-${k}`, label: `${line.title}, ${where}, ${name}, exact value`,
      value: () => rule.anchors[k],
      set: (value) => desk.edit(`${key}-${k}`, () => { rule.anchors[k] = value; }),
    });
    const drop = rule.anchors.length > 1 && h("button", {
      type: "button", class: "ms-icon", "aria-label": `Remove the anchor at ${where} of ${line.title}`, title: "Remove this anchor",
      onclick: () => desk.edit(null, () => { rule.anchors.splice(k, 1); }, { rebuild: true, focus: `${key}-field-${Math.max(0, k - 1)}` }),
    }, "×");
    return { show, element: h("div", { class: "ms-cell" }, h("span", { class: "ms-label" }, where), h("span", { class: "ms-pair" }, field, drop)) };
  });
  const add = h("button", {
    type: "button", class: "ms-button ms-small", "data-key": `${key}-add`, "aria-label": `Add an anchor to ${line.title}`,
    title: "One anchor more, spread evenly along the same curve", disabled: rule.anchors.length >= 33,
    onclick: () => desk.edit(null, () => addAnchor(rule), { rebuild: true, focus: `${key}-add` }),
  }, "+ Anchor");
  return {
    element: h("div", {},
      rule.filter !== null && h("p", { class: "ms-label" }, `Tensors named …${rule.filter}…`),
      h("div", { class: "ms-cells" }, cells.map((cell) => cell.element), add), beyond),
    refresh() {
      cells.forEach((cell) => cell.show());
      beyond.hidden = !(name === "t" && rule.anchors.some((value) => value < 0 || value > 1));
    },
  };
}

function outsideFields({ key, name, rules, input }, values, desk) {
  const owner = [desk.title, input && desk.label(input)].filter(Boolean).join(", ");
  const inherited = (place) => {
    const rows = desk.preview()?.rows || [], at = rows.indexOf(place.row), found = values();
    if (found && at >= 0) return number(found[at]);
    const main = mainRule(rules);
    return main ? number(main.anchors[0]) : "";
  };
  const own = (place) => rules.find((rule) => rule.filter === place.filter);
  const cells = OUTSIDE.map((place) => {
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
