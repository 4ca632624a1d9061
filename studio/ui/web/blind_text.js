// A model's text as elements: a small part of Markdown, and every piece of text a text node. There
// are no links, no pictures and no markup of the model's own: they stay visible as what they are.
function proseOf(text, isPlain) {
  const box = h("div", { class: "ms-prose", dir: "auto" });
  if (isPlain) {
    box.append(h("div", { class: "ms-prose-plain" }, text));
    return box;
  }
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = /^\s*```/.test(line), heading = /^(#{1,6}) +(.*)$/.exec(line), mark = listMark(line);
    if (!line.trim()) { at += 1; continue; }
    if (fence) {
      let end = at + 1;
      while (end < lines.length && !/^\s*```\s*$/.test(lines[end])) end += 1;
      box.append(h("pre", {}, h("code", {}, lines.slice(at + 1, end).join("\n"))));
      at = end + 1;
    } else if (heading) {
      box.append(h("p", { class: "ms-prose-head" }, spans(heading[2])));
      at += 1;
    } else if (/^\s*([*_-])(\s*\1){2,}\s*$/.test(line)) {
      box.append(h("hr"));
      at += 1;
    } else if (mark) {
      at = listOf(lines, at, mark, box);
    } else {
      let end = at + 1;
      while (end < lines.length && lines[end].trim() && !/^\s*```|^#{1,6} /.test(lines[end]) && !listMark(lines[end])) end += 1;
      const isQuote = /^\s*>/.test(line), body = lines.slice(at, end).map((each) => isQuote ? each.replace(/^\s*> ?/, "") : each);
      box.append(h(isQuote ? "blockquote" : "p", {}, withBreaks(body)));
      at = end;
    }
  }
  return box;
}
const listMark = (line) => /^(\s*)([-*•+]|(\d{1,4})[.)]) +(?=\S)/.exec(line);

// One flat list; what is set in further keeps its place by a class, so that nothing nests deeply.
function listOf(lines, start, first, box) {
  const isNumbered = Boolean(first[3]);
  const list = h(isNumbered ? "ol" : "ul", isNumbered ? { start: first[3] } : {});
  let at = start;
  for (; at < lines.length; at += 1) {
    const mark = listMark(lines[at]);
    if (!mark || (Boolean(mark[3]) !== isNumbered && mark[1].length <= first[1].length)) break;
    list.append(h("li", { class: mark[1].length > first[1].length && "ms-prose-in", value: isNumbered && mark[3] ? mark[3] : null }, spans(lines[at].slice(mark[0].length))));
  }
  box.append(list);
  return at;
}
const withBreaks = (lines) => lines.flatMap((line, index) => [index ? h("br") : null, ...spans(line)]);

// **bold**, *italic*, _italic_ and `code` on one line; anything else is text as it is.
function spans(line) {
  const found = [], pattern = /\*\*([^\s*](?:[^*]*[^\s*])?)\*\*|(?<![\w*])\*([^\s*](?:[^*]*[^\s*])?)\*(?![\w*])|(?<![\w_])_([^\s_](?:[^_]*[^\s_])?)_(?![\w_])|`([^`]+)`/g;
  let end = 0;
  for (const match of line.matchAll(pattern)) {
    if (match.index > end) found.push(line.slice(end, match.index));
    const [, bold, italic, under, code] = match;
    found.push(bold !== undefined ? h("strong", {}, bold) : code !== undefined ? h("code", {}, code) : h("em", {}, italic ?? under));
    end = match.index + match[0].length;
  }
  if (end < line.length) found.push(line.slice(end));
  return found;
}
