// A line of the curve in figures: a field for every anchor, its filter, and what can be done with it.
function numberField(options) { // { key, label, value(), placeholder?(), set(value|null) }
  const field = h("input", { type: "number", step: "0.01", inputmode: "decimal", class: "ms-field",
                             "data-key": options.key, "aria-label": options.label, autocomplete: "off" });
  const show = () => {
    const hint = options.placeholder?.();
    if (hint !== undefined && field.placeholder !== hint) field.placeholder = hint;
    const value = options.value();
    const text = value === null ? "" : number(value);
    if (field.value !== text && document.activeElement !== field) field.value = text;
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

function lineBlock(line, name, desk) {
  const { rule, key, spans } = line;
  const beyond = h("p", { class: "ms-hint", hidden: true }, "Outside 0 … 1: extrapolates beyond an input.");
  const cells = rule.anchors.map((_, k) => {
    const where = anchorTitle(rule.anchors, spans[0], k);
    const { field, show } = numberField({
      key: `${key}-field-${k}`, label: `${line.title}, ${where}, ${name}, exact value`,
      value: () => rule.anchors[k],
      set: (value) => desk.edit(`${key}-${k}`, () => { rule.anchors[k] = value; }),
    });
    const drop = rule.anchors.length > 1 && h("button", {
      type: "button", class: "ms-icon", "aria-label": `Remove the anchor at ${where} of ${line.title}`, title: "Remove this anchor",
      onclick: () => changeCount(line, desk, "field", k, (each) => each.anchors.splice(k, 1)),
    }, "×");
    return { show, element: h("div", { class: "ms-cell" }, h("span", { class: "ms-label" }, where), h("span", { class: "ms-pair" }, field, drop)) };
  });
  return {
    element: h("div", { class: "ms-rule" },
      (rule.filter !== null || line.count > 1) && ruleHead(line, desk),
      h("div", { class: "ms-cells" }, cells.map((cell) => cell.element)), lineTools(line, desk), beyond),
    refresh() {
      cells.forEach((cell) => cell.show());
      beyond.hidden = !(name === "t" && rule.anchors.some((value) => value < 0 || value > 1));
    },
  };
}

// Which tensors the line is for, and its turn: the first rule that matches a tensor wins.
function ruleHead(line, desk) {
  const { rule, rules, key, order, count } = line;
  const mark = h("span", { class: "ms-order", style: `background:${line.colour || "var(--ms-ink)"}`, title: `Rule ${order + 1} of ${count}: the first match wins` }, order + 1);
  if (rule.filter === null) return h("div", { class: "ms-row ms-rule-head" }, mark, h("span", { class: "ms-label" }, order ? "All other tensors" : "All tensors: the rules below never apply"));
  const field = h("input", { type: "text", class: "ms-text", "data-key": `${key}-filter`, "aria-label": `${line.title}: part of the tensors’ names`, spellcheck: "false", autocomplete: "off", maxlength: 200 });
  field.value = rule.filter;
  field.addEventListener("change", () => {
    const text = field.value.trim();
    if (!text || rules.some((other) => other !== rule && other.filter === text)) { field.value = rule.filter; desk.tell(text ? `Another rule here is for “${text}”.` : "A filter is a part of the tensors’ names."); return; }
    desk.edit(null, () => { rule.filter = text; }, { rebuild: true, focus: `${key}-filter` });
  });
  const act = (text, words, change, focus, off) => h("button", { type: "button", class: "ms-icon", "aria-label": `${line.title}: ${words}`, title: words, disabled: off,
    onclick: () => desk.edit(null, change, { rebuild: true, focus }) }, text);
  const base = key.slice(0, key.lastIndexOf("-r"));
  return h("div", { class: "ms-row ms-rule-head" }, mark,
    h("label", { class: "ms-row ms-filter" }, h("span", { class: "ms-label" }, "Tensor names with"), field),
    act("↑", "ask this rule earlier", () => moveRule(rules, rule, -1), `${base}-r${order - 1}-filter`, order === 0),
    act("↓", "ask this rule later", () => moveRule(rules, rule, 1), `${base}-r${order + 1}-filter`, order === count - 1),
    act("×", "remove this rule", () => rules.splice(rules.indexOf(rule), 1), `${base}-r0-field-0`));
}

// A select that acts like a menu: it does what is chosen and shows its name again.
function menu(label, title, choices, choose) {
  const select = h("select", { class: "ms-select ms-menu", "aria-label": label, title,
    onchange: () => { const chosen = select.value; select.value = ""; if (chosen !== "") choose(chosen); } },
  h("option", { value: "" }, title), choices.map(([value, text]) => h("option", { value }, text)));
  return select;
}
function lineTools(line, desk) {
  const { rule, rules, key, order, count } = line;
  const set = (anchors) => desk.edit(null, () => { rule.anchors = anchors; }, { rebuild: true, focus: `${key}-field-0` });
  const others = gradientsOf(desk.recipe(), desk.stageTitle).filter((each) => each.rule !== rule);
  const base = key.slice(0, key.lastIndexOf("-r"));
  const isLast = order === count - 1;
  return h("div", { class: "ms-tools" },
    h("button", {
      type: "button", class: "ms-button ms-small", "data-key": `${key}-add`, "aria-label": `Add an anchor to ${line.title}`,
      title: "One anchor more, spread evenly along the same curve", disabled: rule.anchors.length >= MOST_ANCHORS,
      onclick: () => { changeCount(line, desk, "field", 0, addAnchor); desk.focus(`${key}-add`); },
    }, "+ Anchor"),
    menu(`Shape of ${line.title}`, "Shape", Object.entries(SHAPES), (shape) => set(shaped(rule.anchors, shape))),
    others.length > 0 && menu(`Copy another gradient to ${line.title}`, "Copy from", others.map((each, k) => [String(k), each.title]), (k) => set([...others[k].rule.anchors])),
    isLast && menu(`Add a rule for some tensors to ${line.title}`, "+ Rule", Object.entries(MODULES), (filter) => {
      desk.edit(null, () => addRule(rules, filter), { rebuild: true, focus: `${base}-r0-${filter === "q_proj" ? "filter" : "point-0"}` });
      desk.tell("Each tensor takes the first rule whose word is in its name; the new rule comes first.");
    }));
}
