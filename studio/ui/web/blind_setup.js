// Setting up a trial: what is decided before the first answer, with what it can find told first.
// desk: { isDemo, model: the first one's folder or null, leave(), taken() }
const FORMATS = [["", "the model's"], ["own", "own"], ["edited", "edited in Serve"], ["alpaca", "Alpaca"], ["chatml", "ChatML"], ["llama-2", "Llama 2"], ["llama3", "Llama 3"], ["mistral", "Mistral"], ["vicuna", "Vicuna"]];
const ENGINES = [["", "vLLM where it is installed"], ["embedded", "embedded: for small models"], ["vllm", "vLLM"]];
const SPLITS = [["", "all of them"], ["true", "only the sealed split: for a verdict"], ["false", "only the open split: for tuning"]];

function setupView(desk) {
  let choices = { prompts: [], models: [], presets: {} }, round = 0, timer = 0;
  const trouble = h("div", { "aria-live": "assertive" });
  const told = h("div", { class: "bl-plan", "aria-live": "polite" }, h("p", { class: "ms-hint" }, "Choose two models and prompts: what the trial can find is told here before anything is decided."));
  const field = (label, input, hint) => h("div", { class: "bl-field" }, h("label", { class: "ms-label", for: input.id }, label), input, hint && h("p", { class: "ms-hint" }, hint));
  const text = (id, more) => h("input", { type: "text", class: "ms-text", id, autocomplete: "off", spellcheck: "false", oninput: plan, ...more });
  const count = (id, value, min, max, step = 1) => h("input", { type: "number", class: "ms-field", id, value, min, max, step, oninput: plan });
  const pick = (id, options) => h("select", { class: "ms-select", id, onchange: plan }, options.map(([value, name]) => h("option", { value }, name)));

  const name = text("bl-trial-name", { maxlength: 63, value: freeTrialName(desk.taken()) });
  const project = text("bl-project", { maxlength: 63, value: "default" });
  const rows = h("div", { class: "bl-models" });
  const known = h("datalist", { id: "bl-known" });
  const compare = pick("bl-compare", [["merged", "the first against each other one"], ["all", "every pair"], ["primary", "only the first two"]]);
  const files = h("div", { class: "bl-files" });
  const chooser = h("input", { type: "file", accept: ".yaml,.yml,.jsonl,.csv", class: "ms-hidden", tabindex: -1, "aria-label": "Prompt file to upload", onchange: () => upload() });
  const split = pick("bl-split", SPLITS), sensitive = h("input", { type: "checkbox", id: "bl-sensitive", onchange: plan });
  const seen = h("input", { type: "checkbox", id: "bl-seen" });
  const sampling = pick("bl-sampling", []), reveal = pick("bl-reveal", [["end", "when a rater has rated everything"], ["each", "after each vote"]]);
  const draws = count("bl-draws", 3, 1, 20), votes = count("bl-votes", 1, 1, 50), raters = count("bl-raters", 1, 1, 100);
  const expect = count("bl-expect", 65, 51, 99), ties = count("bl-ties", 30, 0, 90), scores = text("bl-scores", { placeholder: "none", maxlength: 120 });
  const engine = pick("bl-engine", ENGINES), gpus = count("bl-gpus", 1, 1, 64);
  const alpha = count("bl-alpha", 5, 0, 20, 0.5);
  const fixButton = h("button", { type: "submit", class: "ms-button ms-primary" }, "Fix the design and make the answers");

  function modelRow(index) {
    const source = h("input", { class: "ms-text", list: "bl-known", id: `bl-source-${index}`, autocomplete: "off", spellcheck: "false", placeholder: "folder, Hub id or endpoint", oninput: () => { if (!label.dataset.own) label.value = labelFor(source.value); plan(); } });
    const label = text(`bl-label-${index}`, { maxlength: 96, "aria-label": `Label of model ${index + 1}`, placeholder: "label" });
    label.addEventListener("input", () => { label.dataset.own = label.value ? "1" : ""; });
    const format = pick(`bl-format-${index}`, FORMATS);
    format.setAttribute("aria-label", `Prompt format of model ${index + 1}`);
    const title = ["The model that should be better", "Its rival: the primary comparison"][index] || `Model ${index + 1}`;
    const drop = index > 1 && h("button", { type: "button", class: "ms-icon", "aria-label": `Leave out model ${index + 1}`, onclick: () => { rows.lastChild.remove(); plan(); } }, "×");
    const row = h("div", { class: "bl-model" }, h("label", { class: "ms-label", for: source.id }, title), h("div", { class: "bl-model-line" }, source, label, format, drop));
    row.read = () => ({ label: label.value.trim(), source: source.value.trim(), prompt_format: format.value || null });
    row.set = (model) => { source.value = model.source; label.value = model.label; };
    return row;
  }
  const labelFor = (source) => choices.models.find((model) => model.source === source)?.label ?? source.replace(/\/+$/, "").split("/").pop().replace(/[^A-Za-z0-9 ._@:+()-]/g, "-").slice(0, 60);

  function fileRow(about, isChosen) {
    const box = h("input", { type: "checkbox", value: about.file, checked: isChosen, disabled: Boolean(about.problem), onchange: plan });
    const total = Object.values(about.categories).reduce((sum, n) => sum + n, 0);
    const parts = Object.entries(about.categories).map(([category, n]) => h("label", { class: "bl-category" }, h("input", { type: "checkbox", checked: true, "data-category": category, onchange: plan }), `${category} (${n})`));
    return h("div", { class: "bl-file" }, h("label", { class: "bl-check" }, box, h("strong", {}, about.file), h("span", { class: "ms-soft" }, about.problem ? "" : `${total} prompts, ${about.sealed} of them sealed${about.sensitive ? `, ${about.sensitive} sensitive` : ""}`)),
      about.problem ? h("p", { class: "ms-hint ms-error" }, about.problem) : h("details", { class: "ms-details" }, h("summary", {}, "Categories"), h("div", { class: "ms-row" }, parts)));
  }
  async function upload() {
    const file = chooser.files[0];
    chooser.value = "";
    if (!file) return;
    if (file.size > 900000) { say(`${file.name} has ${bytes(file.size)}; a prompt file has at most 900 kB.`); return; }
    const answer = await ask("upload", { file: file.name, text: await file.text() });
    if (answer.error) { say(answer.error); return; }
    say("");
    files.append(fileRow(answer, true));
    plan();
  }
  const cardChooser = h("input", { type: "file", accept: ".png,.json", class: "ms-hidden", tabindex: -1, "aria-label": "Character card to upload", onchange: () => readCard() });
  const said = h("textarea", { class: "ms-text bl-comment", id: "bl-said", rows: 3, placeholder: "one line, one prompt" });
  const user = text("bl-user", { placeholder: "User", maxlength: 60 });
  const cardBox = h("div", { class: "bl-card-box", hidden: true });
  async function readCard() {
    const file = cardChooser.files[0];
    cardChooser.value = "";
    if (!file) return;
    const data = new Uint8Array(await file.arrayBuffer()), words = wordsOfPicture(data);
    if (words.length > 600000) { say(`${file.name} holds ${bytes(words.length)} of text; a card may have 600 kB.`); return; }
    const encoded = await asBase64(new Blob([words]));
    cardBox.hidden = false;
    cardBox.replaceChildren(h("label", { class: "ms-label", for: "bl-said" }, `What is said to the character of ${file.name}`), said, field("Name of the one who speaks", user),
      h("div", { class: "ms-row" }, h("button", { type: "button", class: "ms-button", onclick: async () => {
        const answer = await ask("upload_card", { file: file.name, data: encoded, requests: said.value.split("\n"), user: user.value });
        if (answer.error) { say(answer.error); return; }
        say("");
        cardBox.replaceChildren(answer.notes.length ? h("p", { class: "ms-hint" }, answer.notes.join("; ")) : "");
        files.append(fileRow(answer, true));
        plan();
      } }, "Make prompts of it")));
    said.focus();
  }
  const say = (problem) => trouble.replaceChildren(problem ? alertBox(problem) : "");

  function design() {
    const models = [...rows.children].map((row) => row.read());
    const chosen = [...files.children].filter((row) => row.querySelector("input[value]")?.checked);
    const boxes = chosen.flatMap((row) => [...row.querySelectorAll("[data-category]")]);
    const wanted = [...new Set(boxes.filter((box) => box.checked).map((box) => box.dataset.category))];
    return {
      name: name.value.trim(), project: project.value.trim(), models, primary: models.slice(0, 2).map((model) => model.label),
      compare: models.length > 2 ? compare.value : "primary", prompts: chosen.map((row) => row.querySelector("input[value]").value),
      categories: boxes.every((box) => box.checked) ? [] : wanted, sealed: split.value ? split.value === "true" : null, sensitive: sensitive.checked,
      sampling: sampling.value, draws: Number(draws.value), votes_per_prompt: Number(votes.value), raters: Number(raters.value), reveal: reveal.value,
      scores: scores.value.split(",").map((each) => each.trim()).filter(Boolean), expect: Number(expect.value) / 100, expect_ties: Number(ties.value) / 100,
      alpha: Number(alpha.value) / 100, seen_prompts: seen.checked,
    };
  }
  function plan() { clearTimeout(timer); timer = setTimeout(planNow, 250); }
  async function planNow() {
    compareField.hidden = rows.children.length < 3;
    const mine = ++round, wish = design();
    if (wish.models.some((model) => !model.source) || !wish.prompts.length) return;
    const found = await ask("plan", { design: wish });
    if (mine !== round) return;
    told.replaceChildren(...(found.error ? [h("p", { class: "ms-hint ms-error" }, found.error)] : [
      h("p", { class: "bl-sentence" }, sentenceCase(found.sentence) + "."),
      h("p", { class: "ms-hint" }, `${found.answers} answers to make, ${found.votes} votes that count${found.pairs.length > 1 ? ` over ${found.pairs.length} comparisons` : ""}, and a few more to measure the raters. Primary: is ${found.pairs[0][0]} better than ${found.pairs[0][1]}?`),
      found.edited.length > 0 && h("p", { class: "ms-hint" }, `Asked in the prompt format that was edited in the Serve tab, which the design keeps as it is now: ${found.edited.join(", ")}.`),
      h("p", { class: "ms-hint" }, `Of its errors this project has ${number(100 * found.left)} % left.${found.seen ? ` ${found.seen} of the prompts were seen before, by tuning or by an earlier verdict.` : ""}`)]));
  }
  async function fix(event) {
    event.preventDefault();
    fixButton.disabled = true;
    say("");
    const made = await ask("create", { design: design() });
    if (made.error) { say(made.error); fixButton.disabled = false; return; }
    await ask("generate", { trial: made.name, engine: engine.value, gpus: Number(gpus.value) }); // what is in its way is told in the list
    desk.leave();
  }
  const sentenceCase = (words) => words.charAt(0).toUpperCase() + words.slice(1);
  const compareField = field("Shown to raters", compare);
  compareField.hidden = true;
  const card = (title, ...children) => h("section", { class: "ms-card" }, h("h3", {}, title), children);
  rows.append(modelRow(0), modelRow(1));
  const form = h("form", { class: "bl-setup", onsubmit: fix },
    h("div", { class: "ms-row" }, h("button", { type: "button", class: "ms-button ms-small", onclick: () => desk.leave() }, "‹ Trials"), h("h2", {}, "A new trial")),
    card("What it can find", told, h("div", { class: "ms-row bl-numbers" }, field("True preference, %", expect), field("Share of ties, %", ties), field("Votes per prompt", votes), field("Raters", raters), field("Project", project), field("Error rate, %", alpha)), h("p", { class: "ms-hint" }, "Trying twenty merges and reporting the best one finds a winner by luck half the time: all trials of a project share 5 % of errors. An error rate of 0 explores and claims nothing.")),
    card("Models", known, rows, h("div", { class: "ms-row" }, h("button", { type: "button", class: "ms-button ms-small", onclick: () => { if (rows.children.length < 8) rows.append(modelRow(rows.children.length)); planNow(); } }, "Add a model")), compareField),
    card("Prompts", files, h("div", { class: "ms-row" }, h("button", { type: "button", class: "ms-button ms-small", onclick: () => chooser.click() }, "Upload a file"), chooser, h("button", { type: "button", class: "ms-button ms-small", onclick: () => cardChooser.click() }, "Upload a character card"), cardChooser), cardBox,
      h("div", { class: "ms-row bl-numbers" }, field("Of these use", split)), h("label", { class: "bl-check", for: "bl-sensitive" }, sensitive, "Also prompts that are marked as sensitive or adult"),
      h("label", { class: "bl-check", for: "bl-seen" }, seen, "Also prompts that tuning or an earlier verdict has seen; the verdict then says so")),
    card("Answers and raters", h("div", { class: "ms-row bl-numbers" }, field("Sampling", sampling), field("Draws per prompt", draws), field("Engine", engine), field("GPUs per model", gpus), field("Models are shown", reveal), field("Scores from 1 to 5", scores, "Names with commas between; off when empty."))),
    card("Fix it", field("Name of the trial", name, "Raters see this name. Small letters, digits and dashes."), trouble, h("div", { class: "ms-row" }, fixButton)));

  // What shows at once how a trial goes, and spends nothing of a project's errors.
  function demonstrate(models) {
    const pair = ["demo-instruct", "demo-roleplay"].map((label) => models.find((model) => model.label === label));
    pair.forEach((model, index) => model && rows.children[index].set(model));
    name.value = freeTrialName(desk.taken(), "demo");
    engine.value = "embedded";
    [draws.value, alpha.value, project.value] = [1, 0, "demo"];
  }
  function compareFirst(models) {
    const first = { source: desk.model, label: labelFor(desk.model) };
    [first, ...models.filter((model) => model.source !== desk.model)].slice(0, 2).forEach((model, index) => rows.children[index].set(model));
  }
  ask("choices", {}).then((found) => {
    if (found.error) { say(found.error); return; }
    choices = found;
    known.replaceChildren(...found.models.map((model) => h("option", { value: model.source }, model.label)));
    files.replaceChildren(...found.prompts.map((about, index) => fileRow(about, index === 0)));
    sampling.replaceChildren(...Object.keys(found.presets).map((preset) => h("option", { value: preset }, preset)));
    sampling.value = "careful";
    found.models.slice(0, 2).forEach((model, index) => rows.children[index].set(model));
    if (desk.model) compareFirst(found.models);
    if (desk.isDemo) demonstrate(found.models);
    planNow();
  });
  return { element: form, close: () => clearTimeout(timer) };
}

const asBase64 = (blob) => new Promise((resolve) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.split(",")[1] || "");
  reader.readAsDataURL(blob);
});
// Of a PNG the pieces that hold text, so that the picture itself need not travel.
function wordsOfPicture(data) {
  const isPicture = data[0] === 0x89 && data[1] === 0x50;
  if (!isPicture) return data;
  const view = new DataView(data.buffer), parts = [data.subarray(0, 8)];
  for (let at = 8; at + 12 <= data.length;) {
    const length = view.getUint32(at), end = at + 12 + length;
    const kind = String.fromCharCode(...data.subarray(at + 4, at + 8));
    if (["tEXt", "zTXt", "iTXt"].includes(kind) || end > data.length) parts.push(data.subarray(at, end));
    at = end;
  }
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => { whole.set(part, at); return at + part.length; }, 0);
  return whole;
}
function freeTrialName(taken, stem = `trial-${new Date().toISOString().slice(0, 10)}`) {
  let name = stem;
  for (let n = 2; taken.includes(name); n += 1) name = `${stem}-${n}`;
  return name;
}
