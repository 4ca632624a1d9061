// Small tools for making elements, writing numbers and asking the server.
const TOKEN_KEY = "merge-studio-token";
const DRAFT_KEY = "merge-studio-draft";
const SVG_SPACE = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(4)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child); // text stays text: nothing is ever parsed as markup
  }
  return node;
}
const h = (tag, attributes, ...children) =>
  fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) =>
  fill(document.createElementNS(SVG_SPACE, tag), attributes, children);

function put(node, text) { // writing the same again would have the page laid out again
  if (node.textContent !== text) node.textContent = text;
}

// localStorage may be shut, in private windows and in frames of other sites; the tabs are scripts apart.
const memory = (window.mergeStudioMemory ||= {});
function remember(key, value) {
  memory[key] = value;
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch { /* then it lasts as long as the page */ }
}
function recall(key) {
  if (key in memory) return memory[key];
  try { return localStorage.getItem(key); } catch { return null; }
}
// What belongs to this browser tab alone, over reloads.
function rememberHere(key, value) {
  try { sessionStorage.setItem(key, value); } catch { /* then the latest of all tabs comes back */ }
}
function recallHere(key) {
  try { return sessionStorage.getItem(key); } catch { return null; }
}

const OFFLINE = "The studio does not answer.";
async function ask(name, data) {
  let answer;
  try {
    answer = await server[name]({ ...data, token: recall(TOKEN_KEY) });
  } catch { answer = null; } // told below: the caller shows it
  if (answer === null || answer === undefined || typeof answer !== "object") {
    return { error: OFFLINE, offline: true };
  }
  return answer;
}

function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let value = count, unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
function duration(seconds) {
  if (seconds < 1) return "less than 1 s";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  const hours = Math.floor(seconds / 3600);
  return `${hours} h ${Math.round((seconds - hours * 3600) / 60)} min`;
}
const percent = (part) => `${(100 * part).toFixed(1)} %`;
const number = (value) => String(Math.round(value * 1000) / 1000);

function copyButton(text, what) {
  const button = h("button", { type: "button", class: "ms-button ms-small" }, `Copy ${what}`);
  button.addEventListener("click", async () => {
    let done = true;
    try { await navigator.clipboard.writeText(text); } catch { done = copyByHand(text); }
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.textContent = `Copy ${what}`; }, 1500);
  });
  return button;
}
// A model to go on with in another tab of the page, which is made when it is first opened.
function goOnIn(tab, model) {
  window.mergeStudioWish = { tab, model };
  [...document.querySelectorAll('#tabs button[role="tab"]')].find((each) => each.textContent.trim() === tab)?.click();
  window.dispatchEvent(new Event("merge-studio-wish"));
  window.scrollTo({ top: 0 });
}
function takeWish(tab) { // the model that is wished for here, once; null if none is
  const wish = window.mergeStudioWish;
  if (wish?.tab !== tab) return null;
  window.mergeStudioWish = null;
  return wish.model;
}
function copyByHand(text) { // over plain http the clipboard interface is shut
  const area = h("textarea", { class: "ms-hidden", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

// What went wrong, one problem a line.
const alertBox = (text) => {
  // The first word becomes a sentence's, unless it may be a name.
  const begun = text.replace(/^(the|these|this|it|an?|merging|checking|cancelling|expected|unknown)\b/, (word) => word[0].toUpperCase() + word.slice(1));
  const lines = begun.split("\n").filter((line) => line && !line.startsWith("   "));
  return h("div", { class: "ms-alert", role: "alert" }, lines.length > 1
    ? [h("p", {}, lines[0]), h("ul", {}, lines.slice(1).map((line) => h("li", {}, line.replace(/^- /, ""))))]
    : h("p", {}, lines));
};
