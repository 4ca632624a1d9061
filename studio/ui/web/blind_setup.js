// Setting up a trial: models, prompts, and what the trial can find, told before anything is decided.
// desk: { isDemo, model: the first one's folder or null, leave(), taken() }
const FORMATS = [["", "the model's"], ["own", "own"], ["edited", "edited in Serve"], ["alpaca", "Alpaca"], ["chatml", "ChatML"], ["llama-2", "Llama 2"], ["llama3", "Llama 3"], ["mistral", "Mistral"], ["vicuna", "Vicuna"]];
const ENGINES = [["", "vLLM where it is installed"], ["embedded", "embedded: for small models"], ["vllm", "vLLM"]];
const REVEALS = [["end", "when a rater has rated everything"], ["each", "after each vote"]];
const DEMO_PAIR = ["demo-instruct", "demo-roleplay"], DEMO_KINDS = ["story", "roleplay"], MOST_MODELS = 8;
const optionsOf = (pairs) => pairs.map(([value, name]) => h("option", { value }, name));

function setupView(desk) {
  let models = [], round = 0, timer = 0, serial = 0, isChosen = false;
  const trouble = h("div", { "aria-live": "assertive" });
  const say = (problem) => trouble.replaceChildren(problem ? alertBox(problem) : "");
  const told = h("div", { class: "bl-plan", "aria-live": "polite" }, h("p", { class: "ms-hint" }, "Choose models and prompts first."));
  const text = (id, more) => h("input", { type: "text", class: "ms-text", id, autocomplete: "off", spellcheck: "false", oninput: plan, ...more });
  const count = (id, value, min, max, step = 1) => h("input", { type: "number", class: "ms-field", id, value, min, max, step, oninput: plan });
  const pick = (id, options) => h("select", { class: "ms-select", id, onchange: plan }, optionsOf(options));

  const prompts = promptList({ changed: plan });
  const name = text("bl-trial-name", { maxlength: 63, value: freeTrialName(desk.taken()) });
  const project = text("bl-project", { maxlength: 63, value: "default" });
  const rows = h("div", { class: "bl-models" });
  const compare = pick("bl-compare", [["merged", "the first against each other one"], ["all", "every pair"], ["primary", "only the first two"]]);
  const sampling = pick("bl-sampling", []), reveal = pick("bl-reveal", REVEALS);
  const draws = count("bl-draws", 3, 1, 20), votes = count("bl-votes", 1, 1, 50), raters = count("bl-raters", 1, 1, 100);
  const expect = count("bl-expect", 65, 51, 99), ties = count("bl-ties", 30, 0, 90), scores = text("bl-scores", { placeholder: "none", maxlength: 120 });
  const engine = pick("bl-engine", ENGINES), gpus = count("bl-gpus", 1, 1, 64), price = h("input", { type: "number", class: "ms-field", id: "bl-price", min: 0, step: "any", placeholder: "none" });
  const alpha = count("bl-alpha", 5, 0, 20, 0.5), early = earlyField();
  const overlap = count("bl-overlap", 25, 0, 100), repeats = count("bl-repeats", 5, 0, 50), identical = count("bl-identical", 5, 0, 50);
  const excluded = exclusionFields(), compareField = fieldOf("Shown to raters", compare);
  compareField.hidden = true;
  const create = h("button", { type: "submit", class: "ms-button ms-primary", disabled: true }, "Create the trial");

  // ---- models ---------------------------------------------------------------------------------
  function modelRow(index) {
    const title = ["The model that should be better", "Compared with"][index] || "Also compared with", id = serial++;
    const other = text(`bl-other-${id}`, { class: "ms-text", hidden: true, "aria-label": "Folder, Hub id or endpoint", placeholder: "folder, Hub id or endpoint", oninput: () => { putName(); plan(); } });
    const known = h("select", { class: "ms-select", id: `bl-model-${id}`, onchange: () => { isChosen ||= index > 0; choose(known.value); if (index === 0) followFirst(); plan(); } }, kindsOf(models), h("option", { value: "" }, "Another …"));
    const label = text(`bl-label-${id}`, { maxlength: 96 });
    label.addEventListener("input", () => { label.dataset.own = label.value ? "1" : ""; });
    const format = pick(`bl-format-${id}`, FORMATS);
    const entry = () => models.find((model) => model.label === known.value);
    const putName = () => { if (!label.dataset.own) label.value = entry()?.label ?? labelFor(other.value); };
    const choose = (wanted) => { known.value = wanted; other.hidden = Boolean(entry()); putName(); };
    const drop = index > 1 && h("button", { type: "button", class: "ms-icon", "aria-label": "Leave this model out", onclick: () => { isChosen = true; row.remove(); plan(); } }, "×");
    const row = h("div", { class: "bl-model" }, h("label", { class: "ms-label", for: known.id }, title), h("div", { class: "bl-model-line" }, known, drop), other,
      h("details", { class: "ms-details" }, h("summary", {}, "Label and prompt format"), h("div", { class: "ms-row bl-numbers" }, fieldOf("Label in the results", label), fieldOf("Prompt format", format))));
    row.read = () => ({ label: label.value.trim(), source: entry()?.source ?? other.value.trim(), prompt_format: format.value || null });
    row.set = (wanted) => { if (wanted.source !== undefined) other.value = wanted.source; choose(wanted.label ?? ""); };
    row.entry = entry;
    return row;
  }
  function kindsOf(all) {
    const title = { "finished merge": "Finished merges", "demo model": "Demo models", "source of a merge": "Sources of merges" };
    return Object.entries(title).map(([kind, label]) => {
      const some = all.filter((model) => model.kind === kind);
      return some.length > 0 && h("optgroup", { label }, some.map((model) => h("option", { value: model.label }, model.label)));
    });
  }
  const labelFor = (source) => source.replace(/\/+$/, "").split("/").pop().replace(/[^A-Za-z0-9 ._@:+()-]/g, "-").slice(0, 60);
  function showModels(wanted) { // each a known one by its label, or another by its source
    rows.replaceChildren(...wanted.slice(0, MOST_MODELS).map((_, index) => modelRow(index)));
    wanted.slice(0, MOST_MODELS).forEach((each, index) => rows.children[index].set(each));
  }
  const withSources = (first) => [first, ...first.sources.map((label) => ({ label }))];
  function followFirst() { // a merge is compared with its own sources, unless others were chosen
    const first = rows.children[0].entry();
    if (isChosen || !first?.sources.length) return;
    const format = rows.children[0].read().prompt_format;
    showModels(withSources(first));
    rows.children[0].querySelector("[id^=bl-format]").value = format ?? "";
  }
  function firstChoice() {
    const pair = DEMO_PAIR.map((label) => models.find((model) => model.label === label)).filter(Boolean);
    const wished = desk.model && (models.find((model) => model.source === desk.model) ?? { source: desk.model, sources: [] });
    const first = wished || (!desk.isDemo && models.find((model) => model.sources.length));
    if (first && first.sources.length) return withSources(first);
    if (first) return [first, pair[0] ?? {}];
    return pair.length === 2 ? pair : [models[0] ?? {}, models[1] ?? {}];
  }

  // ---- the plan -------------------------------------------------------------------------------
  function design() {
    const chosen = [...rows.children].map((row) => row.read());
    return {
      ...prompts.read(), name: name.value.trim(), project: project.value.trim(), models: chosen, primary: chosen.slice(0, 2).map((model) => model.label),
      compare: chosen.length > 2 ? compare.value : "primary",
      sampling: sampling.value, draws: Number(draws.value), votes_per_prompt: Number(votes.value), raters: Number(raters.value), reveal: reveal.value,
      scores: scores.value.split(",").map((each) => each.trim()).filter(Boolean), expect: Number(expect.value) / 100, expect_ties: Number(ties.value) / 100,
      alpha: Number(alpha.value) / 100, exclusions: excluded.read(), stop_early: early.read(),
      overlap: Number(overlap.value) / 100, repeats: Number(repeats.value) / 100, identical: Number(identical.value) / 100,
    };
  }
  function plan() { clearTimeout(timer); timer = setTimeout(planNow, 250); }
  async function planNow() {
    compareField.hidden = rows.children.length < 3;
    const mine = ++round, wish = design();
    if (wish.models.some((model) => !model.source) || !wish.prompts.length) return;
    const found = await ask("plan", { design: wish });
    if (mine !== round) return;
    told.replaceChildren(...(found.error ? [h("p", { class: "ms-hint ms-error" }, found.error)] : planView(found, wish)));
  }
  function planView(found, wish) {
    const [first, rival] = found.pairs[0], more = found.pairs.length - 1;
    const mend = (problem, ...buttons) => h("div", { class: "ms-row" }, h("p", { class: "ms-hint ms-error" }, problem), buttons.map(([text, action]) => h("button", { type: "button", class: "ms-button ms-small", onclick: action }, text)));
    const explore = ["Only explore", () => { alpha.value = 0; prompts.useOpen(); planNow(); }];
    return [
      h("p", { class: "bl-sentence" }, sentenceCase(found.sentence) + "."),
      found.scope && h("p", {}, found.scope + "."),
      desk.isDemo && h("p", {}, "A first try of a few minutes: it shows how a trial goes, and is too small to settle much."),
      h("p", { class: "ms-hint" }, `The question: is ${first} better than ${rival}?${more ? ` ${more} more comparison${more > 1 ? "s are" : " is"} described beside it.` : ""} ${found.answers} answers to make. ${found.workload}`),
      wish.draws < 3 && h("p", { class: "ms-hint" }, `An answer is luck: with ${wish.draws === 1 ? "one answer" : "two answers"} to each prompt, so is a part of the result. A verdict needs at least 3.`),
      wish.alpha > found.left + 1e-9 && mend(`Of the ${number(100 * found.budget)} % of errors that all trials of the project "${wish.project}" share, ${number(100 * found.left)} % are left. Name another project in the settings for other prompts, or claim nothing.`, explore),
      wish.alpha > 0 && found.seen > 0 && !wish.seen_prompts && mend(`${found.seen} of the prompts were seen before, by tuning or by an earlier verdict.`, ["Use them all the same", prompts.useSeen], explore),
      wish.alpha === 0 && found.sealed > 0 && wish.sealed !== true && mend(`${found.sealed} of the prompts are sealed, which is for verdicts: exploring burns them.`, ["Only the open ones", prompts.useOpen]),
    ].filter(Boolean);
  }
  async function start(event) {
    event.preventDefault();
    create.disabled = true;
    say("");
    const made = await ask("create", { design: design() });
    if (made.error) { say(made.error); create.disabled = false; return; }
    await ask("generate", { trial: made.name, engine: engine.value, gpus: Number(gpus.value), price: price.value ? Number(price.value) : null }); // what is in its way is told in the list
    desk.leave();
  }
  const sentenceCase = (words) => words.charAt(0).toUpperCase() + words.slice(1);
  const card = (title, ...children) => h("section", { class: "ms-card" }, h("h3", {}, title), children);
  const numbers = (title, ...fields) => [h("h4", {}, title), h("div", { class: "ms-row bl-numbers" }, fields)];
  const addModel = () => { isChosen = true; if (rows.children.length < MOST_MODELS) rows.append(modelRow(rows.children.length)); rows.lastChild.set({ label: models[0]?.label }); planNow(); };
  const settings = h("details", { class: "ms-card bl-settings" }, h("summary", {}, "Settings: votes, answers, which votes count"), h("div", { class: "bl-folded" },
    numbers("The test", fieldOf("Error rate, %", alpha), fieldOf("Project", project), fieldOf("True preference, %", expect), fieldOf("Share of ties, %", ties)),
    h("p", { class: "ms-hint" }, "Trying twenty merges and reporting the best one finds a winner by luck half the time: all trials of a project share 5 % of errors. An error rate of 0 explores and claims nothing."), early.element,
    numbers("Votes", fieldOf("Raters", raters), fieldOf("Votes per prompt", votes), fieldOf("Models are shown", reveal), fieldOf("Scores from 1 to 5", scores, "Names with commas between; off when empty.")), excluded.element,
    numbers("How raters are measured", fieldOf("Prompts shared by raters, %", overlap, "On these, several raters judge the very same answers."), fieldOf("Shown again, %", repeats, "Sides swapped; counts for nothing else."), fieldOf("One answer on both sides, %", identical, "Should be a tie; counts for nothing else.")),
    numbers("Answers", fieldOf("Sampling", sampling), fieldOf("Answers per prompt", draws, "An answer is luck: at least 3 for a verdict; fewer only to explore."), fieldOf("Engine", engine), fieldOf("GPUs per model", gpus), fieldOf("Price per hour", price, "Of the machine: tells what the answers cost."))));
  const form = h("form", { class: "bl-setup", onsubmit: start },
    h("div", { class: "ms-row" }, h("button", { type: "button", class: "ms-button ms-small", onclick: () => desk.leave() }, "‹ Trials"), h("h2", {}, "A new trial")),
    card("Models", rows, h("div", { class: "ms-row" }, h("button", { type: "button", class: "ms-button ms-small", onclick: addModel }, "Add a model")), compareField),
    prompts.element, card("What it can find", told), settings,
    card("Create it", fieldOf("Name of the trial", name, "Raters see this name. Small letters, digits and dashes."), trouble,
      h("div", { class: "ms-row" }, create, h("p", { class: "ms-hint bl-then" }, "Its answers are made next. Models, prompts and numbers stay as they are from now on, so that nothing can be bent to the result."))));

  // What shows within minutes how a trial goes, and spends nothing of a project's errors.
  function demonstrate() {
    name.value = freeTrialName(desk.taken(), "demo");
    engine.value = "embedded";
    [draws.value, alpha.value, project.value] = [1, 0, "demo"];
    prompts.useOpen();
    prompts.onlyOf(DEMO_KINDS);
  }
  ask("choices", {}).then((found) => {
    if (found.error) { say(found.error); return; }
    models = found.models;
    prompts.show(found.prompts);
    sampling.replaceChildren(...optionsOf(Object.keys(found.presets).map((preset) => [preset, preset])));
    sampling.value = "careful";
    showModels(firstChoice());
    if (desk.isDemo) demonstrate();
    create.disabled = false;
    planNow();
  });
  return { element: form, close: () => clearTimeout(timer) };
}

function freeTrialName(taken, stem = `trial-${new Date().toISOString().slice(0, 10)}`) {
  let name = stem;
  for (let n = 2; taken.includes(name); n += 1) name = `${stem}-${n}`;
  return name;
}
