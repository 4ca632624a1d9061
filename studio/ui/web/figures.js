// What the charts show, as Plotly's traces and layouts: numbers of a preview in, figures out.
const OUTER_NAMES = { embeddings: "emb", norm: "norm", head: "head" };

// One axis for all charts: the layers 0 … L - 1, before them the embeddings, behind them norm and
// head, as far out as their names need. `seen` is the part that is zoomed to, or null.
function layerAxis(rows, width, seen) {
  const layers = rows.filter((row) => row.startsWith("layer")).length;
  const step = Math.max(1, (46 * (layers + 4)) / Math.max(200, width - 60));
  let behind = layers - 0.5 - step * 0.3, first = 0;
  const x = rows.map((row) => {
    if (row.startsWith("layer")) return Number(row.slice(6));
    if (row === "embeddings") { first = -0.5 - step * 0.7; return first; }
    behind += step;
    return behind;
  });
  const range = [first - (first ? step : 1) / 2, Math.max(layers - 0.5, ...x.map((at) => at + (at > layers - 1 ? step / 2 : 0)))];
  const [from, to] = seen || range;
  const outer = rows.map((row, k) => [row, x[k]]).filter(([row]) => !row.startsWith("layer"));
  const low = Math.max(0, Math.ceil(from)), high = Math.min(layers - 1, Math.floor(to));
  const inner = high >= low ? ticks(high - low + 1, width < 420 ? 5 : 9).map((tick) => low + tick) : [];
  return {
    x, step, layers,
    isLayer: rows.map((row) => row.startsWith("layer")),
    axis: { range, tickmode: "array", tickvals: [...outer.map(([, at]) => at), ...inner],
            ticktext: [...outer.map(([row]) => OUTER_NAMES[row] || row), ...inner.map(String)],
            title: { text: "layer" }, hoverformat: ".0f", tickangle: 0 },
  };
}
const onlyWhere = (values, keep) => values.filter((_, k) => keep[k]);

// Lines over the layers, and one trace an axis for the marks of the tensors outside of them: every
// trace costs time to draw. lines: [{ values, name, colour, dash, axis }].
function layerLines(place, lines) {
  const marks = new Map(["y", ...lines.map((line) => line.axis || "y")].map((axis) => [axis, { type: "scatter", mode: "markers", yaxis: axis, x: [], y: [], customdata: [],
    marker: { color: [], size: 7 }, showlegend: false, hovertemplate: "%{customdata}: %{y:.4~g}<extra></extra>" }]));
  const x = onlyWhere(place.x, place.isLayer), few = place.layers <= 12;
  const drawn = lines.map(({ values, name, colour, dash, axis }) => {
    const mark = marks.get(axis || "y");
    place.x.forEach((at, k) => { if (!place.isLayer[k]) { mark.x.push(at); mark.y.push(values[k]); mark.customdata.push(name); mark.marker.color.push(colour); } });
    return { type: "scatter", mode: few ? "lines+markers" : "lines", x, y: onlyWhere(values, place.isLayer), name, line: { color: colour, width: 2, dash }, marker: { color: colour, size: 6 },
             hovertemplate: "%{y:.4~g}", ...(axis ? { yaxis: axis, showlegend: false } : {}) };
  });
  return [...drawn, ...marks.values()];
}
// The space between value - error and value + error, over the layers.
function layerBand(place, values, errors, colour, axis = "y") {
  const keep = place.isLayer, x = onlyWhere(place.x, keep);
  const edge = (sign) => onlyWhere(values.map((value, k) => value + sign * errors[k]), keep);
  const plain = { type: "scatter", mode: "lines", x, line: { width: 0 }, hoverinfo: "skip", showlegend: false, yaxis: axis };
  return [{ ...plain, y: edge(-1) }, { ...plain, y: edge(1), fill: "tonexty", fillcolor: colour }];
}

function sharesFigure(found, desk, width, seen) {
  const place = layerAxis(found.rows, width, seen);
  const areas = [];
  // What is drawn is never negative and adds up to 1; what is told is exact.
  const drawn = found.shares.map((parts) => {
    const held = parts.map((part) => Math.max(0, part)), total = held.reduce((sum, part) => sum + part, 0) || 1;
    return held.map((part) => part / total);
  });
  const isArea = place.layers > 1, asBars = place.isLayer.map((isLayer) => !isLayer || !isArea);
  // All bars are one trace, each on top of the one before: fewer traces draw faster.
  const bars = { type: "bar", x: [], y: [], base: [], customdata: [], marker: { color: [] }, width: place.step * 0.86,
                 hovertemplate: "%{customdata[0]}: %{customdata[1]:.1%}<extra></extra>" };
  found.sources.forEach((model, source) => {
    const colour = tone(desk.colour(model)), name = desk.label(model);
    if (isArea) {
      const of = (rows) => onlyWhere(rows.map((parts) => parts[source]), place.isLayer);
      areas.push({ name, hovertemplate: "%{customdata:.1%}", type: "scatter", mode: "lines", stackgroup: "shares", x: onlyWhere(place.x, place.isLayer),
                   y: of(drawn), customdata: of(found.shares), line: { width: 1, color: tone("var(--ms-paper)") }, fillcolor: colour });
    }
    place.x.forEach((at, row) => {
      if (!asBars[row]) return;
      bars.x.push(at); bars.y.push(drawn[row][source]); bars.marker.color.push(colour);
      bars.base.push(drawn[row].slice(0, source).reduce((sum, part) => sum + part, 0));
      bars.customdata.push([name, found.shares[row][source]]);
    });
  });
  return {
    traces: [...areas, bars, ...(found.share_error && isArea ? shareBands(found, drawn, place) : [])],
    layout: { xaxis: place.axis, barmode: "overlay", yaxis: { range: [0, 1], tickformat: ".0%", tickvals: [0, 0.5, 1] },
              uirevision: place.layers },
  };
}
// Each border between two areas is off by at most the sum of the errors on either side of it.
function shareBands(found, drawn, place) {
  const bands = [];
  for (let border = 0; border < found.sources.length - 1; border += 1) {
    const height = drawn.map((parts) => parts.slice(0, border + 1).reduce((sum, part) => sum + part, 0));
    const errors = found.share_error.map((each) => {
      const sum = (some) => some.reduce((total, error) => total + error, 0);
      return Math.min(sum(each.slice(0, border + 1)), sum(each.slice(border + 1)));
    });
    bands.push(...layerBand(place, height, errors, tone("var(--ms-ink)", 0.35)));
  }
  return bands;
}

// What each stage is set to: a line a stage, thinner ones where filters part the modules.
function settingsFigure(found, desk, width, seen) {
  const place = layerAxis(found.rows, width, seen), lines = [];
  found.stages.forEach((stage, index) => {
    const colour = tone(desk.stageColour(index)), title = desk.stageTitle(index);
    for (const [name, values] of Object.entries(stage.values)) {
      if (desk.isSwitch(index, name)) continue;
      const called = name === "t" ? title : `${title}, ${name}`;
      const groups = Object.entries(stage.groups?.[name] || {});
      if (Array.isArray(values[0])) {
        values[0].forEach((_, input) => {
          const model = desk.inputs(index)[input];
          lines.push({ values: values.map((row) => row[input]), name: `${called} of ${desk.label(model)}`, colour: tone(desk.colour(model)) });
        });
      } else if (!groups.length) {
        lines.push({ values, name: called, colour });
      } else {
        groups.forEach(([group, some], k) => lines.push({ values: some, name: `${called}, ${group}`, colour, dash: ["solid", "dash", "dot", "dashdot"][k % 4] }));
      }
    }
  });
  const all = lines.flatMap((line) => line.values).filter(Number.isFinite);
  const low = Math.min(0, ...all), high = Math.max(1, ...all), air = 0.04 * (high - low);
  return { traces: layerLines(place, lines), layout: { xaxis: place.axis, yaxis: { range: [low - air, high + air] }, showlegend: true, uirevision: `${place.layers} ${lines.length}` } };
}

// Cosine between the result and each source, and below it the result's norm.
function similarityFigure(found, desk, width, seen) {
  const place = layerAxis(found.rows, width, seen);
  const lines = found.sources.map((model, k) => ({ values: found.similarity.map((row) => row[k]), name: desk.label(model), colour: tone(desk.colour(model)) }));
  lines.push({ values: found.norm_ratio, name: "norm ratio", colour: tone("var(--ms-soft)"), axis: "y2" });
  const all = found.similarity.flat().filter(Number.isFinite), low = Math.min(...all), high = Math.max(...all), air = Math.max(0.08 * (high - low), 1e-4);
  const norms = [...found.norm_ratio.filter(Number.isFinite), 1], room = Math.max(0.08 * (Math.max(...norms) - Math.min(...norms)), 2e-3);
  return { traces: layerLines(place, lines), layout: {
    xaxis: { ...place.axis, anchor: "y2" }, showlegend: true, uirevision: place.layers, margin: { l: 52 },
    yaxis: { domain: [0.4, 1], title: { text: "cosine" }, range: [low - air, Math.min(high + air, 1 + 0.3 * air)], nticks: 5 },
    yaxis2: { domain: [0, 0.27], title: { text: "norm", font: { color: tone("var(--ms-soft)"), size: 12 }, standoff: 6 }, range: [Math.min(...norms) - room, Math.max(...norms) + room], gridcolor: tone("var(--ms-line)"),
              tickfont: { color: tone("var(--ms-soft)"), size: 12 }, zeroline: false, fixedrange: true, nticks: 4 },
  } };
}

// How much of each source's task vector is left in the result.
function survivesFigure(found, desk, width, seen) {
  const place = layerAxis(found.rows, width, seen);
  return {
    traces: layerLines(place, found.sources.map((model, k) => ({ values: found.survives.map((row) => row[k]), name: desk.label(model), colour: tone(desk.colour(model)) }))),
    layout: { xaxis: place.axis, showlegend: true, uirevision: place.layers, yaxis: { tickformat: ".0%", rangemode: "tozero" } },
  };
}

// The angle between the two inputs of each stage.
function anglesFigure(found, desk, width, seen) {
  const place = layerAxis(found.rows, width, seen), bands = [], lines = [];
  found.stages.forEach((stage, index) => {
    if (!stage.degrees) return;
    const colour = desk.stageColour(index);
    if (stage.degrees_error) bands.push(...layerBand(place, stage.degrees, stage.degrees_error, tone(colour, 0.25)));
    lines.push({ values: stage.degrees, name: desk.stageTitle(index), colour: tone(colour) });
  });
  return { traces: [...layerLines(place, lines), ...bands], layout: { xaxis: place.axis, showlegend: true, uirevision: place.layers, yaxis: { ticksuffix: "°", rangemode: "tozero" } } };
}

// Layers × modules: `what` is "i,j" for the angle between two sources, or k for the distance from one.
function heatFigure(found, desk, width, seen, what) {
  const { layers, modules, angle, distance } = found.heatmap;
  const isAngle = what.includes(",");
  const table = isAngle ? angle[what] : distance[Number(what)];
  const rows = layers.map((layer) => `layer ${layer}`);
  const axis = { ...layerAxis(rows, width, seen).axis, range: [-0.5, layers.length - 0.5] };
  const gap = layers.length > 40 ? 0 : 1; // without gaps Plotly draws the cells as one picture, twice as fast
  const names = modules.map((module) => module.replace(/^self_attn\./, "").replace(/^mlp\./, "").replace("_layernorm", " norm").replace("post_attention", "post-attn"));
  return {
    traces: [{
      type: "heatmap", x: layers, y: names, z: modules.map((_, k) => table.map((row) => row[k])), customdata: modules,
      colorscale: ["ground", "low", "high", "top"].map((name, k) => [k / 3, tone(`var(--ms-heat-${name})`)]),
      hovertemplate: isAngle ? "layer %{x}, %{y}: %{z:.3~g}°<extra></extra>" : "layer %{x}, %{y}: %{z:.3~p}<extra></extra>", hoverongaps: false,
      xgap: gap, ygap: gap,
      colorbar: { thickness: 9, outlinewidth: 0, len: 1, x: 1.01, tickfont: { color: tone("var(--ms-soft)"), size: 12 }, nticks: 5, ...(isAngle ? { ticksuffix: "°" } : { tickformat: ".0%" }) },
    }],
    layout: { xaxis: axis, yaxis: { autorange: "reversed", automargin: true, ticks: "" }, hovermode: "closest", margin: { l: 76, r: 6 }, uirevision: layers.length },
  };
}
