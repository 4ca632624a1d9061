// Sampling: presets, every parameter, and presets of one's own.
const PARAMETERS = [["temperature", "Temperature", 0.05], ["top_p", "top_p", 0.01], ["top_k", "top_k", 1], ["min_p", "min_p", 0.01], ["repetition_penalty", "Repetition penalty", 0.01],
  ["presence_penalty", "Presence penalty", 0.1], ["frequency_penalty", "Frequency penalty", 0.1], ["max_tokens", "Longest answer, tokens", 1], ["seed", "Seed", 1]];

// desk: { kept, keep() }: kept.sampling is the present one, kept.preset its name or "".
function samplingForm(desk) {
  const preset = h("select", { class: "ms-select", "aria-label": "Sampling preset", onchange: () => choose(preset.value) });
  const fields = new Map(PARAMETERS.map(([name, , step]) => [name, h("input", { type: "number", class: "ms-field", step, onchange: () => edit() })]));
  const stops = h("textarea", { class: "ms-text ms-area", rows: 2, spellcheck: "false", onchange: () => edit() });
  const name = h("input", { class: "ms-text", type: "text", maxlength: 40, "aria-label": "Name of the preset", placeholder: "Name of the preset" });
  const saveButton = h("button", { type: "button", class: "ms-button ms-small", onclick: () => save() }, "Save preset");
  const forgetButton = h("button", { type: "button", class: "ms-button ms-small", onclick: () => save(true) }, "Forget preset");
  const told = h("div", { "aria-live": "polite" });
  const grid = h("div", { class: "ms-settings" }, PARAMETERS.map(([key, text]) => labelled(text, fields.get(key))), labelled("Stop strings, one a line", stops));
  const element = h("details", { class: "ms-details" }, h("summary", {}, "Sampling: every parameter"), grid, h("div", { class: "ms-row" }, name, saveButton, forgetButton), told);
  let known = { presets: {}, shipped: [], ranges: {} };

  async function open() { // whether the presets are there now
    const found = await ask("sampling", {});
    told.replaceChildren(...(found.error ? [alertBox(found.error)] : []));
    if (found.error) return false;
    adopt(found);
    if (!desk.kept.sampling) choose(desk.kept.preset || "careful");
    else fill();
    return true;
  }
  function adopt(found) {
    known = found;
    for (const [key, words] of Object.entries(found.ranges)) fields.get(key)?.setAttribute("title", words);
    preset.replaceChildren(h("option", { value: "" }, "edited"), ...Object.keys(found.presets).map((each) => h("option", { value: each }, each)));
    preset.value = desk.kept.preset || "";
  }
  function choose(which) {
    if (!known.presets[which]) { preset.value = desk.kept.preset || ""; return; }
    desk.kept.preset = which;
    const seed = desk.kept.sampling?.seed ?? 0;
    desk.kept.sampling = { ...known.presets[which], seed };
    fill();
    desk.keep();
  }
  function fill() {
    for (const [key, field] of fields) field.value = desk.kept.sampling[key];
    stops.value = desk.kept.sampling.stop.join("\n");
    preset.value = desk.kept.preset || "";
    forgetButton.disabled = !desk.kept.preset || known.shipped.includes(desk.kept.preset);
  }
  function edit() {
    const sampling = Object.fromEntries([...fields].map(([key, field]) => [key, field.value === "" ? null : Number(field.value)]));
    desk.kept.sampling = { ...sampling, stop: stops.value.split("\n").filter(Boolean) };
    const base = known.presets[desk.kept.preset];
    const same = base && Object.keys(base).every((key) => key === "seed" || JSON.stringify(base[key]) === JSON.stringify(desk.kept.sampling[key]));
    if (!same) desk.kept.preset = "";
    preset.value = desk.kept.preset;
    forgetButton.disabled = !desk.kept.preset || known.shipped.includes(desk.kept.preset);
    desk.keep();
  }
  async function save(forget = false) {
    const which = forget ? desk.kept.preset : name.value.trim();
    const found = await ask("keep_preset", { name: which, sampling: desk.kept.sampling, forget });
    if (found.error) { told.replaceChildren(alertBox(found.error)); return; }
    told.replaceChildren();
    name.value = "";
    desk.kept.preset = forget ? "" : which;
    adopt(found);
    fill();
    desk.keep();
  }
  function nextSeed() { // another answer wants other luck
    if (!desk.kept.sampling) return;
    desk.kept.sampling.seed += 1;
    fill();
    desk.keep();
  }
  return { element, preset, open, nextSeed, formats: () => known.formats || [] };
}
