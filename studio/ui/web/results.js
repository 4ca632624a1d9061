// The card of charts: what the recipe makes of its sources, layer by layer.
// desk: { preview(), hasFailed() to make one, ask() for another, colour, label, stageColour, stageTitle, inputs, isSwitch, layers, tensors() }
const VIEWS = [["shares", "Shares"], ["settings", "Settings"], ["similarity", "Similarity"], ["heat", "Heatmap"], ["tensors", "Tensors"]];
const VIEW_KEY = "merge-studio-view";

function makeResults(desk) {
  const legend = h("ul", { class: "ms-legend" }), space = h("p", { class: "ms-hint" });
  const certainty = h("span", { class: "ms-chip ms-quiet" });
  const strip = h("div", { class: "ms-strip", "aria-hidden": "true" }); // on phones the charts are far away
  const changes = h("div", { class: "ms-strip-space" }, "changes:");
  const words = h("ul", { class: "ms-words" });
  const numbers = makeNumbers(desk), tensors = makeTensors(desk);
  const views = {
    shares: makeView(desk, "Share of each source by layer", 250, [["shares", sharesFigure, (found) => `Share by layer, % of the ${found.base ? "task vectors" : "weights"}${bands(found.share_error)}`]]),
    settings: makeView(desk, "Settings by layer", 270, [["settings", settingsFigure, () => "What each stage is set to, by layer"]]),
    similarity: makeView(desk, "Similarity by layer", 310, [
      ["similarity", similarityFigure, (found) => `Cosine between the ${found.base ? "task vectors of the result and of each source" : "result and each source"}; below, its norm over theirs`],
      ["angles", anglesFigure, (found) => `Angle between the two inputs of a stage${found.base ? ", as task vectors" : ""}${bands(found.share_error)}`, "Angles of the stages"],
      ["survives", survivesFigure, () => "How much of each source’s task vector is left in the result", "What survives"],
    ], true),
    heat: makeHeat(desk),
    tensors,
  };
  function bands(errors) {
    return errors ? "; bands: the estimate’s error" : "";
  }
  function spaceWords(found) {
    return found.base ? `Share of each source in what changed from ${desk.label(found.base)} (task vectors)` : "Share of each source in the weights of the result";
  }
  let chosen = recall(VIEW_KEY);
  if (!VIEWS.some(([view]) => view === chosen)) chosen = "shares";
  const choice = segments("What the charts show", VIEWS, chosen, (view) => { chosen = view; remember(VIEW_KEY, view); showChosen(); if (view === "heat") desk.ask(); });
  const stack = h("div", { class: "ms-views" }, Object.values(views).map((view) => view.element));
  function showChosen() {
    for (const [name, view] of Object.entries(views)) view.element.hidden = name !== chosen;
    numbers.element.hidden = chosen !== "shares";
    update();
  }
  function update() {
    const found = desk.preview();
    element.hidden = certainty.hidden = strip.hidden = !found && desk.hasFailed(); // what stands there is another recipe's
    if (!found) return;
    views[chosen].update(found);
    headline(found);
    if (chosen === "shares") numbers.update(found);
  }
  function headline(found) {
    const names = JSON.stringify(found.sources.map((model) => [model, desk.label(model), desk.colour(model)]));
    if (legend.dataset.names !== names) {
      legend.dataset.names = names;
      legend.replaceChildren(...found.sources.map((model) => h("li", {}, swatch(desk.colour(model)), h("span", { title: model }, desk.label(model)), h("strong"))));
      strip.replaceChildren(changes, ...found.sources.map((model) => h("div", { style: `background:${desk.colour(model)}`, title: desk.label(model) }, h("span"))));
    }
    changes.hidden = !found.base;
    found.sources.forEach((model, k) => {
      const part = found.overall[k], box = strip.children[k + 1];
      put(legend.children[k].lastChild, percent(part));
      box.style.flex = `${Math.max(0, part)} 0 0`;
      put(box.firstChild, `${Math.round(100 * part)} %${part > 0.25 ? ` ${desk.label(model)}` : ""}`);
    });
    put(space, `${spaceWords(found)}:`);
    put(certainty, { exact: "exact", assumed: "linear approximation", estimated: "estimated" }[found.basis]);
    const told = (found.words || []).join("\n");
    if (words.dataset.told === told) return;
    words.dataset.told = told;
    words.replaceChildren(...(found.words || []).map((line) => h("li", {}, line.replaceAll(" %", "\u00a0%"))));
  }
  const element = h("div", { class: "ms-figures" }, space, legend, choice.element, stack, numbers.element, words);
  showChosen();
  return { certainty, element, strip, update, showsHeatmap: () => chosen === "heat" };
}

// A chart and, where there are several kinds of it, what to choose them with.
const NO_ANGLES = "Not known yet: this needs the angles between the sources.";
function makeView(desk, label, height, kinds, needsAngles = false) {
  const plot = makePlot(label, height), caption = h("p", { class: "ms-hint" });
  let kind = kinds[0];
  const select = h("select", { class: "ms-select ms-small", "aria-label": `${label}: which`, onchange: () => { kind = kinds.find(([name]) => name === select.value) || kinds[0]; update(desk.preview()); } });
  function offer(found) {
    const there = kinds.filter(([name]) => (name === "survives" ? found.survives : name === "angles" ? found.stages.some((stage) => stage.degrees) : true));
    const names = there.map(([name]) => name).join();
    if (select.dataset.names !== names) {
      select.dataset.names = names;
      select.replaceChildren(...there.map(([name, , , title]) => h("option", { value: name }, title || label.replace(" by layer", ""))));
    }
    if (!there.includes(kind)) kind = kinds[0];
    select.value = kind[0];
    select.hidden = there.length < 2;
  }
  function update(found) {
    if (!found) return;
    offer(found);
    const [, figure, told] = kind, isKnown = found.basis !== "assumed" || !needsAngles;
    put(caption, isKnown ? told(found) : NO_ANGLES);
    plot.box.hidden = !isKnown;
    if (!isKnown) return;
    plot.draw((width, seen) => figure(found, desk, width, seen));
  }
  return { element: h("div", { class: "ms-view" }, h("div", { class: "ms-row ms-caption" }, caption, select), plot.box), update };
}

function makeHeat(desk) {
  const plot = makePlot("Layers by modules", 300), caption = h("p", { class: "ms-hint" });
  const select = h("select", { class: "ms-select ms-small", "aria-label": "What the heatmap shows", onchange: () => update(desk.preview()) });
  function update(found) {
    if (!found) return;
    const map = found.heatmap;
    plot.box.hidden = select.hidden = !map;
    if (!map) { put(caption, found.basis === "assumed" ? NO_ANGLES : ""); return; }
    const name = (k) => desk.label(found.sources[k]);
    const choices = [
      ...Object.keys(map.angle || {}).map((pair) => [pair, `Angle: ${pair.split(",").map((k) => name(Number(k))).join(" – ")}`]),
      ...(map.distance || []).map((_, k) => [String(k), `Result’s distance from ${name(k)}`]),
    ];
    const key = JSON.stringify(choices);
    if (select.dataset.key !== key) {
      const before = select.value;
      select.dataset.key = key;
      select.replaceChildren(...choices.map(([value, text]) => h("option", { value }, text)));
      if (choices.some(([value]) => value === before)) select.value = before;
    }
    const isAngle = select.value.includes(","), where = found.base ? ", as task vectors" : "";
    put(caption, isAngle ? `Angle between two sources${where}` : `Relative distance of the result from a source${where}`);
    plot.height = 70 + 25 * Math.max(3, map.modules.length);
    plot.box.style.height = `${plot.height}px`;
    plot.draw((width, seen) => heatFigure(found, desk, width, seen, select.value));
  }
  return { element: h("div", { class: "ms-view" }, h("div", { class: "ms-row ms-caption" }, caption, select), plot.box), update };
}

// The shares in figures: what the chart says, for those who read it aloud too.
function makeNumbers(desk) {
  const head = h("tr"), body = h("tbody");
  const element = h("details", { class: "ms-details" }, h("summary", {}, "Numbers"),
    h("div", { class: "ms-scroll", tabindex: 0, role: "group", "aria-label": "Table of the shares" }, h("table", {}, h("thead", {}, head), body)));
  function update(found) {
    if (!element.open || !found) return;
    head.replaceChildren(h("th", { scope: "col" }, "Tensors"), ...found.sources.map((model) => h("th", { scope: "col" }, desk.label(model))));
    body.replaceChildren(...found.rows.map((row, k) => h("tr", {}, h("th", { scope: "row" }, row),
      ...found.shares[k].map((part, source) => h("td", {}, percent(part), found.share_error && h("span", { class: "ms-quiet" }, ` ± ${Math.max(0.1, 100 * found.share_error[k][source]).toFixed(1)}`))))));
  }
  element.addEventListener("toggle", () => update(desk.preview()));
  return { element, update };
}

// Every tensor by itself, asked for only where it is looked at, and again when the recipe rests.
function makeTensors(desk) {
  const filter = h("input", { type: "search", class: "ms-text", placeholder: "Filter by name", "aria-label": "Filter the tensors by name", oninput: () => fillRows() });
  const head = h("tr"), body = h("tbody"), note = h("p", { class: "ms-hint", "aria-live": "polite" }, "Reading every tensor …");
  const element = h("div", { class: "ms-view" }, h("div", { class: "ms-row ms-caption" }, filter, note),
    h("div", { class: "ms-scroll ms-tall", tabindex: 0, role: "group", "aria-label": "Table of every tensor" }, h("table", { class: "ms-tensors" }, h("thead", {}, head), body)));
  let table = null, resting = 0, round = 0;
  function fillRows() {
    if (!table) return;
    const wanted = filter.value.trim().toLowerCase();
    const rows = table.rows.filter((row) => !wanted || String(row[0]).toLowerCase().includes(wanted));
    head.replaceChildren(...table.columns.map((column) => h("th", { scope: "col" }, String(column))));
    body.replaceChildren(...rows.map((row) => h("tr", {}, row.map((cell, k) => (k ? h("td", {}, cell === null ? "–" : String(cell)) : h("th", { scope: "row" }, String(cell)))))));
    note.textContent = `${rows.length.toLocaleString("en")} of ${table.rows.length.toLocaleString("en")} tensors`;
  }
  async function fetchRows() {
    round += 1;
    const mine = round, answer = await desk.tensors();
    if (mine !== round) return;
    if (answer.error) { note.textContent = answer.error; return; }
    table = answer;
    fillRows();
  }
  return { element, update() { clearTimeout(resting); resting = setTimeout(fetchRows, table ? 300 : 0); } };
}
