// The prompt format: which one, rendered as it is sent, and edited.
// desk: { model(), system(), text(), formats(), changed() }
function formatForm(desk) {
  const pick = h("select", { class: "ms-select", "aria-label": "Prompt format", onchange: () => { wanted = pick.value ? { name: pick.value } : {}; render(); } });
  const why = h("p", { class: "ms-hint" });
  const warn = h("div", { "aria-live": "polite" });
  const sent = h("pre", { class: "ms-sent", tabindex: 0, "aria-label": "The prompt as it is sent" });
  const template = h("textarea", { class: "ms-text ms-area ms-code", rows: 8, spellcheck: "false", "aria-label": "Template, in Jinja" });
  const stops = h("textarea", { class: "ms-text ms-area", rows: 2, spellcheck: "false", "aria-label": "Stop strings of the format, one a line" });
  const button = (text, action) => h("button", { type: "button", class: "ms-button ms-small", onclick: action }, text);
  const editor = h("details", { class: "ms-details" }, h("summary", {}, "Edit the template"), template,
    labelled("Stop strings, one a line", stops),
    h("div", { class: "ms-row" }, button("Use", () => use()), button("Save for this model", () => save(false)), button("Back to what was found", () => save(true))));
  const element = h("details", { class: "ms-details", ontoggle: () => { if (element.open) render(); } }, h("summary", {}, "Prompt format"),
    h("div", { class: "ms-row" }, pick), why, warn, sent, editor);
  let wanted = {}, model = null, round = 0;

  function refresh() {
    if (model !== desk.model()) { model = desk.model(); wanted = {}; }
    const options = ["", "own", ...desk.formats()];
    if (pick.options.length !== options.length + (wanted.name === "edited")) {
      pick.replaceChildren(...options.map((each) => h("option", { value: each }, each || "the model's")), ...(wanted.name === "edited" ? [h("option", { value: "edited" }, "edited")] : []));
    }
    pick.value = wanted.name || "";
    render();
  }
  async function render() {
    if (!model) return;
    const now = ++round;
    const found = await ask("show_prompt", { model, format: wanted, system: desk.system(), text: desk.text() });
    if (now !== round) return;
    if (found.error) { warn.replaceChildren(alertBox(found.error)); sent.textContent = ""; why.textContent = ""; element.open = true; return; }
    why.textContent = `${found.format.name}: ${found.format.why}. Answers end before ${found.format.stop.map((each) => `“${each}”`).join(" or ") || "nothing but the end token"}.${found.tokens ? ` ${found.tokens} tokens.` : ""}`;
    warn.replaceChildren(...(found.warnings.length ? [h("ul", { class: "ms-warn" }, found.warnings.map((line) => h("li", {}, line)))] : []));
    sent.textContent = found.text;
    if (document.activeElement !== template && document.activeElement !== stops) {
      template.value = found.format.template;
      stops.value = found.format.stop.join("\n");
    }
  }
  const asEdited = () => ({ name: "edited", template: template.value, stop: stops.value.split("\n").filter(Boolean) });
  function use() { wanted = asEdited(); refresh(); }
  async function save(forget) {
    const found = await ask("keep_format", { model, format: asEdited(), forget });
    if (found.error) { warn.replaceChildren(alertBox(found.error)); return; }
    wanted = {};
    refresh();
    desk.changed();
  }
  return { element, refresh, render, wanted: () => wanted };
}
