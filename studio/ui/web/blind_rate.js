// Rating: two answers side by side, four verdicts, and whatever a rater may add to one.
// desk: { trial, title, leave() }
const RATER_KEY = "merge-studio-rater", PLAIN_KEY = "merge-studio-plain";
const VERDICTS = [["a", "A better", "1"], ["b", "B better", "2"], ["tie", "Tie", "3"], ["both_bad", "Both bad", "4"]];
const SETTLE = 350; // ms after a new pair in which a key cannot vote: nobody has read it yet
const UNSTORED = "The studio does not answer: your vote is not stored yet. Trying again …";

function ratingView(desk) {
  let item = null, shownAt = 0, busy = false, closed = false, scores = {}, isPlain = recall(PLAIN_KEY) === "1";
  const about = h("div", { class: "bl-about" });
  const last = h("div", { class: "bl-last", "aria-live": "polite" });
  const task = h("div", { class: "bl-task" });
  const panels = { a: panel("A"), b: panel("B") };
  const pair = h("div", { class: "bl-pair", tabindex: "-1" }, panels.a.element, panels.b.element);
  const sides = segments("Which answer to look at", [["a", "Answer A"], ["b", "Answer B"]], "a", (side) => look(side));
  sides.element.classList.add("bl-sides");
  const recognised = h("input", { type: "checkbox", id: "bl-recognised" });
  const comment = h("textarea", { class: "ms-text bl-comment", rows: 2, maxlength: 2000, "aria-label": "Comment on this pair", hidden: true });
  const scoring = h("div", { class: "bl-scoring", hidden: true });
  const votes = VERDICTS.map(([verdict, text, key]) => h("button", { type: "button", class: "ms-button bl-vote", "data-verdict": verdict, "aria-keyshortcuts": key, disabled: true, onclick: () => vote(verdict) },
    h("span", {}, text), h("kbd", {}, key)));
  const small = (text, key, action, more) => h("button", { type: "button", class: "ms-button ms-small", "aria-keyshortcuts": key, onclick: action, ...more }, text, h("kbd", {}, key));
  const undo = small("Undo", "U", () => act("undo"), { disabled: true });
  const skip = small("Skip", "S", () => item && act("skip", { item: item.id }));
  const remark = small("Comment", "C", () => openComment(), { "aria-expanded": "false" });
  const plain = small("Plain text", "P", () => setPlain(!isPlain), { "aria-pressed": String(isPlain) });
  const trouble = h("div", { "aria-live": "assertive" });
  const bar = h("div", { class: "bl-bar" }, trouble, comment,
    h("div", { class: "bl-votes", role: "group", "aria-label": "Verdict" }, votes),
    h("div", { class: "bl-more" }, h("label", { for: "bl-recognised", class: "bl-check" }, recognised, h("span", {}, "I recognised a model"), h("kbd", {}, "R")), h("div", { class: "ms-row" }, remark, skip, undo)));
  const body = h("div", { class: "bl-body" }, task, sides.element, pair, scoring, bar);
  const door = h("div", {});
  const element = h("section", { class: "bl-rate", "aria-label": "Rating" }, about, last, door, body);
  body.hidden = true;

  function panel(name) {
    const text = h("div", { class: "bl-text" });
    return { text, element: h("section", { class: "ms-card bl-panel", "aria-label": `Answer ${name}`, tabindex: "0" }, h("h3", {}, name), text) };
  }
  const send = (name, data) => ask(name, { ...data, trial: desk.trial, code: recall(RATER_KEY) });

  async function begin() {
    if (!recall(RATER_KEY)) { showDoor(""); return; }
    const answer = await send("item", {});
    if (answer.offline) { tell(`${OFFLINE} Trying again …`); setTimeout(() => !closed && begin(), 2000); return; }
    if (answer.error) { showDoor(answer.error); return; }
    adopt(answer);
  }

  // ---- who is rating ------------------------------------------------------------------------
  function showDoor(problem) {
    const name = h("input", { class: "ms-text", id: "bl-name", maxlength: 96, autocomplete: "off", placeholder: "empty: anonymous" });
    const code = h("input", { class: "ms-text", id: "bl-code", maxlength: 40, autocomplete: "off", spellcheck: "false", placeholder: "k7qd-…" });
    const said = h("div", {}, problem && alertBox(problem));
    const join = async (event) => {
      event.preventDefault();
      const answer = await ask("join", { trial: desk.trial, name: name.value });
      if (answer.error) { said.replaceChildren(alertBox(answer.error)); return; }
      remember(RATER_KEY, answer.code);
      begin();
    };
    const resume = (event) => {
      event.preventDefault();
      if (!code.value.trim()) return;
      remember(RATER_KEY, code.value.trim());
      begin();
    };
    body.hidden = true;
    last.replaceChildren();
    about.replaceChildren(h("div", { class: "bl-line" }, ...whereTo()));
    door.replaceChildren(h("div", { class: "ms-card bl-door" },
      h("h2", {}, "Who is rating?"),
      h("p", { class: "ms-hint" }, "You will see two answers to the same request and say which is better. Nobody, you included, can know which model wrote which."),
      said,
      h("form", { class: "ms-row", onsubmit: join }, h("label", { class: "ms-label", for: "bl-name" }, "Name"), name, h("button", { type: "submit", class: "ms-button ms-primary" }, "Begin")),
      h("form", { class: "ms-row", onsubmit: resume }, h("label", { class: "ms-label", for: "bl-code" }, "Begun elsewhere? Your code"), code, h("button", { type: "submit", class: "ms-button" }, "Go on"))));
    name.focus({ preventScroll: true });
  }
  const whereTo = () => [h("button", { type: "button", class: "ms-button ms-small", onclick: () => desk.leave() }, "‹ Trials"), h("strong", { class: "bl-trial" }, desk.title)];
  function aboutLine(answer) {
    const part = answer.total ? answer.done / answer.total : 0;
    const code = recall(RATER_KEY);
    about.replaceChildren(
      h("div", { class: "bl-line" },
        ...whereTo(),
        h("span", { class: "ms-soft bl-count" }, answer.item ? `${Math.min(answer.done + 1, answer.total)} of ${answer.total}` : `${answer.done} of ${answer.total} rated`),
        h("details", { class: "ms-details bl-who" }, h("summary", {}, answer.rater ?? about.dataset.rater), h("div", { class: "bl-code" }, h("p", { class: "ms-hint" }, "Your code, to go on with another browser:"), h("code", {}, code), copyButton(code, "code"),
          h("div", { class: "ms-row" }, plain, h("button", { type: "button", class: "ms-button ms-small", onclick: () => { remember(RATER_KEY, null); showDoor(""); } }, "Another rater"))))),
      h("div", { class: "ms-bar", role: "progressbar", "aria-label": "Rated", "aria-valuemin": 0, "aria-valuemax": answer.total, "aria-valuenow": answer.done }, h("div", { style: `width:${100 * part}%` })));
    about.dataset.rater = answer.rater ?? about.dataset.rater;
  }

  // ---- an item ------------------------------------------------------------------------------
  function adopt(answer) {
    door.replaceChildren();
    last.replaceChildren();
    trouble.replaceChildren();
    aboutLine(answer);
    item = answer.item;
    undo.disabled = !answer.done;
    if (!item) { finished(answer); return; }
    body.hidden = false;
    scores = {};
    recognised.checked = false;
    comment.value = "";
    comment.hidden = true;
    remark.setAttribute("aria-expanded", "false");
    scoring.hidden = !item.scores.length;
    scoring.replaceChildren(...item.scores.map(scoreRow));
    showTexts();
    pair.scrollLeft = 0;
    sides.show("a");
    shownAt = performance.now();
    setBusy(false);
    if (element.getBoundingClientRect().top < 0) element.scrollIntoView({ block: "start" });
  }
  function showTexts() {
    const turns = item.messages.slice(0, -1), request = item.messages.at(-1).content;
    const earlier = [item.system && ["Instructions", item.system], ...turns.map((turn) => [turn.role === "user" ? "User" : "Assistant", turn.content])].filter(Boolean);
    task.replaceChildren(
      earlier.length ? h("details", { class: "ms-details", open: earlier.length < 8 && earlier.map((each) => each[1]).join("").length < 1500 },
        h("summary", {}, turns.length ? `What came before (${earlier.length})` : "Instructions to the model"),
        h("div", { class: "bl-turns", tabindex: "0", role: "region", "aria-label": "What came before" }, earlier.map(([who, text]) => h("div", { class: "bl-turn" }, h("span", { class: "ms-label" }, who), proseOf(text, isPlain))))) : "",
      h("div", { class: "bl-request" }, h("span", { class: "ms-label" }, "Request"), proseOf(request, isPlain)));
    for (const side of ["a", "b"]) {
      panels[side].text.replaceChildren(item[side].trim() ? proseOf(item[side], isPlain) : h("p", { class: "ms-hint" }, "(an empty answer)"));
      panels[side].element.scrollTop = 0;
    }
  }
  function scoreRow(name) {
    const row = (side) => segments(`${name}, answer ${side.toUpperCase()}`, [1, 2, 3, 4, 5].map((n) => [String(n), String(n)]), null, (value) => { scores[`${name}_${side}`] = Number(value); }).element;
    return h("div", { class: "ms-row" }, h("span", { class: "ms-label" }, name), "A", row("a"), "B", row("b"));
  }
  const setBusy = (now) => { busy = now; votes.forEach((button) => { button.disabled = now || !item; }); };
  const tell = (text) => (body.hidden ? last : trouble).replaceChildren(alertBox(text)); // where it is seen

  // ---- acts ---------------------------------------------------------------------------------
  async function vote(verdict) {
    if (busy || !item || performance.now() - shownAt < SETTLE) return;
    setBusy(true);
    const cast = item, data = { item: cast.id, undone: cast.undone, verdict, recognised: recognised.checked, comment: comment.value, scores };
    votes.forEach((button) => button.classList.toggle("bl-cast", button.dataset.verdict === verdict));
    let answer = await send("vote", data), wasOffline = false;
    while (answer.offline && !closed) {
      if (!wasOffline) tell(UNSTORED);
      wasOffline = true;
      await new Promise((resolve) => { setTimeout(resolve, 1500); });
      answer = await send("vote", data);
    }
    votes.forEach((button) => button.classList.remove("bl-cast"));
    if (answer.error && wasOffline) { begin(); return; } // the first try may have arrived after all
    if (answer.error) { tell(answer.error); setBusy(false); return; }
    adopt(answer);
    showLast(verdict, answer);
  }
  function showLast(verdict, answer) {
    const text = VERDICTS.find(([value]) => value === verdict)[1];
    const count = (side) => `${side.toUpperCase()} kept ${answer.checks[side].filter((each) => each.passed).length} of ${answer.checks[side].length}`;
    const rows = answer.checks.a.map((each, index) => h("tr", {}, h("th", { scope: "row" }, each.text), ["a", "b"].map((side) => {
      const result = answer.checks[side][index];
      return h("td", {}, result.passed ? "kept" : "not kept", result.found && ` (${result.found})`);
    })));
    last.replaceChildren(h("span", {}, h("span", { class: "ms-good" }, "Stored"), ` · ${text}`),
      answer.models ? h("span", { class: "bl-models" }, `A was ${answer.models.a}, B was ${answer.models.b}`) : "",
      rows.length ? h("details", { class: "ms-details" }, h("summary", {}, `Checks of that pair: ${count("a")}, ${count("b")}`),
        h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "Constraint"), h("th", {}, "A"), h("th", {}, "B"))), h("tbody", {}, rows))) : "");
  }
  async function act(name, data = {}) {
    if (busy) return;
    setBusy(true);
    const answer = await send(name, data);
    if (answer.error) { tell(answer.error); setBusy(false); return; }
    adopt(answer);
    last.replaceChildren(h("span", { class: "ms-soft" }, name === "undo" ? "Your last vote is taken back; here is its pair again." : "Skipped; it comes again at the end."));
  }
  function openComment() {
    comment.hidden = !comment.hidden;
    remark.setAttribute("aria-expanded", String(!comment.hidden));
    if (!comment.hidden) comment.focus();
  }
  function setPlain(next) {
    isPlain = next;
    remember(PLAIN_KEY, next ? "1" : "0");
    plain.setAttribute("aria-pressed", String(next));
    if (item) showTexts();
  }
  function look(side) {
    panels[side].element.scrollIntoView({ block: "nearest", inline: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }
  pair.addEventListener("scroll", () => sides.show(pair.scrollLeft > pair.clientWidth / 2 ? "b" : "a"), { passive: true });

  // ---- the end ------------------------------------------------------------------------------
  function finished(answer) {
    body.hidden = true;
    setBusy(false);
    const box = h("div", { class: "bl-revealed" });
    const show = h("button", { type: "button", class: "ms-button ms-primary", onclick: async () => {
      show.disabled = true;
      const found = await send("reveal", {});
      if (found.error) { box.replaceChildren(alertBox(found.error)); show.disabled = false; return; }
      box.replaceChildren(...revealedView(found.votes));
      again.disabled = true;
    } }, "Show which was which");
    const again = h("button", { type: "button", class: "ms-button", disabled: !answer.done, onclick: () => act("undo") }, "Undo the last vote");
    door.replaceChildren(h("div", { class: "ms-card bl-door" }, h("h2", {}, "All rated. Thank you."),
      h("p", { class: "ms-hint" }, answer.sealed ? "Your votes are stored. Which model was which is known only to whoever made the trial." : "Once the models are shown, votes can no longer be undone."),
      h("div", { class: "ms-row" }, !answer.sealed && show, again), box));
  }

  // ---- keys ---------------------------------------------------------------------------------
  function key(event) {
    if (closed || event.repeat || event.ctrlKey || event.metaKey || event.altKey || element.offsetParent === null) return;
    if (event.key === "Escape" && event.target === comment) { remark.focus(); return; }
    if (event.target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable]")) return;
    const verdict = VERDICTS.find((each) => each[2] === event.key);
    const letter = event.key.toLowerCase();
    if (body.hidden) { if (letter === "u" && !item && door.querySelector(".bl-revealed:empty")) act("undo"); return; }
    if (verdict) vote(verdict[0]);
    else if (letter === "u") { if (!undo.disabled) act("undo"); }
    else if (letter === "s") skip.click();
    else if (letter === "c") openComment();
    else if (letter === "r") recognised.checked = !recognised.checked;
    else if (letter === "p") setPlain(!isPlain);
    else return;
    event.preventDefault();
  }
  document.addEventListener("keydown", key);
  begin();
  return { element, close() { closed = true; document.removeEventListener("keydown", key); } };
}

function revealedView(votes) {
  const tally = new Map();
  const add = (name, what) => { const row = tally.get(name) || { won: 0, lost: 0, tie: 0, bad: 0 }; row[what] += 1; tally.set(name, row); };
  for (const { winner, a, b } of votes) {
    if (a === b) continue; // the same answer twice: it measured the rater
    const told = { model_a: ["won", "lost"], model_b: ["lost", "won"], tie: ["tie", "tie"] }[winner] || ["bad", "bad"];
    add(a, told[0]);
    add(b, told[1]);
  }
  return [h("table", {}, h("caption", {}, "Your votes"), h("thead", {}, h("tr", {}, ["Model", "Better", "Worse", "Tie", "Both bad"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, [...tally].map(([name, row]) => h("tr", {}, h("th", { scope: "row" }, name), [row.won, row.lost, row.tie, row.bad].map((n) => h("td", {}, String(n)))))))];
}
