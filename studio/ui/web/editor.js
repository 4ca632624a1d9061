// What a stage is made of: its name, method, inputs and dtype, to be changed.
function stageEditor(stage, index, desk) {
  const title = desk.stageTitle(index), key = `s${index}`;
  const method = METHODS[stage.method], isResult = !stage.name;
  const inputs = modelsOf(stage);
  const rework = (change, focus) => desk.edit(null, change, { rebuild: true, focus });
  const named = (label, control) => h("label", { class: "ms-cell ms-grow" }, h("span", { class: "ms-label" }, label), control);
  const name = h("input", { type: "text", class: "ms-text", "data-key": `${key}-name`, "aria-label": `Name of ${title}`, maxlength: 80, spellcheck: "false", autocomplete: "off" });
  name.value = stage.name || "";
  name.addEventListener("change", () => {
    let problem = "";
    const renamed = copyOf(desk.recipe());
    problem = renameStage(renamed, index, name.value);
    if (problem) { desk.tell(problem); name.value = stage.name; return; }
    if (renamed.stages[index].name !== stage.name) rework(() => { renameStage(desk.recipe(), index, name.value); }, `${key}-name`);
  });
  const select = (label, at, choices, now, choose) => {
    const element = h("select", { class: "ms-select", "data-key": `${key}-${at}`, "aria-label": label, onchange: () => choose(element.value) },
      choices.map(([value, text]) => h("option", { value }, text)));
    element.value = now;
    return element;
  };
  const methods = select(`Method of ${title}`, "method", Object.keys(METHODS).map((each) => [each, each]), stage.method, (chosen) =>
    rework(() => { setMethod(stage, chosen, sourcesOf(desk.recipe())); sortStages(desk.recipe()); }, `${key}-method`));
  const dtypes = select(`dtype of ${title}`, "dtype", [["", "as the sources"], ...["bfloat16", "float16", "float32"].map((each) => [each, each])], stage.dtype || "", (chosen) =>
    rework(() => { stage.dtype = chosen || null; }, `${key}-dtype`));
  const tokens = select(`Tokenizer of ${title}`, "tokenizer", [["", "row by row"], ["base", "by token: base"], ["union", "by token: union"], ...inputs.map((each) => [each, `by token: ${desk.label(each)}`])], stage.tokenizer || "", (chosen) =>
    rework(() => { stage.tokenizer = chosen || null; }, `${key}-tokenizer`));
  const switches = Object.entries(method.settings).filter(([, setting]) => setting.switch).map(([setting, about]) => {
    const box = h("input", { type: "checkbox", "data-key": `${key}-${setting}`, onchange: () => rework(() => { stage.settings[setting] = [{ filter: null, anchors: [box.checked ? 1 : 0] }]; }, `${key}-${setting}`) });
    box.checked = (stage.settings[setting]?.[0].anchors[0] ?? about.default) > 0;
    return h("label", { class: "ms-row ms-check" }, box, setting);
  });
  const fixed = Object.entries(method.settings).filter(([, setting]) => setting.fixed).map(([setting, about]) => numberField({
    key: `${key}-${setting}`, label: `${title}, ${setting}`, value: () => stage.settings[setting]?.[0].anchors[0] ?? null, placeholder: () => String(about.default),
    set: (value) => desk.edit(`${key}-${setting}`, () => { if (value === null) delete stage.settings[setting]; else stage.settings[setting] = [{ filter: null, anchors: [value] }]; }),
  })).map(({ field, show }, k) => { show(); return named(Object.keys(method.settings).filter((setting) => method.settings[setting].fixed)[k], field); });
  return h("div", { class: "ms-editor" },
    h("div", { class: "ms-row ms-fields" }, !isResult && named("Name", name), named("Method", methods), named("dtype", dtypes), named("Vocabulary", tokens), fixed),
    switches.length > 0 && h("div", { class: "ms-row" }, switches),
    inputs.map((model, k) => inputRow(stage, index, k, model, desk)),
    h("div", { class: "ms-row" },
      inputs.length === 2 && h("button", { type: "button", class: "ms-button ms-small", "data-key": `${key}-swap`, onclick: () => rework(() => stage.slices.forEach((part) => part.inputs.reverse()), `${key}-swap`) }, "Swap inputs"),
      method.inputs === null && h("button", { type: "button", class: "ms-button ms-small", "data-key": `${key}-more`, onclick: () =>
        rework(() => addInput(stage, sourcesOf(desk.recipe()).find((each) => !inputs.includes(each)) || inputs[0]), `${key}-more`) }, "+ Input"),
      h("span", { class: "ms-space" }),
      !isResult && h("button", { type: "button", class: "ms-button ms-small ms-danger", "aria-label": `Delete ${title}`, onclick: () => {
        desk.setEdited(null, true);
        rework(() => deleteStage(desk.recipe(), index), `s${index}-edit`);
        desk.tell(`${title} is deleted; what used it takes ${inputs[0]} instead. Undo brings it back.`);
      } }, "Delete stage")));
}

// Any source, any stage that does not build on this one, or another model by its folder or Hub name.
function inputRow(stage, index, k, model, desk) {
  const title = desk.stageTitle(index), key = `s${index}-in${k}`, isSlerp = stage.method === "slerp";
  const { sources, stages } = inputChoices(desk.recipe(), index);
  const models = [...new Set([...sources, ...desk.knownModels()])];
  const place = isSlerp ? `t = ${k}` : METHODS[stage.method].needs_base && k === 0 ? "base" : `input ${k + 1}`;
  const take = (chosen) => desk.edit(null, () => { setInput(stage, k, chosen); sortStages(desk.recipe()); }, { rebuild: true, focus: key });
  const other = h("input", { type: "text", class: "ms-text", hidden: true, "aria-label": `${title}, ${place}: folder or Hub name of a model`, placeholder: "folder or Hub name, then Enter", spellcheck: "false", autocomplete: "off", maxlength: 500 });
  other.addEventListener("change", () => { const text = other.value.trim(); if (text) take(text); });
  const group = (label, choices) => choices.length > 0 && h("optgroup", { label }, choices.map((each) => h("option", { value: each }, each)));
  const select = h("select", { class: "ms-select", "data-key": key, "aria-label": `${title}, ${place}`, onchange: () => {
    if (select.value !== "") { take(select.value); return; }
    other.hidden = false;
    other.focus();
  } }, group("Stages", stages), group("Models", models), h("option", { value: "" }, "Another model …"));
  select.value = model;
  const drop = METHODS[stage.method].inputs === null && stage.slices[0].inputs.length > (METHODS[stage.method].least || 1) && h("button", { type: "button", class: "ms-icon", "aria-label": `${title}: remove ${place}`, title: "Remove this input",
    onclick: () => desk.edit(null, () => removeInput(stage, k), { rebuild: true, focus: `s${index}-in${Math.max(0, k - 1)}` }) }, "×");
  return h("div", { class: "ms-row ms-input" }, h("span", { class: "ms-label ms-place" }, place), swatch(desk.colour(model)), select, other, drop);
}
