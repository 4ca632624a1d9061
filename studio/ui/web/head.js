// The head of the page: its name, and who is looking.
const chip = h("div", { class: "ms-who", "aria-live": "polite" });
element.querySelector("header").replaceChildren(
  h("div", { class: "ms-brand" },
    s("svg", { viewBox: "0 0 32 32", width: 28, height: 28, "aria-hidden": "true" },
      s("path", { class: "ms-mark-0", d: "M4 6C14 6 14 16 28 16" }), s("path", { class: "ms-mark-1", d: "M4 16H28" }), s("path", { class: "ms-mark-2", d: "M4 26C14 26 14 16 28 16" })),
    h("h1", {}, "Merge Studio")),
  chip);

const tell = (token) => {
  remember(TOKEN_KEY, token);
  window.dispatchEvent(new Event("merge-studio-token"));
  look();
};
async function look() {
  const found = await ask("who", {});
  if (found.offline) { setTimeout(look, 2000); return; }
  if (found.open) { chip.replaceChildren(h("span", { class: "ms-chip ms-quiet", title: "Only this machine can reach the studio; you may do everything." }, "Local")); return; }
  if (found.owner) {
    chip.replaceChildren(h("span", { class: "ms-chip" }, "Owner"), h("button", { type: "button", class: "ms-button ms-small", onclick: () => tell(null) }, "Forget token"));
    return;
  }
  if (!found.token_set) { chip.replaceChildren(h("span", { class: "ms-chip ms-quiet" }, "Visitor: look and tune")); return; }
  const field = h("input", { type: "password", class: "ms-text", "aria-label": "Owner token", placeholder: "Owner token", autocomplete: "off" });
  chip.replaceChildren(
    h("form", { class: "ms-row", onsubmit: (event) => { event.preventDefault(); if (field.value) tell(field.value); } },
      found.wrong && h("span", { class: "ms-error", role: "alert" }, "Not the owner token."),
      h("span", { class: "ms-chip ms-quiet" }, "Visitor"), field, h("button", { type: "submit", class: "ms-button" }, "Enter")));
}
look();

// A reload comes back to the tab that was open; before the first choice there is none.
const TAB_KEY = "merge-studio-tab", TABS = '#tabs button[role="tab"]';
function reopen(name, tries = 100) {
  const tab = [...document.querySelectorAll(TABS)].find((each) => each.textContent.trim() === name);
  if (tab) tab.click();
  else if (tries) setTimeout(reopen, 50, name, tries - 1); // the tabs are made after the head
}
if (recallHere(TAB_KEY)) reopen(recallHere(TAB_KEY));
document.addEventListener("click", (event) => {
  const tab = event.target.closest?.(TABS);
  if (tab) rememberHere(TAB_KEY, tab.textContent.trim());
});
