// The Blind tab: the list of trials, and the way to setting up, rating and results.
const root = element.querySelector(".ms");
const RATING_KEY = "merge-studio-rating"; // what is rated in this browser tab, to go on after a reload
let view = null, polling = 0, known = null;
const stage = h("div", { class: "bl-stage" });
const offline = h("div", { class: "ms-offline", role: "status", hidden: true }, `${OFFLINE} Trying again …`);
root.replaceChildren(stage, offline);
root.removeAttribute("aria-busy");

function enter(next) {
  if (view?.close) view.close();
  view = next;
  stage.replaceChildren(next.element);
}
const openList = () => { rememberHere(RATING_KEY, ""); enter(trialList()); poll(); };
const rate = (trial, title = trial) => { rememberHere(RATING_KEY, JSON.stringify([trial, title])); enter(ratingView({ trial, title, leave: openList })); };
const setUp = (isDemo, model = null) => enter(setupView({ isDemo, model, leave: openList, taken: () => (known?.trials || []).map((trial) => trial.name) }));
const design = (trial) => enter(designView({ trial, leave: openList }));
const results = (trial) => enter(resultsView({ trial, leave: openList }));

function trialList() {
  const box = h("div", { class: "bl-list" });
  const head = h("div", { class: "ms-toolbar" }, h("div", {}, h("h2", {}, "Blind trials"), h("p", { class: "ms-hint" }, "Two answers, no names: is the merge really better?")), h("div", { class: "ms-row" }));
  const said = h("div", { "aria-live": "polite" });
  return { element: h("div", {}, head, packChooser, said, box), box, said, action: head.lastChild, owner: null, cards: new Map() };
}
function refresh() {
  if (!view?.box || !known) return;
  const { owner, token_set: tokenSet } = known.access;
  if (view.owner !== owner) view.action.replaceChildren(...(owner && !props.value.rating_only ? [
    h("button", { type: "button", class: "ms-button", onclick: () => packChooser.click() }, "Add a pack"), h("button", { type: "button", class: "ms-button ms-primary", onclick: () => setUp(false) }, "New trial")] : []));
  view.owner = owner;
  if (known.trials.length) { drawCards(owner); return; }
  const nothing = owner ? firstSteps() : tokenSet ? h("p", { class: "ms-hint" }, "No trial is open for raters now.")
    : h("p", { class: "ms-hint" }, "No trial is open for raters, and this studio has no owner token to open one with.");
  const key = JSON.stringify([owner, tokenSet]);
  if (view.box.dataset.nothing !== key) view.box.replaceChildren(h("div", { class: "bl-none" }, nothing));
  view.box.dataset.nothing = key;
}
const isLive = (job) => ["running", "cancelling"].includes(job?.state);
function drawCards(owner) { // only those of which something changed: a hand may be at work in another
  delete view.box.dataset.nothing;
  const held = document.activeElement, card = held?.closest?.(".bl-trial-card"), job = known.generation;
  const drawn = known.trials.map((trial) => {
    const key = JSON.stringify([trial, owner, known.access.open, isLive(job), job?.trial === trial.name && job]);
    const old = view.cards.get(trial.name);
    return [trial.name, old?.key === key ? old : { key, element: trialCard(trial, owner) }];
  });
  view.cards = new Map(drawn);
  drawn.forEach(([, { element: fresh }], at) => {
    const old = view.box.children[at];
    if (!old) view.box.append(fresh);
    else if (old !== fresh) old.replaceWith(fresh);
  });
  while (view.box.children.length > drawn.length) view.box.lastChild.remove();
  if (card && !card.isConnected) { // who stood on a control stands there still
    const again = [...view.box.children].find((each) => each.ariaLabel === card.ariaLabel), nameOfControl = (each) => each.ariaLabel || each.textContent;
    [...(again?.querySelectorAll("button, select, input") || [])].find((each) => nameOfControl(each) === nameOfControl(held))?.focus({ preventScroll: true });
  }
}
function firstSteps() {
  const step = (title, text) => h("li", {}, h("strong", {}, title), h("p", { class: "ms-hint" }, text));
  return h("section", { class: "ms-card", "aria-label": "No trial yet" }, h("h3", {}, "No trial yet"),
    h("ol", { class: "bl-steps" },
      step("Choose models and prompts.", "What the trial can find, and how many votes it takes, is told before."),
      step("Rate without names.", "Both answers to each prompt are made ahead, then shown side by side: A, B, a tie, or both bad, each by one key."),
      step("See the results.", "Who was preferred, how sure that is, and whether it may be luck.")),
    !props.value.rating_only && h("div", { class: "ms-row" }, h("button", { type: "button", class: "ms-button", onclick: () => setUp(true) }, "Set up a demo trial"), h("p", { class: "ms-hint" }, "Two of the small models, at hand and made in seconds, and a dozen pairs to rate; nothing starts before you say so.")));
}
const packChooser = h("input", { type: "file", accept: ".zip", class: "ms-hidden", tabindex: -1, "aria-label": "Trial pack to add", onchange: () => addPack() });
async function addPack() {
  const file = packChooser.files[0], say = (text) => view?.said?.replaceChildren(text ? alertBox(text) : "");
  packChooser.value = "";
  if (!file) return;
  if (file.size > 700000) { say(`${file.name} has ${bytes(file.size)}; a pack of more than 700 kB is put into the trials folder by hand, or rated with make rate.`); return; }
  const answer = await ask("add_pack", { data: await asBase64(file) });
  say(answer.error);
  poll();
}
function trialCard(trial, owner) {
  const job = known.generation, isMine = job && job.trial === trial.name, live = isLive(job);
  const say = h("div", { "aria-live": "polite" });
  const button = (text, action, more) => h("button", { type: "button", class: "ms-button", onclick: action, ...more }, text);
  const tellOr = async (name, data) => {
    const answer = await ask(name, data);
    say.replaceChildren(answer.error ? alertBox(answer.error) : "");
    if (!answer.error) poll();
  };
  const tellError = (error) => say.replaceChildren(alertBox(error));
  const lacking = owner && !trial.ready && !trial.problem;
  return h("section", { class: "ms-card bl-trial-card", "aria-label": `Trial ${trial.title}` },
    h("div", { class: "bl-card-head" }, h("h3", {}, trial.title), trial.ready && h("span", { class: "ms-chip" }, "ready to rate"), owner && trial.pack && h("span", { class: "ms-chip ms-quiet" }, "pack"), owner && trial.open && !known.access.open && h("span", { class: "ms-chip ms-quiet" }, "open for raters")),
    trial.problem && alertBox(trial.problem),
    lacking && !(isMine && live) && h("p", { class: "ms-hint" }, `${trial.answers} of ${trial.needed} answers are made.`),
    isMine && live && !trial.ready && generationView(job, () => tellOr("cancel", { number: job.number })),
    isMine && job.state === "failed" && lacking && [alertBox(job.error), makingRoom(job.in_the_way, () => tellOr("generate", { trial: trial.name, ...wishOf(trial), stop: Object.keys(job.in_the_way) })), job.talk.length > 0 && h("pre", { class: "ms-soft" }, job.talk.join("\n"))],
    isMine && job.state === "cancelled" && lacking && h("p", { class: "ms-hint" }, "Stopped. What is made is kept; Generate goes on from there."),
    isMine && job.state === "done" && h("p", { class: "ms-hint" }, ["Made in " + duration(job.seconds), ...costOf(job)].join(" · ") + "."),
    say,
    h("div", { class: "ms-row" },
      trial.ready && button("Rate", () => rate(trial.name, trial.title), { class: "ms-button ms-primary" }),
      lacking && !(isMine && live) && wishFields(trial),
      lacking && !(isMine && live) && button("Generate answers", () => tellOr("generate", { trial: trial.name, ...wishOf(trial) }), { class: "ms-button ms-primary", disabled: live }),
      owner && trial.ready && (trial.pack ? button("Download votes", () => download(trial.name, "ratings", tellError)) : button("Results", () => results(trial.name))),
      owner && !trial.pack && !trial.problem && !props.value.rating_only && button("Design", () => design(trial.name)),
      owner && trial.ready && !known.access.open && button(trial.open ? "Close for raters" : "Open for raters", () => tellOr("open_to_raters", { trial: trial.name, open: !trial.open }))));
}
const wishes = new Map(); // what was chosen, while the list is drawn again; at first how it was begun
function wishOf(trial) {
  if (!wishes.has(trial.name)) wishes.set(trial.name, { engine: trial.engine, gpus: trial.gpus, price: null, ...known.generation?.wishes[trial.name] });
  return wishes.get(trial.name);
}
function wishFields(trial) {
  const wish = wishOf(trial);
  const select = h("select", { class: "ms-select", "aria-label": `Engine for ${trial.name}`, onchange: () => { wish.engine = select.value; } }, ENGINES.map(([value, text]) => h("option", { value }, text)));
  select.value = wish.engine;
  const field = (name, text, more) => h("label", { class: "bl-wish" }, text, h("input", { type: "number", class: "ms-field", value: wish[name] ?? "", "aria-label": `${text} for ${trial.name}`, oninput: (event) => { wish[name] = event.target.value ? Number(event.target.value) : null; }, ...more }));
  return [select, field("gpus", "GPUs per model", { min: 1, max: 64 }), field("price", "Price per hour", { min: 0, step: "any", placeholder: "none" })];
}
function makingRoom(engines, stop) {
  const all = Object.values(engines), names = all.join(" and "), words = `Stop ${names} and generate`;
  const button = h("button", { type: "button", class: "ms-button", onclick: async () => {
    button.disabled = true;
    button.textContent = `Stopping ${names} …`; // an engine takes some seconds
    await stop();
    button.disabled = false;
    button.textContent = words;
  } }, words);
  return names && h("div", { class: "ms-row" }, button, h("p", { class: "ms-hint" }, `${all.length > 1 ? "They are" : "It is"} the Serve tab's and can be started there again.`));
}
function costOf(job) {
  const price = job.wishes[job.trial]?.price;
  if (!price) return [];
  const cost = (seconds) => (price * seconds / 3600).toFixed(2);
  return [`${cost(job.seconds)} spent`, ...(job.left === null ? [] : [`${cost(job.seconds + job.left)} in all`])];
}
function generationView(job, cancel) {
  const part = job.total ? job.done / job.total : 0;
  const words = job.total ? [`${job.done} of ${job.total} answers`, `${duration(job.seconds)} so far`] : ["Opening the first model …"];
  if (job.phase === "load") words.push("a model is being opened");
  if (job.left !== null) words.push(`${duration(job.left)} left`);
  words.push(...costOf(job));
  return h("div", { class: "bl-making" },
    h("div", { class: `ms-bar${job.total ? "" : " ms-unknown"}`, role: "progressbar", "aria-label": "Answers made", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(100 * part) }, h("div", { style: `width:${100 * part}%` })),
    h("div", { class: "ms-row bl-making-line" }, h("span", { class: "ms-numbers ms-soft" }, job.state === "cancelling" ? "Stopping …" : words.join(" · ")), h("button", { type: "button", class: "ms-button ms-small", disabled: job.state === "cancelling", onclick: cancel }, "Cancel")));
}
async function poll() {
  clearTimeout(polling);
  if (!view?.box) return; // rating asks for nothing but its own items
  const answer = await ask("trials_now", {});
  offline.hidden = !answer.offline;
  if (!answer.error) { known = answer; refresh(); }
  polling = setTimeout(poll, answer.offline ? 2000 : isLive(known?.generation) ? 1000 : 15000);
}
window.addEventListener("merge-studio-token", poll);
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
function compareWish() { // a merge that was just made, as the first model of a new trial
  const model = takeWish("Blind");
  if (model !== null) setUp(false, model);
}
window.addEventListener("merge-studio-wish", compareWish);
const begun = recallHere(RATING_KEY);
if (begun) rate(...JSON.parse(begun));
else openList();
compareWish();
