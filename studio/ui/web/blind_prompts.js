// The prompts of a new trial: the files there are, and files and character cards to upload.
// desk: { changed() }
const SPLITS = [["", "all of them"], ["true", "only the sealed split: for a verdict"], ["false", "only the open split: for tuning"]];

function promptList(desk) {
  const files = h("div", { class: "bl-files", role: "group", "aria-label": "Files of prompts" });
  const news = h("div", { "aria-live": "assertive" });
  const say = (problem) => news.replaceChildren(alertBox(problem));
  const choose = (label, accept, take) => {
    const input = h("input", { type: "file", accept, class: "ms-hidden", tabindex: -1, "aria-label": label, onchange: () => {
      const file = input.files[0];
      input.value = "";
      if (file) take(file);
    } });
    return input;
  };
  const chooser = choose("Prompt file to upload", ".yaml,.yml,.jsonl,.csv", upload);
  const cardChooser = choose("Character card to upload", ".png,.json", readCard);
  const split = h("select", { class: "ms-select", id: "bl-split", onchange: desk.changed }, SPLITS.map(([value, name]) => h("option", { value }, name)));
  const tick = (id) => h("input", { type: "checkbox", id, onchange: desk.changed });
  const sensitive = tick("bl-sensitive"), seen = tick("bl-seen");
  const said = h("textarea", { class: "ms-text bl-comment", id: "bl-said", rows: 3, placeholder: "one line, one prompt" });
  const user = h("input", { type: "text", class: "ms-text", id: "bl-user", placeholder: "User", maxlength: 60, autocomplete: "off" });
  const cardBox = h("div", { class: "bl-card-box", hidden: true });
  const small = (text, action) => h("button", { type: "button", class: "ms-button ms-small", onclick: action }, text);
  const element = h("section", { class: "ms-card" }, h("h3", {}, "Prompts"), files, news,
    h("div", { class: "ms-row" }, small("Upload a file", () => chooser.click()), chooser, small("Upload a character card", () => cardChooser.click()), cardChooser), cardBox,
    h("details", { class: "ms-details" }, h("summary", {}, "Which of these prompts"), h("div", { class: "bl-folded" },
      fieldOf("Of these use", split, "The sealed split is kept from tuning, so that a verdict on it is not flattered."),
      h("label", { class: "bl-check", for: "bl-sensitive" }, sensitive, "Also prompts that are marked as sensitive or adult"),
      h("label", { class: "bl-check", for: "bl-seen" }, seen, "Also prompts that tuning or an earlier verdict has seen; the verdict then says so"))));

  function row(about, isChosen) {
    const box = h("input", { type: "checkbox", value: about.file, checked: isChosen, disabled: Boolean(about.problem), onchange: desk.changed });
    const total = Object.values(about.categories).reduce((sum, n) => sum + n, 0);
    const parts = Object.entries(about.categories).map(([category, n]) => h("label", { class: "bl-category" }, h("input", { type: "checkbox", checked: true, "data-category": category, onchange: desk.changed }), `${category} (${n})`));
    return h("div", { class: "bl-file", "data-file": about.file }, h("label", { class: "bl-check" }, box, h("strong", {}, about.file), h("span", { class: "ms-soft" }, about.problem ? "" : `${total} prompt${total === 1 ? "" : "s"}${about.sealed ? `, ${about.sealed} of them sealed` : ""}${about.sensitive ? `, ${about.sensitive} sensitive` : ""}`)),
      about.problem ? h("p", { class: "ms-hint ms-error" }, about.problem) : parts.length > 1 && h("details", { class: "ms-details" }, h("summary", {}, `${parts.length} categories`), h("div", { class: "ms-row" }, parts)));
  }
  function take(about, words) {
    const fresh = row(about, true), old = [...files.children].find((each) => each.dataset.file === about.file);
    if (old) old.replaceWith(fresh);
    else files.append(fresh);
    news.replaceChildren(words ? h("p", { class: "ms-hint" }, words) : "");
    desk.changed();
  }
  async function upload(file) {
    if (file.size > 900000) { say(`${file.name} has ${bytes(file.size)}; a prompt file has at most 900 kB.`); return; }
    let text;
    try { text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()); } catch { say(`${file.name} is not UTF-8 text; save it as UTF-8.`); return; }
    const answer = await ask("upload", { file: file.name.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[.-]+/, ""), text });
    if (answer.error) say(answer.error);
    else take(answer, answer.replaced && `${answer.file} is replaced by the new file.`);
  }
  async function readCard(file) {
    const data = new Uint8Array(await file.arrayBuffer()), words = wordsOfPicture(data);
    if (words.length > 600000) { say(`${file.name} holds ${bytes(words.length)} of text; a card may have 600 kB.`); return; }
    const encoded = await asBase64(new Blob([words]));
    cardBox.hidden = false;
    cardBox.replaceChildren(h("label", { class: "ms-label", for: "bl-said" }, `What is said to the character of ${file.name}`), said, fieldOf("Name of the one who speaks", user),
      h("div", { class: "ms-row" }, small("Make prompts of it", async () => {
        const answer = await ask("upload_card", { file: file.name, data: encoded, requests: said.value.split("\n"), user: user.value });
        if (answer.error) { say(answer.error); return; }
        cardBox.hidden = true;
        take(answer, answer.notes.join("; "));
      })));
    said.focus();
  }
  const chosen = () => [...files.children].filter((each) => each.querySelector("input[value]")?.checked);
  const boxesOf = (row) => [...row.querySelectorAll("[data-category]")];
  return {
    element,
    show: (prompts) => files.replaceChildren(...prompts.map((about, index) => row(about, index === 0))),
    onlyOf(categories) {
      for (const box of chosen().flatMap(boxesOf)) box.checked = categories.includes(box.dataset.category);
      desk.changed();
    },
    useSeen() { seen.checked = true; desk.changed(); },
    useOpen() { split.value = "false"; desk.changed(); },
    read() {
      const boxes = chosen().flatMap(boxesOf);
      const wanted = [...new Set(boxes.filter((box) => box.checked).map((box) => box.dataset.category))];
      return {
        prompts: chosen().map((each) => each.dataset.file), categories: boxes.every((box) => box.checked) ? [] : wanted,
        sealed: split.value ? split.value === "true" : null, sensitive: sensitive.checked, seen_prompts: seen.checked,
      };
    },
  };
}
const fieldOf = (label, input, hint) => h("div", { class: "bl-field" }, h("label", { class: "ms-label", for: input.id }, label), input, hint && h("p", { class: "ms-hint" }, hint));

const asBase64 = (blob) => new Promise((resolve) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.split(",")[1] || "");
  reader.readAsDataURL(blob);
});
// Of a PNG the pieces that hold text, so that the picture itself need not travel.
function wordsOfPicture(data) {
  const isPicture = data[0] === 0x89 && data[1] === 0x50;
  if (!isPicture) return data;
  const view = new DataView(data.buffer), parts = [data.subarray(0, 8)];
  for (let at = 8; at + 12 <= data.length;) {
    const length = view.getUint32(at), end = at + 12 + length;
    const kind = String.fromCharCode(...data.subarray(at + 4, at + 8));
    if (["tEXt", "zTXt", "iTXt"].includes(kind) || end > data.length) parts.push(data.subarray(at, end));
    at = end;
  }
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => { whole.set(part, at); return at + part.length; }, 0);
  return whole;
}
