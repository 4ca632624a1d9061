// Results of a trial: the verdict in words, what it rests on, and files. desk: { trial, leave() }
const share = (value) => value === null || value === undefined ? "–" : `${Math.round(100 * value)} %`;
const range = (low, high) => low === null || low === undefined ? "" : ` (${Math.round(100 * low)} to ${Math.round(100 * high)} %)`;

function resultsView(desk) {
  const box = h("div", { class: "bl-results" }, h("p", { class: "ms-hint" }, "Counting …"));
  const element = h("section", { class: "bl-rate", "aria-label": "Results" },
    h("div", { class: "bl-line" }, h("button", { type: "button", class: "ms-button ms-small", onclick: () => desk.leave() }, "‹ Trials"), h("strong", { class: "bl-trial" }, `Results of ${desk.trial}`)), box);
  let drawn = [];
  async function load(anyway) {
    const found = await ask("results", { trial: desk.trial, code: recall(RATER_KEY), anyway });
    if (found.error) { box.replaceChildren(alertBox(found.error)); if (found.offline) setTimeout(() => load(anyway), 2000); return; }
    if (!found.results) {
      box.replaceChildren(h("div", { class: "ms-card" }, h("p", {}, `You have still to rate: ${found.left}. Who knows the score rates differently.`),
        h("div", { class: "ms-row" }, h("button", { type: "button", class: "ms-button ms-primary", onclick: () => rate(desk.trial) }, "Rate on"), h("button", { type: "button", class: "ms-button", onclick: () => load(true) }, "Show them anyway"))));
      return;
    }
    show(found);
  }
  function show({ results: found, words, card, charts, merges }) {
    const parts = [found.primary, ...found.others, ...found.categories];
    drawn = charts.map(chartView);
    box.replaceChildren(...[
      h("section", { class: "ms-card" }, h("h3", {}, "Verdict"), h("p", { class: "bl-sentence" }, words[0]), words.slice(1).map((line) => h("p", {}, line)),
        h("p", { class: "ms-hint" }, `Planned: ${found.plan.votes} votes on ${found.plan.prompts} prompts${found.alpha ? `; error rate ${number(100 * found.alpha)} %` : ""}. Design ${found.hash.slice(0, 12)}.`),
        h("div", { class: "ms-row" }, file("report", "Report (HTML)"), file("votes", "Votes that count (CSV)"), file("ratings", "All ratings (CSV)"), copyButton(card, "paragraph for the model card"), merges.map(intoCard))),
      ...charts.map(({ title, note }, index) => h("section", { class: "ms-card" }, h("h3", {}, title), h("p", { class: "ms-hint" }, note), drawn[index].box)),
      found.raters.length > 0 && h("section", { class: "ms-card" }, h("h3", {}, "Comparisons"), comparisonTable(parts)),
      found.raters.length > 0 && h("section", { class: "ms-card" }, h("h3", {}, "The raters"), raterTable(found.raters), h("ul", { class: "ms-paths" }, noiseLines(found).map((line) => h("li", {}, line))), viewTable(found.adjusted)),
      h("section", { class: "ms-card" }, h("h3", {}, "Health of the answers"), h("p", { class: "ms-hint" }, "What a machine can see, before and apart from the votes."), healthTable(found.health), trimmedTable(found.trimming.rows)),
      found.amendments.length ? h("section", { class: "ms-card" }, h("h3", {}, "Amendments"), amendmentTable(found.amendments)) : "",
    ].filter(Boolean));
  }
  function intoCard(merge) {
    const button = h("button", { type: "button", class: "ms-button ms-small", onclick: async () => {
      button.disabled = true;
      const answer = await ask("into_card", { trial: desk.trial, merge });
      button.disabled = false;
      button.textContent = answer.error ? `Put it into the card of ${merge}` : `It is in the card of ${merge}`;
      said.replaceChildren(answer.error ? alertBox(answer.error) : "");
      box.prepend(said);
    } }, `Put it into the card of ${merge}`);
    return button;
  }
  const said = h("span", { "aria-live": "polite" });
  function file(what, text) {
    return h("button", { type: "button", class: "ms-button", onclick: () => download(desk.trial, what, (error) => { said.replaceChildren(alertBox(error)); box.prepend(said); }) }, text);
  }
  load(false);
  return { element, close: () => drawn.forEach((plot) => plot.purge()) };
}

async function download(trial, what, tellError) {
  const found = await ask("download", { trial, what });
  if (found.error) return tellError(found.error);
  const url = URL.createObjectURL(new Blob([found.text], { type: found.type }));
  h("a", { href: url, download: found.file }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function table(heads, rows, caption) {
  return h("div", { class: "bl-scroll", tabindex: "0", role: "region", "aria-label": caption || heads[0] }, h("table", {}, caption && h("caption", {}, caption),
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, rows.map(([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), rest.map((cell) => h("td", {}, String(cell))))))));
}
const nameOf = (each, isPrimary) => each.category !== null ? each.category : `${each.first} against ${each.second}${isPrimary ? " (primary)" : ""}`;
function comparisonTable(parts) {
  const claim = (each) => each.claim === "first" ? `${each.first} better` : each.claim === "second" ? `${each.second} better` : "none";
  return table(["Comparison", "Votes", "Won", "Lost", "Tied", "Both bad", "Excluded", "Preference", "p", "Claim for these raters"], parts.map((each, index) => [nameOf(each, index === 0), each.votes, each.wins, each.losses, each.ties, each.both_bad, each.excluded,
    share(each.preference) + range(each.low, each.high), each.p_value < 0.001 ? "< 0.001" : number(each.p_value), claim(each)]));
}
function raterTable(raters) {
  return table(["Rater", "Votes", "Prefers the first", "Left won", "Seconds a vote", "Recognised"], raters.map((each) => [each.name, each.votes, share(each.preference), share(each.left_share), each.seconds.toFixed(1), each.recognised]));
}
function viewTable(views) {
  return table(["The primary preference …", "Votes", "Preference"], views.map((each) => [each.name, each.votes, share(each.preference) + range(each.low, each.high)]));
}
function healthTable(rows) {
  const part = (count, total) => total ? `${count} of ${total}` : "–";
  return table(["Model", "Constraints kept", "Cut off", "Loops", "Speaks for the user", "Format tokens", "Empty", "Shortened", "Length"], rows.map((each) => [each.model, part(each.kept, each.constraints), each.cut_off, each.loops, each.speaks_for_user, each.format_tokens, each.empty, each.shortened, `${each.characters} characters`]));
}
function trimmedTable(rows) {
  return rows.length > 0 && table(["Prompt", "Model", "What was trimmed"], rows.map((each) => [each.prompt, each.model, each.note]), "Prompts longer than a context");
}
function noiseLines(found) {
  const { noise, left_wins: left, longer_wins: longer, excluded } = found, lines = [];
  if (left.total) lines.push(`The left answer won ${left.count} of ${left.total} decided votes.`);
  if (longer.total) lines.push(`The longer answer won ${longer.count} of ${longer.total}.`);
  if (noise.repeats) lines.push(`Asked again with sides swapped, the verdict was the same ${noise.same} of ${noise.repeats} times.`);
  if (noise.identical) lines.push(`One answer on both sides was called a tie ${noise.called_ties} of ${noise.identical} times.`);
  if (noise.shared) lines.push(`Several raters judged ${noise.shared} of the same pairs and agreed on ${noise.agreeing}${noise.alpha === null ? "" : `; Krippendorff’s alpha ${number(noise.alpha).replace("-", "−")}`}.`);
  for (const [why, count] of Object.entries(excluded)) lines.push(`Votes left out, ${why}: ${count}.`);
  return lines;
}

// A chart as the server describes it, for the report too; only its colours are the page's.
function chartView({ title, height, data, layout }) {
  const plot = makePlot(title, height);
  plot.draw(() => ({ traces: data, layout: { ...layout, uirevision: title, colorway: [tone("var(--ms-accent)")] } }));
  return plot;
}
