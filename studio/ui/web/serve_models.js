// The models to choose from: finished merges, sources of the recipe, and any other.
// desk: { kept, changed(), add(model), drop(model) }
function modelList(desk) {
  const list = h("div", { class: "ms-choices", role: "group", "aria-label": "Models to serve" });
  const field = h("input", { class: "ms-text", type: "text", spellcheck: "false", autocomplete: "off", "aria-label": "Folder or Hub id", placeholder: "Folder, or Hub id: owner/name", maxlength: 500 });
  const form = h("form", { class: "ms-row ms-act", onsubmit: (event) => {
    event.preventDefault();
    const model = field.value.trim();
    if (!model) return;
    field.value = "";
    desk.add(model);
  } }, field, h("button", { type: "submit", class: "ms-button" }, "Add"));
  const told = h("div", { "aria-live": "polite" });
  const element = h("section", { class: "ms-card", "aria-label": "Models" }, h("h2", {}, "Models"), list, form, told);
  let shown = "";

  function show(found) {
    if (found.error) { told.replaceChildren(alertBox(found.error)); return; }
    told.replaceChildren();
    const key = JSON.stringify([found.models, desk.kept.added]);
    list.querySelectorAll("[data-model]").forEach((box) => { box.checked = desk.kept.chosen.includes(box.dataset.model); });
    if (key === shown) return;
    shown = key;
    list.replaceChildren(...found.models.map(choice));
    if (!found.models.length) list.replaceChildren(h("p", { class: "ms-hint" }, "No merge and no recipe yet. Add a model's folder or Hub id below."));
  }
  function choice(entry) {
    const box = h("input", { type: "checkbox", "data-model": entry.model, onchange: () => {
      desk.kept.chosen = desk.kept.chosen.filter((model) => model !== entry.model);
      if (box.checked) desk.kept.chosen.push(entry.model);
      desk.changed();
    } });
    box.checked = desk.kept.chosen.includes(entry.model);
    const drop = desk.kept.added.includes(entry.model)
      && h("button", { type: "button", class: "ms-icon", "aria-label": `Remove ${entry.label} from the list`, onclick: () => desk.drop(entry.model) }, "×");
    return h("div", { class: "ms-choice" },
      h("label", {}, box, h("span", { class: "ms-choice-text" },
        h("strong", {}, entry.label),
        h("span", { class: "ms-hint" }, [entry.kind, entry.here ? null : "not on this machine", formatWords(entry)].filter(Boolean).join(" · ")),
        entry.problem && h("span", { class: "ms-error" }, entry.problem),
        entry.model !== entry.label && h("code", { class: "ms-soft" }, entry.model))),
      drop);
  }
  return { element, show };
}

const formatWords = (entry) => {
  if (!entry.format) return entry.problem ? null : "prompt format: to be chosen";
  return entry.format.name === "own" ? "prompts in its own format" : `prompts in ${entry.format.name}`;
};
