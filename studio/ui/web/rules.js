// Recipes on the page: plain JSON as the server sends it. Nothing here touches the screen.
const METHODS = props.value.methods; // { name: { inputs, least, needs_base, settings: { name: … } } }
const isTuned = (method, name) => { const about = METHODS[method]?.settings[name]; return !(about?.switch || about?.fixed); };
const copyOf = (value) => JSON.parse(JSON.stringify(value));
// Outside the layers, and the filter for each place: Llama's until a preview tells the models' own.
const OUTSIDE = [
  { row: "embeddings", filter: "embed_tokens", title: "Embeddings" },
  { row: "norm", filter: "model.norm", title: "Final norm" },
  { row: "head", filter: "lm_head", title: "lm_head" },
];
const placesOutside = () => OUTSIDE.filter((place) => place.filter);
function nameOutside(filters) { // { row: filter }; whether anything is called otherwise than before
  const before = JSON.stringify(OUTSIDE);
  for (const place of OUTSIDE) place.filter = filters[place.row] ?? "";
  return JSON.stringify(OUTSIDE) !== before;
}

function sourcesOf(recipe) { // in the server's order: the base of the result first
  const byName = new Map(recipe.stages.filter((x) => x.name).map((x) => [x.name, x]));
  const models = (stage) => stage.slices[0].inputs.map((input) => input.model);
  let base = models(recipe.stages[recipe.stages.length - 1])[0];
  while (byName.has(base)) base = models(byName.get(base))[0];
  const found = new Set([base]);
  for (const stage of recipe.stages) {
    for (const model of models(stage)) if (!byName.has(model)) found.add(model);
  }
  return [...found];
}

function shortName(model, among) {
  const last = (text) => text.replace(/\/+$/, "").split("/").pop();
  const twice = among.filter((other) => last(other) === last(model)).length > 1;
  return twice ? model : last(model);
}

// Every parameter of a stage that can be tuned, innermost first, with what it belongs to, and the
// places outside the layers that it is for: the embeddings follow the first slice, the rest the last.
function parametersOf(stage, layers) {
  const found = [];
  const spans = stage.slices.map((part) => [part.start, (part.end ?? layers) - 1]);
  const add = (settings, over, input, places) => {
    for (const [name, rules] of Object.entries(settings)) {
      if (isTuned(stage.method, name)) found.push({ name, rules, spans: over, input, places });
    }
  };
  stage.slices.forEach((part, index) => {
    const places = placesOutside().filter(({ row }) => index === (row === "embeddings" ? 0 : spans.length - 1));
    part.inputs.forEach((input) => add(input.settings, [spans[index]], input.model, places));
    add(part.settings, [spans[index]], null, places);
  });
  add(stage.settings, spans, null, placesOutside());
  return found;
}

const isOutside = (rule) => placesOutside().some((place) => place.filter === rule.filter);
const mainRule = (rules) => rules.find((rule) => rule.filter === null);

function valueAt(anchors, position) {
  if (anchors.length === 1) return anchors[0];
  const at = Math.min(Math.max(position, 0), 1) * (anchors.length - 1);
  const left = Math.min(Math.floor(at), anchors.length - 2);
  return anchors[left] + (anchors[left + 1] - anchors[left]) * (at - left);
}

// One anchor more or less, spread evenly again along the same curve.
function addAnchor(rule) {
  const count = rule.anchors.length + 1;
  const spread = [...Array(count).keys()].map((k) => valueAt(rule.anchors, k / (count - 1)));
  rule.anchors = spread.map((value) => Math.round(value * 1000) / 1000);
}

const layerOf = (index, count, [first, last]) =>
  count === 1 ? null : first + ((last - first) * index) / (count - 1);

function setOutside(rules, filter, value) {
  const at = rules.findIndex((rule) => rule.filter === filter);
  if (value === null) {
    if (at >= 0) rules.splice(at, 1);
  } else if (at >= 0) {
    rules[at].anchors = [value];
  } else {
    rules.unshift({ filter, anchors: [value] }); // the first match wins
  }
}

// What a check of the sources depends on: everything but the numbers.
function shapeOf(recipe) {
  return JSON.stringify(recipe, (key, value) => (key === "settings" ? undefined : value));
}
