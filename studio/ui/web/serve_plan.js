// The plan: what fits on which GPUs, why, what it costs, and what to type for several machines.
const GIB = 1024 ** 3;
const gib = (count) => count >= 0.1 * GIB ? `${(count / GIB).toFixed(1)} GiB` : `${(count / 1024 ** 2).toFixed(1)} MiB`;
const PARTS = [["weights", "weights", "var(--ms-c0)"], ["kv", "KV cache", "var(--ms-c2)"], ["overhead", "activations and context", "var(--ms-c1)"], ["reserve", "left free", "var(--ms-line)"]];
const QUANTISATIONS = [["none", "as stored"], ["fp8_per_tensor", "fp8, one scale a matrix"], ["fp8_per_channel", "fp8, one scale a row"], ["fp8_per_block", "fp8, in blocks"], ["mxfp8", "mxfp8 (Blackwell)"], ["mxfp4", "mxfp4 (Blackwell)"]];

function labelled(text, field, hint) {
  return h("label", { class: "ms-labelled" }, h("span", { class: "ms-label" }, text), field, hint && h("span", { class: "ms-hint" }, hint));
}
function choiceField(options, value, change) {
  const field = h("select", { class: "ms-select", onchange: () => change(field.value) }, options.map(([id, text]) => h("option", { value: id }, text)));
  field.value = value;
  return field;
}
function numberField(value, change, more) {
  return h("input", { type: "number", class: "ms-field", value: value ?? "", placeholder: "auto", ...more, onchange: (event) => change(event.target.value === "" ? null : Number(event.target.value)) });
}

// desk: { kept, changed(), start(only), engineKinds(), engineKind(), isBusy() }
function planPanel(desk) {
  const kept = desk.kept, wish = kept.wish, rates = kept.rates;
  const set = (where, name) => (value) => { if (value === null) delete where[name]; else where[name] = value; desk.changed(); };
  const gpus = h("input", { class: "ms-text", type: "text", value: kept.gpus, placeholder: "this machine", spellcheck: "false", onchange: () => { kept.gpus = gpus.value.trim(); desk.changed(); } });
  const price = (name, more) => numberField(rates[name], set(rates, name), { min: 0, step: "any", placeholder: "0", ...more });
  const fields = h("div", { class: "ms-settings" },
    labelled("GPUs", gpus, "or what if: 4x80, 2xA100, cpu"),
    labelled("Context, tokens", numberField(wish.length, set(wish, "length"), { min: 1, placeholder: "4096" })),
    labelled("Requests at once", numberField(wish.requests, set(wish, "requests"), { min: 1, placeholder: "8" })),
    labelled("Quantisation", choiceField(QUANTISATIONS, wish.quantisation || "none", set(wish, "quantisation"))));
  const more = h("details", { class: "ms-details" }, h("summary", {}, "More: parallel sizes, cache, idle time, prices"), h("div", { class: "ms-settings" },
    labelled("Tensor parallel", numberField(wish.tp, set(wish, "tp"), { min: 1 })),
    labelled("Pipeline", numberField(wish.pp, set(wish, "pp"), { min: 1 })),
    labelled("KV cache", choiceField([["auto", "as the model"], ["fp8", "fp8"]], wish.kv_cache || "auto", set(wish, "kv_cache"))),
    labelled("GPU memory to use", numberField(wish.utilisation, set(wish, "utilisation"), { min: 0.1, max: 1, step: 0.01, placeholder: "0.92" })),
    labelled("Answers wanted of each", numberField(kept.prompts, (value) => { kept.prompts = value; desk.changed(); }, { min: 0, placeholder: "0" })),
    labelled("Merge them first", choiceField([["", "no"], ["yes", "yes, count it"]], kept.merge ? "yes" : "", (value) => { kept.merge = value === "yes"; desk.changed(); })),
    labelled("Stop when idle, minutes", numberField(kept.idle, (value) => { kept.idle = value; desk.changed(); }, { min: 1, placeholder: "never" })),
    labelled("GPU machine, an hour", price("gpu_hour")),
    labelled("CPU machine, an hour", price("cpu_hour")),
    labelled("Download, MB/s", numberField(rates.download && rates.download / 1e6, (value) => set(rates, "download")(value === null ? null : value * 1e6), { min: 1, placeholder: "100" })),
    labelled("Disk, MB/s", numberField(rates.disk && rates.disk / 1e6, (value) => set(rates, "disk")(value === null ? null : value * 1e6), { min: 1, placeholder: "1000" })),
    labelled("Tokens/s, measured", numberField(rates.tokens, set(rates, "tokens"), { min: 0, step: "any", placeholder: "estimated" }))));
  const body = h("div", { class: "ms-plan", "aria-live": "polite" });
  const startBox = h("div", { class: "ms-row ms-act" });
  const told = h("div", { "aria-live": "polite" });
  const element = h("section", { class: "ms-card", "aria-label": "Plan" }, h("h2", {}, "Plan"), fields, more, body, startBox, told);
  let plan = null;

  function show(found) {
    plan = found && !found.error ? found : null;
    if (!found) body.replaceChildren(h("p", { class: "ms-hint" }, "Choose one or more models: the plan says what fits, before anything is started."));
    else if (found.error) body.replaceChildren(alertBox(found.error));
    else body.replaceChildren(...planView(found));
    refresh();
  }
  function refresh() {
    if (!plan || plan.arrangement === "impossible") { startBox.replaceChildren(); return; }
    if (plan.imagined) { startBox.replaceChildren(h("p", { class: "ms-hint" }, "A plan for other hardware. Clear the GPUs field to plan for this machine and start.")); return; }
    const kind = choiceField(desk.engineKinds(), desk.engineKind(), (value) => { kept.engine = value; desk.changed(); });
    kind.setAttribute("aria-label", "Engine");
    const first = plan.models[0], together = plan.arrangement === "side by side" && plan.models.length > 1;
    const go = (text, only, primary) => h("button", { type: "button", class: `ms-button${primary ? " ms-primary" : ""}`, disabled: desk.isBusy(), onclick: () => desk.start(only) }, text);
    const buttons = plan.arrangement === "one at a time"
      ? plan.models.map((model) => go(`Start ${shortOf(model.label)}`, [model.label], model === first))
      : [go(together ? `Start ${plan.models.length === 2 ? "both" : "all"}` : `Start ${shortOf(first.label)}`, null, true)];
    startBox.replaceChildren(kind, ...buttons);
  }
  return { element, show, refresh, tell: (error) => told.replaceChildren(...(error ? [alertBox(error)] : [])) };
}

const upper = (line) => (/^(no|both|all|as|tensor|side|their|together|there|tight|these|a|the)\b/.test(line) ? line[0].toUpperCase() + line.slice(1) : line);
const count = (parameters) => (parameters >= 1e8 ? `${(parameters / 1e9).toPrecision(3)}B` : `${(parameters / 1e6).toPrecision(3)}M`);
const inWords = (indices) => (indices.length > 1 && indices.at(-1) - indices[0] === indices.length - 1 ? `${indices[0]}–${indices.at(-1)}` : indices.join(", "));
const shortOf = (model) => model.replace(/\/+$/, "").split("/").pop();

function planView(plan) {
  const head = { "one model": "It fits.", "side by side": "They fit side by side.", "one at a time": "They fit one at a time.", impossible: "This does not fit." }[plan.arrangement];
  const good = plan.arrangement !== "impossible";
  const hardware = plan.gpus.length
    ? `${plan.imagined ? "If there were " : ""}${plan.gpus.length} × ${plan.gpus[0].name}, ${gib(plan.memory)} each`
    : `${upper(plan.why_no_gpus)}. Planned for the processor, ${gib(plan.memory)} of memory free.`;
  return [
    h("p", { class: "ms-hint" }, hardware),
    h("p", { class: good ? "ms-good" : "ms-error" }, head),
    h("ul", { class: "ms-reasons" }, plan.why.map((line) => h("li", {}, upper(line)))),
    plan.remedies.length > 0 && h("p", {}, `Instead: ${plan.remedies.join("; or ")}.`),
    bars(plan),
    plan.warnings.length > 0 && h("ul", { class: "ms-warn" }, plan.warnings.map((line) => h("li", {}, upper(line)))),
    h("details", { class: "ms-details", open: !good }, h("summary", {}, "Every way to divide them"), tables(plan)),
    plan.several && severalView(plan.several),
    plan.costs.length > 0 && costsView(plan),
  ].filter(Boolean);
}

function bars(plan) {
  const rows = [], given = plan.models.flatMap((model) => model.gpus);
  const isShared = plan.arrangement === "side by side" && !plan.gpus.length; // one memory for all of them
  if (isShared) rows.push(bar(plan, plan.models.map((model) => model.label), inAll(plan), "memory"));
  for (const model of isShared ? [] : plan.models) {
    const row = model.chosen || model.rows.filter((each) => each.weights).at(-1);
    if (!row) continue;
    const isInTurn = plan.arrangement === "one at a time"; // then each model has the same GPUs: one bar stands for all of them
    const named = isInTurn && model.gpus.length > 1 ? [`each of GPU ${inWords(model.gpus)}`] : model.gpus.map((index) => `GPU ${index}`);
    const places = named.length ? named : [plan.gpus.length ? "each GPU" : "memory"];
    for (const place of places) rows.push(bar(plan, [model.label], row, place));
  }
  if (!rows.length) return null;
  const legend = h("ul", { class: "ms-legend" }, PARTS.map(([, text, colour]) => h("li", {}, h("span", { class: "ms-swatch", style: `background:${colour}` }), text)));
  const idle = given.length ? plan.gpus.map((gpu) => gpu.index).filter((index) => !given.includes(index)) : [];
  return h("div", { class: "ms-gpus" }, rows, idle.length > 0 && h("p", { class: "ms-hint" }, `GPU ${inWords(idle)}: not needed.`), legend);
}
function inAll(plan) {
  const sum = Object.fromEntries(PARTS.map(([name]) => [name, plan.models.reduce((whole, model) => whole + model.chosen[name], 0)]));
  return { ...sum, reserve: plan.memory - sum.weights - sum.kv - sum.overhead };
}
function bar(plan, labels, row, place) {
  const sizes = PARTS.map(([name]) => Math.max(0, row[name]));
  const whole = Math.max(plan.memory, sizes[0] + sizes[2]);
  const limit = plan.utilisation * plan.memory; // what the engine may take at most
  const words = PARTS.map(([, text], at) => `${text} ${gib(sizes[at])}`).join(", ");
  return h("div", { class: "ms-gpu" },
    h("div", { class: "ms-gpu-name" }, h("strong", {}, place), h("span", { class: "ms-soft" }, labels.map(shortOf).join(", "))),
    h("div", { class: "ms-stack", role: "img", "aria-label": `${place}: ${words}`, title: words },
      PARTS.map(([name, , colour], at) => h("div", { class: `ms-stack-${name}`, style: `width:${(100 * sizes[at]) / whole}%;background:${colour}` })),
      row.kv < 0 && h("div", { class: "ms-limit", title: `${gib(limit)} may be used`, style: `left:${(100 * limit) / whole}%` })));
}

function tables(plan) {
  const seen = new Map();
  return plan.models.map((model) => {
    const key = JSON.stringify(model.rows);
    const like = seen.get(key);
    if (!like) seen.set(key, model.label);
    const title = `${shortOf(model.label)}: ${count(model.parameters)} parameters, ${model.dtype}${model.quantisation === "none" ? "" : `, ${model.quantisation}`}`;
    if (like) return h("p", { class: "ms-hint" }, `${title}; as ${shortOf(like)}.`);
    return h("div", { class: "ms-wide-table", tabindex: 0, role: "region", "aria-label": title }, h("table", {},
      h("caption", {}, title),
      h("thead", {}, h("tr", {}, ["TP", "PP", plan.gpus.length ? "Weights/GPU" : "Weights", "KV tokens", `Requests of ${plan.length.toLocaleString("en")}`].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, model.rows.map((row) => wayRow(row, model.chosen)))));
  });
}
function wayRow(row, chosen) {
  const isChosen = chosen && row.tp === chosen.tp && row.pp === chosen.pp;
  const cells = row.refusal ? [h("td", { colspan: 3, class: "ms-soft" }, row.refusal)]
    : [h("td", {}, gib(row.weights)), h("td", {}, row.tokens.toLocaleString("en")), h("td", { class: row.fits ? null : "ms-error" }, row.fits ? Math.floor(row.requests).toLocaleString("en") : "does not fit")];
  return h("tr", { class: isChosen ? "ms-chosen" : null }, h("th", { scope: "row" }, String(row.tp), isChosen && h("span", { class: "ms-spoken" }, " (chosen)")), h("td", {}, String(row.pp)), cells);
}

function severalView(several) {
  const whole = several.commands.map((each) => `# ${each.where}\n${each.command}`).join("\n");
  return h("div", { class: "ms-several" },
    h("div", { class: "ms-row" }, h("h3", {}, `On ${several.machines} machines`), copyButton(whole, "commands")),
    h("p", { class: "ms-hint" }, `Tensor parallel ${several.row.tp} within each machine, a pipeline of ${several.row.pp} between them.`),
    h("ol", { class: "ms-commands" }, several.commands.map((each) => h("li", {}, h("span", { class: "ms-hint" }, each.where), h("code", {}, each.command)))));
}
function costsView(plan) {
  const priced = plan.costs.some((step) => step.price > 0);
  const total = plan.costs.reduce((sum, step) => sum + step.price, 0);
  return h("div", { class: "ms-several" }, h("table", {}, h("caption", {}, "Time and money, estimated"),
    h("thead", {}, h("tr", {}, ["Step", "Time", "Where", priced && "Price"].filter(Boolean).map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, plan.costs.map((step) => h("tr", {}, h("th", { scope: "row" }, step.name), h("td", {}, duration(step.seconds)), h("td", { class: "ms-soft" }, step.machine), priced && h("td", {}, step.price.toFixed(2)))))),
  priced && h("p", {}, `Together ${total.toFixed(2)}${plan.saved > 0.005 ? `; ${plan.saved.toFixed(2)} are saved by downloading and merging on a machine without GPUs` : ""}.`));
}
