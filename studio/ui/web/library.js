// Recipes that the owner keeps: saved under a name, with a note, on the server.
// desk: { recipe(), saved(), note(), suggest(), owner(), open(entry, answer), failed(text), keep(name, note), listed(entries), shown(isOpen) }
function makeLibrary(desk) {
  const name = h("input", { type: "text", class: "ms-text", id: "ms-saved-name", maxlength: 80, spellcheck: "false", autocomplete: "off" });
  const note = h("textarea", { class: "ms-text", id: "ms-saved-note", rows: 2, maxlength: 2000 });
  const save = h("button", { type: "submit", class: "ms-button ms-primary" }, "Save");
  const list = h("ul", { class: "ms-saved" }), told = h("div", { "aria-live": "polite" });
  const element = h("section", { class: "ms-card ms-library", "aria-label": "Library", hidden: true },
    h("div", { class: "ms-row" }, h("h2", {}, "Library"), h("span", { class: "ms-space" }),
      h("button", { type: "button", class: "ms-button ms-small", onclick: () => show(false) }, "Close")),
    h("form", { class: "ms-save", onsubmit: (event) => { event.preventDefault(); keep(false); } },
      h("div", { class: "ms-cell" }, h("label", { class: "ms-label", for: "ms-saved-name" }, "Name of this recipe"), name),
      h("div", { class: "ms-cell" }, h("label", { class: "ms-label", for: "ms-saved-note" }, "Note"), note), save),
    told, list);
  let entries = [];

  async function keep(replace) {
    save.disabled = true;
    const answer = await ask("save_recipe", { recipe: desk.recipe(), name: name.value, note: note.value, replace: replace || name.value.trim() === desk.saved() });
    save.disabled = false;
    if (answer.exists) {
      told.replaceChildren(h("div", { class: "ms-row ms-alert", role: "alert" }, h("p", {}, `“${name.value.trim()}” is in the library already.`),
        h("button", { type: "button", class: "ms-button ms-small", onclick: () => keep(true) }, "Replace it")));
      return;
    }
    if (answer.error) { told.replaceChildren(alertBox(answer.error)); return; }
    told.replaceChildren(h("p", { class: "ms-good" }, "Saved."));
    desk.keep(name.value.trim(), note.value);
    adopt(answer);
  }
  async function open(entry) {
    const answer = await ask("open_recipe", { name: entry.name });
    if (answer.error) { desk.failed(answer.error); refresh(); return; } // another page may have deleted it
    told.replaceChildren();
    desk.open(entry, answer);
    fillForm();
  }
  async function drop(entry, button) { // asked twice: nothing brings a deleted file back
    if (button.dataset.sure !== "yes") {
      button.dataset.sure = "yes";
      button.textContent = "Really delete";
      setTimeout(() => { button.dataset.sure = ""; button.textContent = "Delete"; }, 4000);
      return;
    }
    const answer = await ask("delete_recipe", { name: entry.name });
    if (answer.error) { told.replaceChildren(alertBox(answer.error)); return; }
    adopt(answer);
    name.focus(); // the button is gone with its entry
  }
  function adopt(answer) {
    entries = answer.entries;
    list.replaceChildren(...entries.map((entry) => {
      const remove = h("button", { type: "button", class: "ms-button ms-small", "aria-label": `Delete ${entry.name}` }, "Delete");
      remove.addEventListener("click", () => { remove.removeAttribute("aria-label"); drop(entry, remove); });
      return h("li", {}, h("div", { class: "ms-entry" }, h("strong", {}, entry.name), h("span", { class: "ms-hint" }, new Date(1000 * entry.saved).toLocaleString()), entry.note && h("p", { class: "ms-note-text" }, entry.note), entry.problem && h("p", { class: "ms-hint ms-error" }, entry.problem)),
        !entry.problem && h("button", { type: "button", class: "ms-button ms-small", "aria-label": `Open ${entry.name}`, onclick: () => open(entry) }, "Open"), remove);
    }));
    if (!entries.length) list.replaceChildren(h("li", { class: "ms-hint" }, "Nothing saved yet."));
    desk.listed(entries);
  }
  async function refresh() {
    if (!desk.owner()) { entries = []; desk.listed([]); return; }
    const answer = await ask("library", {});
    if (!answer.error) adopt(answer); else told.replaceChildren(alertBox(answer.error));
  }
  function fillForm() { name.value = desk.saved() || desk.suggest(); note.value = desk.note(); }
  function show(isOpen) {
    element.hidden = !isOpen;
    desk.shown(isOpen);
    if (!isOpen) return;
    fillForm();
    told.replaceChildren();
    refresh();
    name.focus();
  }
  return { element, show, refresh, open: (saved) => open(entries.find((entry) => entry.name === saved)), isOpen: () => !element.hidden };
}
