// The recipe as a picture: the sources on the left, each stage right of what it uses.
const GRAPH = { tall: 32, between: 12, most: 190, gap: 34, narrow: 24 };

function makeGraph(desk, openStage) {
  const svg = s("svg", { role: "group", "aria-label": "The stages of the recipe" });
  const box = h("div", { class: "ms-chart" }, svg);
  let width = 480, drawn = "";

  function columns(recipe) {
    const depth = new Map(sourcesOf(recipe).map((model) => [model, 0]));
    const nodes = sourcesOf(recipe).map((model) => ({ model, column: 0, colour: desk.colour(model), text: desk.label(model) }));
    recipe.stages.forEach((stage, index) => {
      const column = 1 + Math.max(...modelsOf(stage).map((model) => depth.get(model) ?? 0));
      depth.set(stage.name, column);
      nodes.push({ model: stage.name, index, stage, column, colour: desk.stageColour(index), text: desk.stageTitle(index), sub: stage.method });
    });
    return nodes;
  }
  function place(nodes) {
    const count = 1 + Math.max(...nodes.map((node) => node.column));
    const gap = width < 420 ? GRAPH.narrow : GRAPH.gap;
    const wide = Math.min(GRAPH.most, (width - gap * (count - 1)) / count);
    const step = (width - wide) / Math.max(1, count - 1), by = new Map(), slot = GRAPH.tall + GRAPH.between;
    for (let column = 0; column < count; column += 1) {
      const here = nodes.filter((node) => node.column === column);
      const middle = (node) => (node.stage ? modelsOf(node.stage).reduce((sum, model) => sum + (by.get(model)?.y ?? 0), 0) / modelsOf(node.stage).length : here.indexOf(node) * slot);
      let below = -Infinity;
      for (const node of [...here].sort((a, b) => middle(a) - middle(b))) {
        node.x = column * step;
        node.y = Math.max(middle(node), below);
        node.wide = wide;
        below = node.y + slot;
        by.set(node.model, node);
      }
    }
    return by;
  }
  function edge(from, to, at, count, mark) {
    const x1 = from.x + from.wide, y1 = from.y + GRAPH.tall / 2, x2 = to.x;
    const y2 = to.y + (GRAPH.tall * (at + 1)) / (count + 1), bend = Math.max(12, (x2 - x1) / 2);
    return [s("path", { class: "ms-edge", style: `stroke:${from.colour}`, d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` }),
            mark && s("text", { class: "ms-tick ms-mark", x: x2 - 4, y: y2 + (at ? 11 : -4), "text-anchor": "end" }, mark)];
  }
  function node({ x, y, wide, text, colour, stage, index }) {
    const most = Math.max(6, Math.floor((wide - 30) / 7.6));
    const shown = text.length > most ? `${text.slice(0, most - 4)}…${text.slice(-3)}` : text; // ends tell names apart
    const parts = [s("rect", { class: "ms-node", x, y, width: wide, height: GRAPH.tall, rx: 8 }),
                   s("rect", { x: x + 8, y: y + GRAPH.tall / 2 - 5.5, width: 11, height: 11, rx: stage ? 5.5 : 3, style: `fill:${colour}` }),
                   s("text", { class: "ms-node-text", x: x + 25, y: y + GRAPH.tall / 2 + 4.5 }, shown), s("title", {}, text)];
    if (!stage) return s("g", {}, parts);
    const go = () => openStage(index);
    return s("g", { class: "ms-go", role: "button", tabindex: 0, "aria-label": `Stage ${index + 1}, ${text}: ${stage.method} of ${modelsOf(stage).map(desk.label).join(" and ")}`, onclick: go,
      onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); go(); } } }, parts);
  }
  function update() {
    const recipe = desk.recipe();
    const key = JSON.stringify([width, recipe.stages.map((stage) => [stage.name, stage.method, modelsOf(stage)])]);
    if (key === drawn) return;
    drawn = key;
    const nodes = columns(recipe), by = place(nodes);
    const height = Math.max(...nodes.map((each) => each.y)) + GRAPH.tall + 2;
    svg.setAttribute("viewBox", `-1 -1 ${width + 2} ${height + 2}`);
    svg.setAttribute("height", height + 2);
    const edges = nodes.filter((each) => each.stage).flatMap((each) => {
      const used = modelsOf(each.stage);
      const order = used.map((model, k) => [model, k]).sort((a, b) => (by.get(a[0])?.y ?? 0) - (by.get(b[0])?.y ?? 0) || a[1] - b[1]);
      return order.map(([model, k], at) => by.get(model) && edge(by.get(model), each, at, used.length, each.stage.method === "slerp" && String(k)));
    });
    svg.replaceChildren();
    fill(svg, {}, [edges, nodes.map(node)]);
  }
  new ResizeObserver(() => { width = Math.max(240, box.clientWidth); update(); }).observe(box);
  return { box, update };
}
