// What was decided for a trial, and the few things that may still be amended. desk: { trial, leave() }
function designView(desk) {
  const box = h("div", { class: "bl-results" }, h("p", { class: "ms-hint" }, "Reading …"));
  const element = h("section", { class: "bl-rate", "aria-label": "Design" },
    h("div", { class: "bl-line" }, h("button", { type: "button", class: "ms-button ms-small", onclick: () => desk.leave() }, "‹ Trials"), h("strong", { class: "bl-trial" }, `Design of ${desk.trial}`)), box);
  ask("design", { trial: desk.trial }).then((found) => found.error ? box.replaceChildren(alertBox(found.error)) : show(found));

  function show(found, words = "") {
    const [first, rival] = found.primary;
    box.replaceChildren(
      h("section", { class: "ms-card" }, h("h3", {}, "Decided before the first vote"), h("p", { class: "bl-sentence" }, `Is ${first} better than ${rival}?`),
        h("p", {}, `Models: ${found.models.join(", ")}. ${found.prompts} prompts, ${found.draws} answer${found.draws > 1 ? "s" : ""} of each model to each, ${found.raters} rater${found.raters > 1 ? "s" : ""}. ${found.alpha ? `Error rate ${number(100 * found.alpha)} %.` : "It explores and claims nothing."}`),
        h("p", { class: "ms-hint" }, `Design ${found.hash.slice(0, 12)}.`),
        h("details", { class: "ms-details" }, h("summary", {}, `The whole design${found.amendments.length ? ", as amended" : ""}, as TRIAL.yaml`), h("pre", { class: "bl-yaml" }, found.text), copyButton(found.text, "the design"))),
      amending(found, words),
      found.amendments.length ? h("section", { class: "ms-card" }, h("h3", {}, "Amendments"), amendmentTable(found.amendments)) : "");
  }
  function amending(found, words) {
    const excluded = exclusionFields(found.exclusions), trouble = h("div", { "aria-live": "polite" }, words && h("p", { class: "ms-good" }, words));
    const reveal = h("select", { class: "ms-select", id: "bl-amend-reveal" }, optionsOf(REVEALS));
    reveal.value = found.reveal;
    const early = earlyField(found.stop_early);
    const why = h("input", { type: "text", class: "ms-text", id: "bl-why", maxlength: 500, autocomplete: "off", required: true });
    const button = h("button", { type: "submit", class: "ms-button" }, "Amend");
    const amend = async (event) => {
      event.preventDefault();
      button.disabled = true;
      const answer = await ask("amend", { trial: desk.trial, why: why.value, changes: { exclusions: excluded.read(), reveal: reveal.value, stop_early: early.read() } });
      button.disabled = false;
      if (answer.error) trouble.replaceChildren(alertBox(answer.error));
      else show(answer, "Amended; the report says so.");
    };
    return h("form", { class: "ms-card", onsubmit: amend }, h("h3", {}, "Amend it"),
      h("p", { class: "ms-hint" }, "This much may still change. The report tells what, when, after how many votes, and why."),
      excluded.element, fieldOf("Models are shown", reveal),
      early.element, fieldOf("The reason", why), trouble, h("div", { class: "ms-row" }, button));
  }
  return { element };
}
const amendmentTable = (amendments) => table(["When", "After", "What", "Why"], amendments.map((each) => [each.when.slice(0, 16).replace("T", " "), `${each.votes} votes`, each.words, each.why]));

// Whether a trial may end before its last vote; the same field before a trial and in an amendment.
function earlyField(checked = true) {
  const box = h("input", { type: "checkbox", id: "bl-early", checked });
  return { element: h("label", { class: "bl-check", for: box.id }, box, "A claim may be made before all planned votes are in"), read: () => box.checked };
}
// Which votes do not count; the same fields before a trial and in an amendment of it.
function exclusionFields(values = { recognised: true, masked: false, faster_than: 0 }) {
  const tick = (id, checked) => h("input", { type: "checkbox", id, checked });
  const recognised = tick("bl-not-recognised", values.recognised), masked = tick("bl-not-masked", values.masked);
  const faster = h("input", { type: "number", class: "ms-field", id: "bl-not-faster", min: 0, max: 60, step: 0.5, value: values.faster_than });
  return {
    element: h("div", { class: "bl-excluded", role: "group", "aria-label": "Votes that do not count" }, h("h4", {}, "Votes that do not count"),
      h("label", { class: "bl-check", for: recognised.id }, recognised, "whose rater recognised a model"),
      h("label", { class: "bl-check", for: masked.id }, masked, "on answers in which a model said who it is"),
      h("label", { class: "bl-check", for: faster.id }, "faster than", faster, "seconds")),
    read: () => ({ recognised: recognised.checked, masked: masked.checked, faster_than: Number(faster.value) }),
  };
}
