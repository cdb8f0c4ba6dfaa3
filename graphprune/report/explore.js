"use strict";
// Lets a drawing of groups be explored: point at a row to see what belongs to it, click or press enter to keep it.
const explore = (picture, side, boxes, heading) => {
  const rows = new Map([...picture.querySelectorAll(".row")].map(row => [row.dataset.box, row]));
  const arcs = [...picture.querySelectorAll(".arc")];
  let kept = null;
  const put = (kind, text, parent = side) => {
    const element = document.createElement(kind);
    element.textContent = text;
    parent.append(element);
    return element;
  };
  const list = (title, lines) => {
    if (!lines.length) return;
    put(heading, title);
    const all = put("ul", "");
    for (const line of lines) put("li", line, all);
  };
  const show = id => {
    for (const element of [...rows.values(), ...arcs]) element.classList.remove("near", "here");
    picture.classList.toggle("dim", id !== null);
    if (id === null) return;
    rows.get(id).classList.add("near", "here");
    const read = [], made = [];
    for (const arc of arcs) {
      const {from, to} = arc.dataset;
      if (from !== id && to !== id) continue;
      arc.classList.add("near");
      const other = from === id ? to : from;
      rows.get(other).classList.add("near");
      (from === id ? made : read).push(boxes[other].name);
    }
    const box = boxes[id];
    side.replaceChildren();
    put(heading, box.name);
    put("p", box.facts);
    list(box.list, box.members);
    list("made from", read);
    list("read to make", made);
  };
  const release = () => { kept = null; show(null); };
  const keep = id => { kept = kept === id ? null : id; show(kept === null ? id : kept); };
  for (const [id, row] of rows) {
    row.setAttribute("tabindex", "0");
    row.setAttribute("role", "button");
    row.setAttribute("aria-label", boxes[id].name);
    row.addEventListener("mouseenter", () => kept === null && show(id));
    row.addEventListener("mouseleave", () => kept === null && show(null));
    row.addEventListener("click", event => { keep(id); event.stopPropagation(); });
    row.addEventListener("keydown", event => {
      if (event.key === "Escape") release();
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      keep(id);
    });
  }
  document.addEventListener("click", event => { if (!side.contains(event.target)) release(); });
};
