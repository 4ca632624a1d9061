// A small chat with a running engine. The conversation lives on the server; this shows it.
// desk: { kept, keep(), engines(), changed() }
function chatPanel(desk) {
  const pick = h("select", { class: "ms-select", "aria-label": "Engine to talk to", onchange: () => { desk.kept.talk = pick.value; desk.keep(); look(true); } });
  const turns = h("div", { class: "ms-turns", role: "log", "aria-label": "Conversation", tabindex: 0 });
  const system = h("textarea", { class: "ms-text ms-area", rows: 2, onchange: () => format.render() });
  const text = h("textarea", { class: "ms-text ms-area", rows: 3, "aria-label": "Message", placeholder: "Say something. Enter sends, Shift+Enter begins a line.",
    onkeydown: (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); say(text.value); } } });
  const button = (words, action, primary) => h("button", { type: "button", class: `ms-button${primary ? " ms-primary" : ""}`, onclick: action }, words);
  const send = button("Send", () => say(text.value), true), stop = button("Stop", () => halt()), again = button("Again", () => { sampling.nextSeed(); say(""); }), clear = button("Clear", () => forget());
  const told = h("div", { "aria-live": "polite" });
  const sampling = samplingForm({ ...desk, keep: () => { desk.keep(); told.replaceChildren(); } });
  const format = formatForm({ model: () => engine()?.spec.model || null, system: () => system.value, text: () => text.value, formats: sampling.formats, changed: desk.changed });
  const empty = h("p", { class: "ms-hint" });
  const body = h("div", { class: "ms-talk" },
    h("div", { class: "ms-row" }, pick, sampling.preset),
    labelled("System message", system), turns, text, h("div", { class: "ms-row ms-act" }, send, stop, again, clear), told, format.element, sampling.element);
  const element = h("section", { class: "ms-card", "aria-label": "Try a model" }, h("h2", {}, "Try a model"), empty, body);
  let chat = { version: -1, messages: [], answering: false }, timer = 0, opened = false, sending = false, shownModel = "", shownKey = "";

  const now = () => pick.value;
  const engine = () => desk.engines().find((each) => each.id === now());
  function show() {
    const talking = desk.engines().filter((each) => ["ready", "switching"].includes(each.phase));
    const key = JSON.stringify(talking.map((each) => [each.id, nameOf(each)]));
    if (key !== shownKey) {
      shownKey = key;
      pick.replaceChildren(...talking.map((each) => h("option", { value: each.id }, nameOf(each))));
      pick.value = talking.some((each) => each.id === desk.kept.talk) ? desk.kept.talk : talking[0]?.id || "";
      look(true);
    }
    empty.hidden = talking.length > 0;
    put(empty, desk.engines().some((each) => each.phase === "starting") ? "It can be talked to as soon as it is ready." : "Start an engine to talk to it.");
    body.hidden = talking.length === 0;
    if (!talking.length) return;
    if (!opened) { opened = true; sampling.open().then((isOpen) => { opened = isOpen; format.refresh(); }); }
    const model = engine()?.spec.model;
    if (model !== shownModel) { shownModel = model; format.refresh(); }
    buttons();
    if (!timer) look();
  }
  function buttons() {
    const ready = engine()?.phase === "ready";
    send.disabled = chat.answering || !ready;
    stop.disabled = !chat.answering;
    again.disabled = chat.answering || !ready || !chat.messages.length;
    clear.disabled = !chat.messages.length;
  }
  async function look(fresh = false) {
    clearTimeout(timer);
    timer = 0;
    const id = now();
    if (!id) return;
    const found = await ask("read_chat", { id, version: fresh ? -1 : chat.version });
    if (id !== now()) return;
    if (!found.error && found.messages) adopt(found);
    if (chat.answering) timer = setTimeout(look, found.error ? 1500 : 150);
  }
  function adopt(found) {
    chat = found;
    if (document.activeElement !== system && found.messages.length) system.value = found.system;
    drawTurns(turns, chat);
    buttons();
  }
  async function say(words) {
    const id = now();
    if (chat.answering || sending || !id) return;
    sending = true;
    const found = await ask("say", { id, text: words, system: system.value, sampling: desk.kept.sampling, format: format.wanted() });
    sending = false;
    tell(found.error);
    if (found.error) return;
    if (words) text.value = "";
    if (id !== now()) return; // another engine's conversation is shown by now
    adopt(found);
    turns.scrollTop = turns.scrollHeight;
    look();
  }
  async function halt() {
    const found = await ask("stop_answer", { id: now() });
    tell(found.error);
  }
  async function forget() {
    const id = now(), found = await ask("clear_chat", { id });
    tell(found.error);
    if (!found.error && id === now()) adopt(found);
  }
  const tell = (error) => told.replaceChildren(...(error ? [alertBox(error)] : []));
  return { element, show };
}

function drawTurns(box, chat) {
  const follows = box.scrollTop + box.clientHeight >= box.scrollHeight - 40;
  box.setAttribute("aria-busy", String(chat.answering)); // an answer is read out whole, not word by word
  while (box.children.length > chat.messages.length) box.lastChild.remove();
  chat.messages.forEach((message, index) => {
    let turn = box.children[index];
    if (!turn || turn.dataset.role !== message.role) {
      const fresh = h("div", { class: `ms-turn ms-${message.role}`, "data-role": message.role }, h("div", { class: "ms-hint ms-speaker" }), h("div", { class: "ms-said" }), h("div", { class: "ms-hint ms-facts" }));
      if (turn) turn.replaceWith(fresh); else box.append(fresh);
      turn = fresh;
    }
    const last = index === chat.messages.length - 1;
    const [speaker, words, facts] = turn.children;
    put(speaker, message.role === "user" ? "You" : message.model);
    put(words, message.text);
    turn.classList.toggle("ms-waiting", last && chat.answering);
    if (!message.error) put(facts, message.role === "user" ? "" : factWords(message, last && chat.answering));
    else if (turn.dataset.error !== message.error) facts.replaceChildren(alertBox(message.error)); // told once
    turn.dataset.error = message.error;
  });
  if (follows) box.scrollTop = box.scrollHeight;
}
function factWords(message, isUnderWay) {
  if (isUnderWay && !message.tokens) return "…";
  const words = [`${message.tokens} tokens in ${message.seconds.toFixed(1)} s`];
  if (message.seconds > 0.2) words.push(`${(message.tokens / message.seconds).toFixed(1)} tokens/s`);
  const ends = { stop: "", length: "cut at the longest answer", abort: "ended by the engine", stopped: "stopped" };
  if (!isUnderWay && ends[message.finish]) words.push(ends[message.finish]);
  return words.join(" · ");
}
