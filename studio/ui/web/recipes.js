// Changes of a recipe's graph and of its gradients: plain JSON in, the same JSON changed.
const modelsOf = (stage) => stage.slices[0].inputs.map((input) => input.model);
const stageNames = (recipe) => recipe.stages.map((stage) => stage.name).filter(Boolean);
const round3 = (value) => Math.round(value * 1000) / 1000;

// In the order in which the server has them: what a stage uses before it, the result last.
function sortStages(recipe) {
  const used = new Set(recipe.stages.flatMap(modelsOf));
  const result = recipe.stages.find((stage) => !stage.name) || recipe.stages.find((stage) => !used.has(stage.name));
  let rest = recipe.stages.filter((stage) => stage !== result);
  const done = [];
  while (rest.length) {
    const open = new Set(rest.map((stage) => stage.name));
    const ready = rest.filter((stage) => !modelsOf(stage).some((model) => open.has(model)));
    if (!ready.length) return; // a cycle: the server says so
    done.push(...ready);
    rest = rest.filter((stage) => !ready.includes(stage));
  }
  recipe.stages = [...done, result];
}

// What a stage may take as an input: every source, and the stages that do not build on it.
function inputChoices(recipe, index) {
  const name = recipe.stages[index].name, builds = new Set(name ? [name] : []);
  for (const stage of recipe.stages) if (stage.name && modelsOf(stage).some((model) => builds.has(model))) builds.add(stage.name);
  return { sources: sourcesOf(recipe), stages: stageNames(recipe).filter((other, k) => recipe.stages[k] !== recipe.stages[index] && !builds.has(other)) };
}

function freshSettings(stage) { // keeps what the method also knows, completes what it needs
  const known = METHODS[stage.method].settings, isKnown = (name) => name in known;
  const kept = (settings) => Object.fromEntries(Object.entries(settings).filter(([name]) => isKnown(name)));
  const inputs = stage.slices.flatMap((part) => part.inputs);
  stage.settings = kept(stage.settings);
  for (const part of stage.slices) {
    part.settings = kept(part.settings);
    part.inputs.forEach((input) => { input.settings = kept(input.settings); });
  }
  for (const [name, setting] of Object.entries(known)) {
    if (setting.switch || setting.fixed) continue;
    const start = setting.default ?? (setting.per_input ? round3(1 / stage.slices[0].inputs.length) : 0.5);
    const rules = () => [{ filter: null, anchors: [start] }];
    if (setting.per_input) {
      const isGiven = stage.settings[name] || stage.slices.some((part) => part.settings[name]);
      const base = setting.skips_base ? stage.slices.map((part) => part.inputs[0]) : [];
      base.forEach((input) => { delete input.settings[name]; });
      if (!isGiven) inputs.forEach((input) => { if (!base.includes(input)) input.settings[name] ||= rules(); });
    } else if (!stage.slices.every((part) => part.settings[name])) {
      stage.settings[name] ||= rules();
    }
  }
}
function setMethod(stage, method, sources) { // inputs it lacks are taken from the sources
  const { inputs, least } = METHODS[method];
  stage.method = method;
  const used = modelsOf(stage), spare = sources.filter((model) => !used.includes(model));
  for (const part of stage.slices) {
    if (inputs !== null) part.inputs = part.inputs.slice(0, inputs);
    for (let k = 0; part.inputs.length < (inputs ?? least ?? 1); k += 1) part.inputs.push({ model: spare[k] ?? used[0], settings: {} });
  }
  freshSettings(stage);
}
function addInput(stage, model) {
  stage.slices.forEach((part) => part.inputs.push({ model, settings: {} }));
  freshSettings(stage);
}
const removeInput = (stage, k) => stage.slices.forEach((part) => part.inputs.splice(k, 1));
function setInput(stage, k, model) {
  if (stage.tokenizer === modelsOf(stage)[k]) stage.tokenizer = model;
  stage.slices.forEach((part) => { part.inputs[k].model = model; });
}

function addStage(recipe) {
  const taken = new Set([...stageNames(recipe), ...sourcesOf(recipe)]);
  let count = recipe.stages.length;
  while (taken.has(`component-${count}`)) count += 1;
  const [first, second = first] = sourcesOf(recipe), result = recipe.stages[recipe.stages.length - 1];
  const stage = {
    method: "slerp", name: `component-${count}`, dtype: result.dtype, out_dtype: null, chat_template: null, tokenizer: result.tokenizer ?? null, settings: {},
    slices: [{ start: 0, end: null, settings: {}, inputs: [first, second].map((model) => ({ model, settings: {} })) }],
  };
  freshSettings(stage);
  recipe.stages.splice(recipe.stages.length - 1, 0, stage);
  sortStages(recipe);
  return stage;
}
function replaceInputs(recipe, from, to) {
  for (const stage of recipe.stages) modelsOf(stage).forEach((model, k) => { if (model === from) setInput(stage, k, to); });
}
function renameStage(recipe, index, name) { // returns what is wrong with the name, or nothing
  const stage = recipe.stages[index], text = name.trim();
  if (text === stage.name) return "";
  if (!text) return "A stage that others may use needs a name.";
  if (text === "Result") return "The last stage is called Result.";
  if (stageNames(recipe).includes(text)) return `Another stage is named “${text}”.`;
  if (sourcesOf(recipe).includes(text)) return `“${text}” is a model.`;
  replaceInputs(recipe, stage.name, text);
  stage.name = text;
  return "";
}
function deleteStage(recipe, index) { // who used it takes its first input instead
  const [gone] = recipe.stages.splice(index, 1);
  replaceInputs(recipe, gone.name, modelsOf(gone)[0]);
  sortStages(recipe);
}

// Common shapes, between the least and the greatest value that the gradient has now.
const SHAPES = { flat: "Flat", ramp: "Ramp", v: "V", bell: "Bell" };
function shaped(anchors, shape) {
  let low = Math.min(...anchors), high = Math.max(...anchors);
  const mean = round3(anchors.reduce((sum, value) => sum + value, 0) / anchors.length);
  if (shape === "flat") return [mean];
  if (high - low < 0.01) [low, high] = [round3(Math.max(0, mean - 0.2)), round3(Math.min(1, mean + 0.2))];
  if (shape === "ramp") return anchors[0] > anchors[anchors.length - 1] ? [high, low] : [low, high];
  if (shape === "v") return [high, low, high];
  const bell = [-3, -2, -1, 0, 1, 2, 3].map((x) => Math.exp((-x * x) / 2.4)), edge = bell[0];
  return bell.map((y) => round3(low + ((high - low) * (y - edge)) / (1 - edge)));
}

// Every gradient of the recipe, to copy from.
function gradientsOf(recipe, titleOf) {
  return recipe.stages.flatMap((stage, index) => parametersOf(stage, 2).flatMap(({ name, rules, input }) =>
    rules.filter((rule) => !isOutside(rule)).map((rule) => ({
      rule, title: [titleOf(index), input && shortName(input, sourcesOf(recipe)), name !== "t" && name, rule.filter && `“${rule.filter}”`].filter(Boolean).join(", "),
    }))));
}

// A rule for some tensors comes before the one for all: the first match wins.
const MODULES = { self_attn: "Attention", mlp: "MLP", layernorm: "Norms of the layers", q_proj: "Other …" };
function addRule(rules, filter) {
  const taken = new Set(rules.map((rule) => rule.filter));
  const free = [filter, "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"].find((each) => !taken.has(each)) ?? `${filter}.`;
  const like = mainRule(rules) || rules[rules.length - 1];
  const at = rules.findIndex((rule) => !isOutside(rule));
  rules.splice(at < 0 ? rules.length : at, 0, { filter: free, anchors: [...like.anchors] });
  return free;
}
function moveRule(rules, rule, step) { // past the next rule for layers
  const from = rules.indexOf(rule);
  let to = from + step;
  while (rules[to] && isOutside(rules[to])) to += step;
  if (!rules[to]) return;
  rules.splice(from, 1);
  rules.splice(to, 0, rule);
}
