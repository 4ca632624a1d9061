// Check, merge, watch, cancel, and what came of it.
// desk: { recipe(), missing(), adopt(state), name(), setName(text), setTokenizer(source) }
function mergePanel(desk) {
  const name = h("input", { id: "ms-name", class: "ms-text", type: "text", spellcheck: "false", autocomplete: "off", maxlength: 80, "aria-describedby": "ms-name-hint" });
  const nameHint = h("p", { class: "ms-hint", id: "ms-name-hint" });
  const checkButton = h("button", { type: "button", class: "ms-button", onclick: () => check() }, "Check");
  const mergeButton = h("button", { type: "button", class: "ms-button ms-primary", onclick: () => merge() }, "Merge");
  const why = h("p", { class: "ms-hint", "aria-live": "polite" });
  const checked = h("div", { class: "ms-checked", "aria-live": "polite" });
  const work = h("div", { class: "ms-work" });
  const made = h("div");
  const element = h("section", { class: "ms-card", "aria-label": "Merge" },
    h("h2", {}, "Merge"),
    h("label", { class: "ms-label", for: "ms-name" }, "Name of the result"),
    h("div", { class: "ms-row ms-act" }, name, checkButton, mergeButton), nameHint, why, checked, work, made);
  let state = null, round = 0, checking = 0, acting = false, shownJob = "", shownMade = "";

  name.addEventListener("input", () => { desk.setName(name.value); refresh(); });
  const nameProblem = () => {
    const text = name.value;
    if (!/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}$/.test(text) || /(\.partial|\.)$/.test(text)) return "Use letters, digits, dots, dashes and underscores.";
    return (state?.results || []).some((result) => result.name === text) ? `A result named “${text}” exists; choose another name.` : "";
  };
  const isLive = () => ["running", "cancelling"].includes(state?.job.state);

  function refresh() {
    if (document.activeElement !== name && name.value !== desk.name()) name.value = desk.name();
    const owner = state?.access.owner, problem = nameProblem();
    put(nameHint, problem || (owner ? "A folder under merges in the studio's data." : ""));
    nameHint.classList.toggle("ms-error", Boolean(problem));
    name.setAttribute("aria-invalid", String(Boolean(problem)));
    mergeButton.disabled = !owner || isLive() || acting || Boolean(problem);
    checkButton.disabled = !owner || checking > 0 || isLive();
    put(checkButton, checking ? "Checking …" : "Check");
    if (owner && !isLive() && desk.missing().length > 0) put(why, `Not on this machine: ${desk.missing().join(", ")}. Merge fetches them from the Hub.`);
    else put(why, !state || owner ? "" : state.access.token_set
      ? "Look and tune freely. Checking and merging are for the owner: enter the owner token at the top."
      : "Look and tune freely. Merging is off: this studio can be reached by others and has no owner token.");
  }

  async function check() {
    const mine = checking = ++round;
    refresh();
    const found = await ask("check_merge", { recipe: desk.recipe(), name: nameProblem() ? "check" : name.value });
    if (mine === checking) { checking = 0; checked.replaceChildren(...verdict(found, desk)); }
    refresh();
  }
  async function merge() {
    acting = true;
    refresh();
    const answer = await ask("start_merge", { recipe: desk.recipe(), name: name.value });
    acting = false;
    if (answer.error) checked.replaceChildren(alertBox(answer.error));
    else {
      checked.replaceChildren();
      desk.adopt(answer);
      work.scrollIntoView({ block: "nearest", behavior: "smooth" });
    }
    refresh();
  }
  async function cancel() {
    const answer = await ask("cancel_merge", { number: state.job.number });
    if (answer.error) checked.replaceChildren(alertBox(answer.error)); else desk.adopt(answer);
  }

  function show(next) {
    state = next;
    const job = state.job, key = `${job.number} ${job.state}`;
    if (key !== shownJob) {
      shownJob = key;
      work.replaceChildren(...jobView(job, cancel));
      if (job.state === "done" && desk.name() === job.name) desk.setName("");
    }
    updateBar(work, job);
    const list = JSON.stringify(state.results.map((result) => result.path));
    if (list !== shownMade) { shownMade = list; made.replaceChildren(...madeView(state.results)); }
    refresh();
  }
  return { element, show, refresh, check, clear: () => { checking = 0; checked.replaceChildren(); } };
}

// Whose vocabulary has what, and the setting that merges by token.
function vocabularies(table, desk) {
  const count = (value) => (value === null || value === undefined ? "?" : value.toLocaleString("en"));
  const own = (entry) => entry.own.map((item) => `${item.token} (${item.id})`).join(", ") + (entry.owns > entry.own.length ? ` and ${count(entry.owns - entry.own.length)} more` : "");
  const choose = (source, text) => h("button", { type: "button", class: "ms-button ms-small", onclick: () => desk.setTokenizer(source) }, text);
  return [
    h("div", { class: "ms-scroll", tabindex: 0, role: "group", "aria-label": "The vocabularies" }, h("table", {}, h("thead", {}, h("tr", {}, ["Model", "Rows", "Tokens", "Lacks", "At other ids", "Has, and some other lacks"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, table.map((entry) => h("tr", {}, h("th", { scope: "row" }, entry.model), [entry.rows, entry.tokens, entry.lacks, entry.moved].map((value) => h("td", {}, count(value))), h("td", {}, own(entry) || "–")))))),
    h("div", { class: "ms-row" }, choose("base", "Merge by token: the base’s tokens"), choose("union", "Merge by token: everyone’s tokens")),
  ];
}
function verdict(found, desk) {
  if (found.error) return [alertBox(found.error), ...(found.vocabularies ? vocabularies(found.vocabularies, desk) : [])];
  const many = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
  const notes = [...(found.warnings || []), ...(found.notes || [])];
  return [
    h("p", { class: "ms-good" }, "Ready to merge."),
    found.bytes_missing > 0 && h("p", {}, `Downloads ${bytes(found.bytes_missing)} first.`),
    h("p", {}, `Reads ${bytes(found.bytes_read)} from ${many(found.sources.length, "source")}, writes ${bytes(found.bytes_written)} of ${found.dtype} `
      + `in ${many(found.shards, "file")}: ${many(found.layers, "layer")}, ${many(found.tensors, "tensor")}. `
      + `Takes ${bytes(found.peak_memory)} of memory and ${duration(found.seconds)} on a disk that moves 1 GB/s.`),
    notes.length > 0 && h("ul", { class: "ms-warn" }, notes.map((line) => h("li", {}, line))),
    h("details", { class: "ms-details" }, h("summary", {}, "Sources"), h("ul", { class: "ms-paths" }, found.sources.map((source) =>
      h("li", {}, h("code", {}, source.path), ` ${bytes(source.bytes)}, ${source.dtype}${source.bytes_missing ? `, ${bytes(source.bytes_missing)} to download` : ""}`)))),
  ].filter(Boolean);
}

function jobView(job, cancel) {
  const title = job.name ? `“${job.name}”` : "A merge";
  if (job.state === "idle") return [];
  if (job.state === "running" || job.state === "cancelling") {
    const button = job.name !== undefined && h("button", { type: "button", class: "ms-button", disabled: job.state === "cancelling", onclick: (event) => { event.target.disabled = true; cancel(); } },
      job.state === "cancelling" ? "Cancelling …" : "Cancel");
    return [
      h("div", { class: "ms-row" }, h("h3", {}, `${title} is being merged`), button),
      h("div", { class: "ms-bar", role: "progressbar", "aria-label": "Progress of the merge", "aria-valuemin": 0, "aria-valuemax": 100 }, h("div")),
      h("p", { class: "ms-numbers" }), h("p", { class: "ms-hint ms-tensor" }),
    ];
  }
  const talk = (job.talk || []).length > 0 && h("details", { class: "ms-details" }, h("summary", {}, "What it said"), h("pre", {}, job.talk.join("\n")));
  if (job.state === "done") return doneView(job, title);
  if (job.state === "cancelled") {
    return [h("h3", {}, `${title}: cancelled`), h("p", {}, "The work done so far is kept. Merge the same recipe under the same name to go on from there."), talk].filter(Boolean);
  }
  return [h("h3", {}, `${title}: failed`), alertBox(job.error || "The merge failed; its owner sees why."), talk].filter(Boolean);
}

function doneView(job, title) {
  const report = job.report || {}, size = report.bytes_written ?? job.total;
  const notes = [...(report.warnings || []), ...(report.notes || [])];
  return [
    h("h3", { class: "ms-good" }, `${title} is merged`),
    h("p", {}, `${bytes(size)} in ${duration(report.seconds ?? job.seconds)}.`),
    job.path && h("div", { class: "ms-row ms-path" }, h("code", {}, job.path), copyButton(job.path, "path")),
    job.path && onward(job.path, job.name),
    job.path && reportTable(report, size),
    notes.length > 0 && h("ul", { class: "ms-warn" }, notes.map((line) => h("li", {}, line))),
  ].filter(Boolean);
}

function reportTable(report, size) {
  const summary = report.summary || {}, rows = [];
  rows.push(["Size", `${bytes(size)}${report.dtype ? `, ${report.dtype}` : ""}`]);
  if (summary.parameters) rows.push(["Parameters", `${summary.parameters.toLocaleString("en")} in ${summary.layers} layers`]);
  const names = Object.keys(summary.shares || {});
  for (const model of names) {
    const alike = summary.similarity?.[model];
    rows.push([shortName(model, names), `${percent(summary.shares[model])} of the weights${alike === undefined ? "" : `, cosine ${alike.toFixed(4)}`}`]);
  }
  if (summary.norm_ratio !== undefined) rows.push(["Norm", `${summary.norm_ratio.toFixed(4)} of the sources' mean`]);
  return h("table", { class: "ms-report" }, h("caption", {}, "Report"), h("tbody", {}, rows.map(([key, value]) => h("tr", {}, h("th", { scope: "row" }, key), h("td", {}, value)))));
}

function onward(path, name) { // what a merge is made for
  const go = (tab, text) => h("button", { type: "button", class: "ms-button ms-small", "aria-label": `${text}: ${name}`, onclick: () => goOnIn(tab, path) }, text);
  return h("div", { class: "ms-row" }, go("Serve", "Serve it"), go("Blind", "Compare it blind"));
}

function updateBar(work, job) {
  const bar = work.querySelector(".ms-bar");
  if (!bar) return;
  const part = job.total ? Math.min(1, job.done / job.total) : 0;
  bar.classList.toggle("ms-unknown", !job.total);
  bar.firstChild.style.width = `${100 * part}%`;
  if (job.total) bar.setAttribute("aria-valuenow", Math.round(100 * part));
  const words = job.total ? [`${Math.round(100 * part)} %`, `${bytes(job.done)} of ${bytes(job.total)}`] : [`${job.phase} …`];
  if (job.total && job.phase === "download") words.unshift("downloading the sources");
  if (job.speed) words.push(`${bytes(job.speed)}/s`);
  if (job.seconds_left !== null && job.seconds_left !== undefined) words.push(`${duration(job.seconds_left)} left`);
  words.push(`${duration(job.seconds)} so far`);
  work.querySelector(".ms-numbers").textContent = words.join(" · ");
  work.querySelector(".ms-tensor").textContent = job.tensor || " ";
}

function madeView(results) {
  if (!results.length) return [];
  return [h("details", { class: "ms-details" }, h("summary", {}, `Made so far: ${results.length}`),
    h("ul", { class: "ms-paths" }, results.map((result) => h("li", {}, h("strong", {}, result.name), " ",
      h("time", { datetime: new Date(1000 * result.made).toISOString() }, new Date(1000 * result.made).toLocaleString()), h("code", {}, result.path), onward(result.path, result.name), oldReport(result.name)))))];
}

function oldReport(name) { // asked for when it is looked at
  const body = h("div"), details = h("details", { class: "ms-details" }, h("summary", { "aria-label": `Report of ${name}` }, "Report"), body);
  details.addEventListener("toggle", async () => {
    if (!details.open) return;
    const { error, report } = await ask("report", { name });
    if (error) { body.replaceChildren(alertBox(error)); return; }
    body.replaceChildren(report.bytes_written === undefined ? h("p", { class: "ms-hint" }, "Its report cannot be read.") : reportTable(report, report.bytes_written));
  });
  return details;
}
