// Each source's share of the result: a column for the embeddings, one a layer, norm and lm_head.
const SHARES = { height: 214, left: 34, right: 8, top: 10, bottom: 40 };

// desk: { colour(model), label(model), preview() }
function makeShares(desk) {
  const back = s("g"), cursor = s("rect", { class: "ms-cursor", visibility: "hidden" });
  const svg = s("svg", { class: "ms-shares", role: "img" }, back, cursor);
  const tip = h("div", { class: "ms-tip", hidden: true });
  const box = h("div", {
    class: "ms-chart", tabindex: 0, role: "group",
    "aria-label": "Share of each source by layer. Left and right arrow keys read the columns.",
  }, svg, tip);
  const legend = h("ul", { class: "ms-legend" });
  const strip = h("div", { class: "ms-strip", "aria-hidden": "true" }); // on phones the chart is far away
  const spoken = h("p", { class: "ms-spoken", "aria-live": "polite" });
  const body = h("tbody"), head = h("tr");
  const table = h("details", { class: "ms-details" }, h("summary", {}, "Numbers"),
    h("div", { class: "ms-scroll", tabindex: 0, role: "group", "aria-label": "Table of the shares" }, h("table", {}, h("thead", {}, head), body)));
  let width = 560, columns = [], at = null;

  function layOut(rows) {
    const { left, right } = SHARES;
    const outer = rows.filter((row) => !row.startsWith("layer"));
    const isWide = width > 460;
    const side = isWide ? 46 : 31, gap = isWide ? 8 : 10;
    const rest = width - left - right - outer.length * (side + gap);
    const layers = rows.length - outer.length;
    let x = left;
    columns = rows.map((row) => {
      const isLayer = row.startsWith("layer");
      const size = isLayer ? rest / layers : side;
      const column = { row, x: isLayer || row === "embeddings" ? x : x + gap, size, isLayer };
      x = column.x + size + (row === "embeddings" ? gap : 0);
      return column;
    });
  }

  function update() {
    const found = desk.preview();
    if (!found) return;
    const { height, left, top, bottom } = SHARES;
    layOut(found.rows);
    const tall = height - top - bottom;
    const y = (part) => top + (1 - part) * tall;
    back.replaceChildren();
    for (const part of [0, 0.5, 1]) {
      back.append(s("text", { class: "ms-tick", x: left - 6, y: y(part) + 4, "text-anchor": "end" }, `${100 * part}`));
    }
    columns.forEach((column, k) => {
      const parts = found.shares[k].map((part) => Math.max(0, part));
      const total = parts.reduce((sum, part) => sum + part, 0) || 1;
      const space = column.size > 12 ? 1 : 0;
      let below = 0;
      parts.forEach((part, source) => {
        const from = y((below + part) / total), to = y(below / total);
        below += part;
        back.append(s("rect", {
          class: "ms-share", "data-row": column.row, x: column.x + space / 2, width: Math.max(0.5, column.size - space),
          y: from, height: Math.max(0, to - from - (source ? 1 : 0)), style: `fill:${desk.colour(found.sources[source])}`,
        }));
      });
    });
    axis(found);
    words(found);
    if (at !== null) show(Math.min(at, columns.length - 1));
  }
  function axis(found) {
    const { height, bottom } = SHARES;
    const shortNames = { embeddings: "emb", norm: "norm", head: "head" };
    const layers = columns.filter((column) => column.isLayer);
    const marked = new Set(ticks(layers.length, width < 420 ? 5 : 9));
    layers.forEach((column, k) => {
      if (marked.has(k)) back.append(s("text", { class: "ms-tick", x: column.x + column.size / 2, y: height - bottom + 16, "text-anchor": "middle" }, k));
    });
    for (const column of columns.filter((each) => !each.isLayer)) {
      back.append(s("text", { class: "ms-tick", x: column.x + column.size / 2, y: height - bottom + 16, "text-anchor": "middle" }, shortNames[column.row]));
    }
    const middle = layers.length ? (layers[0].x + layers[layers.length - 1].x + layers[0].size) / 2 : width / 2;
    back.append(s("text", { class: "ms-tick", x: middle, y: height - 6, "text-anchor": "middle" }, "layer"));
    svg.setAttribute("aria-label", found.sources.map((model, k) => `${desk.label(model)} ${percent(found.overall[k])}`).join(", "));
  }
  function words(found) {
    legend.replaceChildren(...found.sources.map((model, k) => h("li", {},
      swatch(desk.colour(model)), h("span", { title: model }, desk.label(model)),
      h("strong", {}, percent(found.overall[k])))));
    strip.replaceChildren(...found.sources.map((model, k) => h("div", {
      style: `background:${desk.colour(model)};flex:${Math.max(0, found.overall[k])} 0 0`, title: desk.label(model),
    }, h("span", {}, `${found.overall[k] > 0.25 ? `${desk.label(model)} ` : ""}${Math.round(100 * found.overall[k])} %`))));
    if (!table.open) return;
    head.replaceChildren(h("th", { scope: "col" }, "Tensors"), ...found.sources.map((model) => h("th", { scope: "col" }, desk.label(model))));
    body.replaceChildren(...found.rows.map((row, k) => h("tr", {}, h("th", { scope: "row" }, row),
      ...found.shares[k].map((part) => h("td", {}, percent(part))))));
  }
  table.addEventListener("toggle", update);

  function show(k) {
    const found = desk.preview();
    at = k;
    const column = columns[k];
    cursor.setAttribute("visibility", "visible");
    cursor.setAttribute("x", column.x); cursor.setAttribute("width", column.size);
    cursor.setAttribute("y", SHARES.top); cursor.setAttribute("height", SHARES.height - SHARES.top - SHARES.bottom);
    tip.replaceChildren(h("strong", {}, column.row), ...found.sources.map((model, source) => h("div", { class: "ms-tip-row" },
      swatch(desk.colour(model)), h("span", {}, desk.label(model)), h("span", {}, percent(found.shares[k][source])))));
    tip.hidden = false;
    const middle = column.x + column.size / 2;
    tip.style.left = `${middle > width / 2 ? middle - tip.offsetWidth - column.size / 2 - 8 : middle + column.size / 2 + 8}px`;
  }
  function hide() { at = null; tip.hidden = true; cursor.setAttribute("visibility", "hidden"); }
  const point = (event) => {
    const x = event.clientX - svg.getBoundingClientRect().left;
    const k = columns.findIndex((column) => x >= column.x && x < column.x + column.size);
    if (k >= 0) show(k); else hide();
  };
  box.addEventListener("pointermove", point);
  box.addEventListener("pointerdown", point);
  box.addEventListener("pointerleave", hide);
  box.addEventListener("blur", hide);
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step || !columns.length) return;
    event.preventDefault();
    show(at === null ? (step > 0 ? 0 : columns.length - 1) : Math.min(Math.max(at + step, 0), columns.length - 1));
    spoken.textContent = tip.innerText.replaceAll("\n", " ");
  });
  new ResizeObserver(() => {
    width = Math.max(260, box.clientWidth);
    svg.setAttribute("viewBox", `0 0 ${width} ${SHARES.height}`);
    svg.setAttribute("height", SHARES.height);
    update();
  }).observe(box);
  return { elements: [legend, box, spoken, table], strip, update };
}
