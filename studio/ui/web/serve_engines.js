// The engines as they stand: progress of a start, what they do now, why one failed, and its log.
const PHASES = { starting: "starting", ready: "ready", switching: "changing weights", stopping: "stopping", stopped: "stopped", failed: "failed" };

// desk: { act(id, action, model), attach(fields), models(), logOf(), showLog(id, isOpen) }
function enginePanel(desk) {
  const none = h("p", { class: "ms-hint" }, "No engine runs. Choose models, look at the plan, and start it.");
  const list = h("div", { class: "ms-engines" }, none);
  const found = h("div"), warning = h("div", { "aria-live": "polite" });
  const told = h("div", { "aria-live": "polite" });
  const attach = attachForm(desk);
  const element = h("section", { class: "ms-card", "aria-label": "Engines" }, h("h2", {}, "Engines"), list, warning, told, found, attach);
  const cards = new Map();

  function show(state) {
    const engines = state.engines;
    const ids = engines.map((engine) => engine.id);
    for (const id of [...cards.keys()]) if (!ids.includes(id)) { cards.get(id).element.remove(); cards.delete(id); }
    none.hidden = engines.length > 0;
    for (const engine of engines) {
      if (!cards.has(engine.id)) { cards.set(engine.id, engineCard(engine, desk)); list.append(cards.get(engine.id).element); }
      cards.get(engine.id).show(engine, state);
    }
    if ((warning.dataset.text || "") !== (state.warning || "")) {
      warning.dataset.text = state.warning || "";
      warning.replaceChildren(...(state.warning ? [h("p", { class: "ms-warn" }, upper(state.warning))] : []));
    }
    if (state.found?.length) {
      if (!found.hasChildNodes()) found.replaceChildren(h("details", { class: "ms-details" }, h("summary", {}, "Found at the start, from an earlier life"), h("ul", { class: "ms-paths" }, state.found.map((line) => h("li", {}, line)))));
    } else found.replaceChildren();
  }
  return { element, show, tell: (error) => told.replaceChildren(...(error ? [alertBox(error)] : [])) };
}

function engineCard(first, desk) {
  const element = h("article", { class: "ms-engine" });
  const log = h("pre", { class: "ms-log", tabindex: 0, "aria-label": "Log of the engine" });
  const logBox = h("details", { class: "ms-details", ontoggle: () => desk.showLog(first.id, logBox.open) }, h("summary", {}, "Log"), log);
  const numbers = h("p", { class: "ms-numbers" });
  const work = h("div", { class: "ms-progress" });
  const body = h("div", { class: "ms-engine-body" });
  element.append(body, work, numbers, logBox);
  let shown = "";

  function show(engine, state) {
    const key = JSON.stringify([engine.phase, engine.problem, engine.line, engine.spec, engine.identity, engine.switch, engine.note, engine.verified, engine.digest, desk.models().map((each) => each.model)]);
    if (key !== shown) {
      shown = key;
      element.setAttribute("aria-label", nameOf(engine));
      body.replaceChildren(...engineHead(engine, desk));
      work.replaceChildren(...(["starting", "switching", "stopping"].includes(engine.phase) ? progressView() : []));
    }
    updateProgress(work, engine);
    put(numbers, loadWords(engine));
    numbers.hidden = !numbers.textContent;
    if (logBox.open && desk.logOf() === engine.id) {
      const follows = log.scrollTop + log.clientHeight >= log.scrollHeight - 30;
      put(log, (state.log || []).join("\n") || "nothing yet");
      if (follows) log.scrollTop = log.scrollHeight;
    } else if (logBox.open) logBox.open = false; // another engine's log is shown
  }
  return { element, show };
}

const nameOf = (engine) => engine.spec.label || shortOf(engine.spec.model) || engine.spec.url;
function engineHead(engine, desk) {
  const spec = engine.spec, live = engine.is_live, id = engine.id;
  const act = (text, action, more) => h("button", { type: "button", class: "ms-button ms-small", onclick: () => desk.act(id, action), ...more }, text);
  const chip = h("span", { class: `ms-chip ms-phase-${engine.phase}`, role: "status" }, PHASES[engine.phase] || engine.phase);
  const others = desk.models().filter((entry) => entry.model !== spec.model && entry.here);
  const pick = engine.phase === "ready" && engine.can_switch && others.length > 0
    && switchForm(id, others, desk);
  return [
    h("div", { class: "ms-row ms-between" }, h("h3", {}, nameOf(engine)), chip),
    h("p", { class: "ms-hint" }, specWords(engine)),
    engine.problem && h("div", {}, alertBox(engine.problem), engine.line && h("code", { class: "ms-soft ms-cause" }, engine.line)),
    engine.note && h("p", { class: "ms-hint" }, engine.note),
    engine.switch && engine.phase === "ready" && h("p", { class: "ms-hint" }, switchWords(engine.switch)),
    pick,
    h("div", { class: "ms-row" },
      live && act(spec.engine === "endpoint" ? "Detach" : "Stop", "stop", { disabled: engine.phase === "stopping" }),
      engine.phase !== "stopping" && act(live ? "Restart" : "Start again", "restart"),
      !live && act("Remove", "forget")),
  ].filter(Boolean);
}
function switchForm(id, others, desk) {
  const select = h("select", { class: "ms-select", "aria-label": "Model to change to" }, others.map((entry) => h("option", { value: entry.model }, entry.label)));
  return h("div", { class: "ms-row" }, select, h("button", { type: "button", class: "ms-button ms-small", onclick: () => desk.act(id, "switch", select.value) }, "Change weights"));
}
function specWords(engine) {
  const spec = engine.spec, identity = engine.identity;
  const words = [spec.engine === "endpoint" ? `endpoint ${spec.url}` : spec.engine === "vllm" ? "vLLM" : "embedded engine"];
  if (spec.tensor_parallel_size > 1) words.push(`tensor parallel ${spec.tensor_parallel_size}`);
  if (spec.pipeline_parallel_size > 1) words.push(`pipeline ${spec.pipeline_parallel_size}`);
  if (spec.gpus.length) words.push(`GPU ${spec.gpus.join(", ")}`);
  if (identity?.dtype) words.push(identity.dtype);
  if (identity?.quantisation) words.push(identity.quantisation);
  if (engine.max_model_len) words.push(`${engine.max_model_len.toLocaleString("en")} tokens of context`);
  if (!engine.is_live) return words.join(" · "); // what follows was true of what ran
  if (engine.seconds_to_ready) words.push(`up in ${duration(engine.seconds_to_ready)}`);
  if (engine.verified) words.push(`${engine.verified} verified`);
  if (engine.digest) words.push(`weights ${engine.digest.slice(0, 12)}`);
  return words.join(" · ");
}
function switchWords(done) {
  const size = done.bytes_read, seconds = done.total_seconds ?? Object.values(done.seconds || {}).reduce((sum, each) => sum + each, 0);
  if (!seconds) return "";
  return `Weights changed in ${seconds.toFixed(1)} s${size ? `: ${bytes(size)}, ${bytes(size / seconds)}/s` : ""}.`;
}
function progressView() {
  return [h("div", { class: "ms-bar ms-unknown", role: "progressbar", "aria-label": "Progress of the engine", "aria-valuemin": 0, "aria-valuemax": 100 }, h("div")), h("p", { class: "ms-hint" })];
}
function updateProgress(work, engine) {
  const line = work.querySelector(".ms-bar");
  if (!line) return;
  const { phase, done, total } = engine.progress;
  const isCounted = engine.phase !== "stopping" && total > 0;
  line.classList.toggle("ms-unknown", !isCounted);
  line.firstChild.style.width = isCounted ? `${(100 * done) / total}%` : "";
  if (isCounted) line.setAttribute("aria-valuenow", Math.round((100 * done) / total));
  else line.removeAttribute("aria-valuenow");
  const what = engine.phase === "stopping" ? PHASES.stopping : phase;
  const age = Math.max(0, Date.now() / 1000 - engine.since);
  work.lastChild.textContent = [isCounted ? `${what}: ${phase === "downloading" ? `${bytes(done)} of ${bytes(total)}` : `${done} of ${total}`}` : `${what} …`, `${duration(age)} so far`].join(" · ");
}
function loadWords(engine) {
  const load = engine.load;
  if (engine.phase !== "ready" || !load) return "";
  const words = [];
  if (load.tokens_per_second !== null) words.push(`${load.tokens_per_second.toFixed(load.tokens_per_second < 10 ? 1 : 0)} tokens/s`);
  words.push(`${load.running} running${load.waiting ? `, ${load.waiting} waiting` : ""}`);
  if (load.cache_usage !== null) words.push(`cache ${percent(load.cache_usage)}`);
  if (load.memory_bytes) words.push(`${bytes(load.memory_bytes)} of main memory`);
  return words.join(" · ");
}

function attachForm(desk) {
  const text = (label, more) => h("input", { class: "ms-text", type: "text", spellcheck: "false", autocomplete: "off", "aria-label": label, placeholder: label, maxlength: 500, ...more });
  const url = text("URL: http://HOST:PORT", { type: "url", required: true }), key = text("Key, if it needs one", { type: "password" }), model = text("Model's name there, if it has several");
  const form = h("form", { class: "ms-attach", onsubmit: async (event) => {
    event.preventDefault();
    if (await desk.attach({ url: url.value, key: key.value, model: model.value })) key.value = ""; // a wrong key is typed again, not the rest
  } }, url, key, model, h("button", { type: "submit", class: "ms-button" }, "Attach"));
  return h("details", { class: "ms-details" }, h("summary", {}, "Attach to a server that runs elsewhere"), form);
}
