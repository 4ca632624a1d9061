// Charts that stay: one persistent element each, drawn by Plotly, which is fetched on first use.
// The page asks for it by a relative address: it comes from the studio itself, also offline.
function plotly() {
  window.mergeStudioPlotly ||= new Promise((resolve, reject) => {
    const script = h("script", { src: "studio/plotly.min.js", onload: () => resolve(window.Plotly) });
    script.addEventListener("error", () => {
      window.mergeStudioPlotly = null; // the next chart asks again
      script.remove();
      reject(new Error("the charts could not be fetched"));
    });
    document.head.append(script);
  });
  return window.mergeStudioPlotly;
}

// Plotly wants colours as they are, not as names of the style sheet's: tone("var(--ms-ink)").
const tones = new Map();
function tone(colour, opacity = 1) {
  const key = `${colour} ${opacity}`;
  if (!tones.has(key)) {
    const name = /^var\((--[\w-]+)\)$/.exec(colour);
    const plain = name ? getComputedStyle(document.body).getPropertyValue(name[1]).trim() : colour;
    const part = Math.round(255 * opacity).toString(16).padStart(2, "0");
    tones.set(key, opacity < 1 ? `${plain}${part}` : plain);
  }
  return tones.get(key);
}
const plots = new Set();
new MutationObserver(() => { // the colour scheme changed
  tones.clear();
  plots.forEach((plot) => plot.redraw());
}).observe(document.body, { attributes: true, attributeFilter: ["class"] });

// A chart: draw(figure) with figure = (width, seen) => ({ traces, layout }), called again where
// colours, the width or the zoom change; `seen` is the part of the x axis that is zoomed to, or
// null. Zoom and hidden traces survive a draw, until `layout.uirevision` changes.
function makePlot(label, height = 260) {
  const box = h("div", { class: "ms-plot", role: "img", "aria-label": label, style: `height:${height}px` });
  const isTouch = matchMedia("(pointer: coarse)").matches; // a finger that drags wants to scroll
  const config = { displayModeBar: false, doubleClick: "reset", showTips: false };
  let figure = null, library = null, failed = false, seen = null;
  const plot = {
    box, height,
    draw(next) { figure = next; plot.redraw(); },
    redraw() {
      if (!figure || !width) return;
      if (!library) { fetchLibrary(); return; }
      const { traces, layout } = figure(width, seen);
      library.react(box, traces, deepMerge(plainLayout(isTouch), layout, { width, height: plot.height }));
    },
    purge() { plots.delete(plot); if (library) library.purge(box); },
  };
  let width = 0, asked = false;
  function fetchLibrary() {
    if (asked) return;
    asked = true;
    plotly().then((found) => {
      library = found;
      box.replaceChildren();
      library.newPlot(box, [], deepMerge(plainLayout(isTouch), { width, height: plot.height }), config)
        .then(() => box.on("plotly_relayout", zoomed));
      plot.redraw();
    }, () => {
      asked = false;
      if (!failed) box.replaceChildren(h("p", { class: "ms-hint" }, "The charts could not be fetched from the studio; trying again …"));
      failed = true;
      setTimeout(plot.redraw, 3000);
    });
  }
  function zoomed(change) { // so the ticks become those of what is seen now
    const [from, to] = change["xaxis.range"] || [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    if (from === undefined && !change["xaxis.autorange"]) return;
    seen = from === undefined ? null : [from, to];
    plot.redraw();
  }
  new ResizeObserver(() => {
    const wide = Math.floor(box.clientWidth);
    if (wide === width) return;
    width = wide;
    plot.redraw();
  }).observe(box);
  plots.add(plot);
  return plot;
}

function plainLayout(isTouch) {
  const soft = tone("var(--ms-soft)"), line = tone("var(--ms-line)");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, tickfont: { color: soft, size: 12 }, ticklabeloverflow: "allow", title: { font: { color: soft, size: 12 }, standoff: 6 } };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: tone("var(--font)"), color: tone("var(--ms-ink)"), size: 12.5 },
    margin: { l: 42, r: 10, t: 8, b: 38 },
    xaxis: { ...axis, showgrid: false, zeroline: false }, yaxis: { ...axis, zeroline: false, fixedrange: true },
    legend: { orientation: "h", traceorder: "normal", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" },
    hovermode: "x unified", dragmode: isTouch ? false : "zoom", uirevision: "kept", showlegend: false,
    hoverlabel: { bgcolor: tone("var(--ms-paper)"), bordercolor: line, font: { color: tone("var(--ms-ink)"), size: 12.5 } },
  };
}
function deepMerge(...parts) {
  const isPlain = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const whole = {};
  for (const part of parts) {
    for (const [key, value] of Object.entries(part)) {
      whole[key] = isPlain(value) && isPlain(whole[key]) ? deepMerge(whole[key], value) : value;
    }
  }
  return whole;
}

// A row of buttons of which one is chosen: choices = [[value, text], …].
function segments(label, choices, chosen, choose) {
  const buttons = choices.map(([value, text]) => h("button", {
    type: "button", class: "ms-segment", "aria-pressed": String(value === chosen), "data-value": value,
    onclick: () => { show(value); choose(value); },
  }, text));
  const show = (value) => buttons.forEach((each) => each.setAttribute("aria-pressed", String(each.dataset.value === value)));
  return { element: h("div", { class: "ms-segments", role: "group", "aria-label": label }, buttons), show };
}
