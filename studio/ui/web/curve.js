// A parameter over the layers: lines to drag by their anchors, and a dot for what each layer gets.
const CURVE = { height: 196, left: 34, right: 14, top: 26, bottom: 40 };
const FINE = 0.01, COARSE = 0.1, SNAP = 0.05;

// view() → { layers, lines: [{ key, anchors, spans, title, dashed, colour }], dots, ends: {low, high}, name, snap }
// act: { move(line, anchor, value, isFinal), add(line), remove(line, anchor) }
function makeCurve(view, act) {
  const ground = s("g"), back = s("g"), middle = s("g"), front = s("g");
  const svg = s("svg", { role: "group" }, ground, back, middle, front);
  const box = h("div", { class: "ms-chart" }, svg);
  let width = 480, scale = null, points = [], paths = [], tints = [], drawn = "", standing = "";

  function measure({ layers, lines }) {
    const all = lines.flatMap((line) => line.anchors).filter(Number.isFinite);
    const low = Math.min(0, ...all), high = Math.max(1, ...all);
    const { height, left, right, top, bottom } = CURVE;
    const wide = width - left - right, tall = height - top - bottom;
    scale = {
      low, high,
      x: (layer) => left + (layers > 1 ? (layer / (layers - 1)) * wide : wide / 2),
      y: (value) => top + (1 - (value - low) / (high - low)) * tall,
      value: (y) => low + (1 - (y - top) / tall) * (high - low),
    };
  }

  function backdrop({ layers, lines, dots, ends, name }) { // what stays where it is while a point is dragged
    const key = JSON.stringify([width, scale.low, scale.high, layers, dots, ends, name]);
    if (key === standing) return;
    standing = key;
    const { height, left, right } = CURVE, main = lines[lines.length - 1];
    const text = (x, y, anchor, words) => s("text", { class: "ms-tick", x, y, "text-anchor": anchor }, words);
    const isInside = (layer) => main.spans.some(([from, to]) => layer >= from && layer <= to);
    back.replaceChildren(
      ...[scale.low, (scale.low + scale.high) / 2, scale.high].flatMap((value) => [
        s("line", { class: "ms-grid", x1: left, x2: width - right, y1: scale.y(value), y2: scale.y(value) }),
        text(left - 6, scale.y(value) + 4, "end", Math.round(value * 100) / 100)]),
      ...(ends ? [endText(ends.high, `${name} = 1: `, scale.y(1) - 10), endText(ends.low, `${name} = 0: `, scale.y(0) + 14)] : []),
      ...ticks(layers, width < 420 ? 5 : 9).map((layer) => text(scale.x(layer), height - 6, "middle", layer || "layer 0")),
      ...(dots || []).flatMap((value, layer) => (Number.isFinite(value) && isInside(layer) ? [s("circle", { class: "ms-dot", cx: scale.x(layer), cy: scale.y(value), r: 2.6 })] : [])),
    );
  }
  const place = (anchors, [first, last], k) => {
    const layer = layerOf(k, anchors.length, [first, last]);
    return layer === null ? (first + last) / 2 : layer;
  };
  function path(anchors, span) {
    if (anchors.length === 1) {
      return `M${scale.x(span[0])} ${scale.y(anchors[0])}H${scale.x(span[1])}`;
    }
    return anchors.map((v, k) => `${k ? "L" : "M"}${scale.x(place(anchors, span, k))} ${scale.y(v)}`).join("");
  }
  function endText(end, words, y) {
    return s("g", {},
      s("rect", { x: CURVE.left, y: y - 9, width: 10, height: 10, rx: 2, style: `fill:${end.colour}` }),
      s("text", { class: "ms-end", x: CURVE.left + 16, y },
        s("tspan", { class: "ms-strong" }, words), s("tspan", {}, `only ${end.label}`)));
  }

  // Lines and points are made once: what is held by a pointer must not be replaced under it.
  function makeParts() {
    points = []; paths = [];
    front.replaceChildren(); middle.replaceChildren();
    const { lines, ends } = view();
    // below the main line the t = 1 end's colour, above it the other's
    tints = !ends ? [] : lines[lines.length - 1].spans.flatMap((span) => [["low", ends.high], ["high", ends.low]].map(([edge, { colour }]) =>
      ({ span, edge, area: s("path", { class: "ms-tint", style: `fill:${colour}` }) })));
    ground.replaceChildren(...tints.map(({ area }) => area));
    [...lines.keys()].reverse().forEach((which) => { // the first rule wins, so it lies on top
      const line = lines[which];
      line.spans.forEach((_, part) => {
        const style = line.colour ? `stroke:${line.colour}` : null;
        const drawn = s("path", { class: `ms-line${line.dashed ? " ms-dashed" : ""}`, style });
        const reach = s("path", { class: "ms-reach", onclick: () => act.add(which) }, s("title", {}, "Click to add an anchor"));
        paths.push({ drawn, reach, which, part });
        middle.append(drawn, reach);
      });
      line.anchors.forEach((_, k) => {
        const point = s("g", { class: "ms-point", role: "slider", tabindex: 0, "data-key": `${line.key}-point-${k}`,
                               "aria-orientation": "vertical" },
          s("circle", { class: "ms-touch", r: 20 }), s("circle", { class: "ms-ring", r: 12 }),
          s("circle", { class: "ms-knob", r: 7, style: line.colour ? `fill:${line.colour}` : null }));
        hold(point, which, k);
        points.push({ point, which, k });
      });
    });
    // Left to right for the Tab key, however they lie on each other.
    points.sort((a, b) => b.which - a.which || a.k - b.k);
    front.append(...points.map(({ point }) => point));
  }
  function hold(point, which, k) {
    const value = () => view().lines[which].anchors[k];
    const set = (next, isFinal, step = FINE) => {
      const held = Math.min(Math.max(next, Math.min(scale.low, 0)), Math.max(scale.high, 1));
      act.move(which, k, Math.round(Math.round(held / step) * step * 1000) / 1000, isFinal);
    };
    point.addEventListener("pointerdown", (event) => {
      if (event.button > 0) return;
      point.setPointerCapture(event.pointerId);
      point.focus({ preventScroll: true });
      event.preventDefault();
    });
    // The page would scroll and take the point away; touch-action does not hold within a drawing.
    point.addEventListener("touchmove", (event) => event.preventDefault(), { passive: false });
    point.addEventListener("pointermove", (event) => {
      if (!point.hasPointerCapture(event.pointerId)) return;
      set(scale.value(event.clientY - svg.getBoundingClientRect().top), false, view().snap ? SNAP : FINE);
    });
    point.addEventListener("pointerup", () => act.move(which, k, value(), true));
    point.addEventListener("dblclick", () => act.remove(which, k));
    point.addEventListener("keydown", (event) => {
      const step = view().snap ? SNAP : FINE;
      const steps = { ArrowUp: step, ArrowRight: step, ArrowDown: -step, ArrowLeft: -step, PageUp: COARSE, PageDown: -COARSE };
      if (event.key in steps) set(value() + steps[event.key], true, Math.min(step, Math.abs(steps[event.key])));
      else if (event.key === "Home") set(0, true);
      else if (event.key === "End") set(1, true);
      else if (event.key === "Delete" || event.key === "Backspace") act.remove(which, k);
      else if (event.key === "Insert" || event.key === "+") act.add(which, k);
      else return;
      event.preventDefault();
    });
  }

  function update() {
    const shown = view(), { lines, name, ends } = shown;
    const key = JSON.stringify([width, shown]);
    if (key === drawn) return; // most updates concern another curve
    drawn = key;
    measure(shown);
    backdrop(shown);
    const count = (list) => lines.reduce((sum, line) => sum + list(line).length, 0);
    if (points.length !== count((line) => line.anchors) || paths.length !== count((line) => line.spans)) makeParts();
    for (const { drawn, reach, which, part } of paths) {
      const d = path(lines[which].anchors, lines[which].spans[part]);
      drawn.setAttribute("d", d);
      reach.setAttribute("d", d);
    }
    for (const { span, edge, area } of tints) {
      const line = path(lines[lines.length - 1].anchors, span).replace(/^M/, "L"), y = scale.y(scale[edge]);
      area.setAttribute("d", `M${scale.x(span[0])} ${y}${line}L${scale.x(span[1])} ${y}Z`);
    }
    for (const { point, which, k } of points) {
      const line = lines[which], value = line.anchors[k];
      point.setAttribute("transform", `translate(${scale.x(place(line.anchors, line.spans[0], k))} ${scale.y(value)})`);
      point.setAttribute("aria-valuemin", number(scale.low));
      point.setAttribute("aria-valuemax", number(scale.high));
      point.setAttribute("aria-valuenow", number(value));
      point.setAttribute("aria-valuetext", ends ? `${number(value)}, ${Math.round(value * 100)} % towards ${ends.high.label}` : number(value));
      point.setAttribute("aria-label", `${line.title}, ${anchorTitle(line.anchors, line.spans[0], k)}, ${name}`);
    }
  }
  new ResizeObserver(() => {
    width = Math.max(240, box.clientWidth);
    svg.setAttribute("viewBox", `0 0 ${width} ${CURVE.height}`);
    svg.setAttribute("height", CURVE.height);
    update();
  }).observe(box);
  return { box, update };
}

function anchorTitle(anchors, span, k) {
  const layer = layerOf(k, anchors.length, span);
  return layer === null ? "all layers" : `layer ${number(Math.round(layer * 10) / 10)}`;
}
function ticks(layers, most) {
  const step = [1, 2, 5, 10, 20, 50, 100].find((size) => layers / size <= most) || 100;
  const found = [];
  for (let layer = 0; layer < layers - step / 2; layer += step) found.push(layer);
  if (found[found.length - 1] !== layers - 1) found.push(layers - 1);
  return found;
}
