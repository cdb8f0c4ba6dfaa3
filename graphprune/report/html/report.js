const read = id => JSON.parse(document.getElementById(id).textContent);
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const ink = dark ? "#e6ebf2" : "#1d2733", line = dark ? "#34404e" : "#d8dee6";
const config = {
  axis: {labelColor: ink, titleColor: ink, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 11},
  legend: {labelColor: ink, titleColor: ink}, title: {color: ink, fontSize: 13, anchor: "start"},
};
const specs = read("specs");
// Expressions of charts are interpreted, not compiled: the page allows no code but its own.
const drawn = [...document.querySelectorAll(".chart")].map(place =>
  window.vegaEmbed(place, specs[place.dataset.chart], {ast: true, renderer: "svg", actions: false, config}));
Promise.all(drawn).then(() => { document.documentElement.dataset.ready = "true"; });

const groups = read("group-data").groups, float = document.getElementById("strip-text");
for (const strip of document.querySelectorAll(".strip")) {
  const {size, channels} = groups[strip.dataset.group];
  strip.addEventListener("mousemove", event => {
    const box = strip.getBoundingClientRect();
    const at = Math.min(size - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * size)));
    const stays = channels.some(([first, count]) => first <= at && at < first + count);
    float.textContent = `channel ${at} ${stays ? "stays" : "went"}`;
    float.hidden = false;
    float.style.left = `${event.clientX + 12}px`;
    float.style.top = `${event.clientY + 12}px`;
  });
  strip.addEventListener("mouseleave", () => { float.hidden = true; });
}

const search = document.getElementById("search");
search?.addEventListener("input", () => {
  const wanted = search.value.trim().toLowerCase();
  let count = 0;
  for (const group of document.querySelectorAll(".group")) {
    group.hidden = !group.dataset.text.toLowerCase().includes(wanted);
    count += !group.hidden;
  }
  for (const row of document.querySelectorAll(".searched tbody tr")) {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
  }
  document.getElementById("matches").textContent = wanted ? `${count} of ${groups.length} groups` : "";
});

const picture = document.querySelector(".picture svg");
if (picture) {
  const boxes = read("boxes"), side = document.getElementById("side");
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
    put("h3", title);
    const all = put("ul", "");
    for (const text of lines) put("li", text, all);
  };
  const show = id => {
    for (const element of [...rows.values(), ...arcs]) element.classList.remove("near", "here");
    picture.classList.toggle("dim", id !== null);
    if (id === null) return;
    rows.get(id).classList.add("near", "here");
    const from = [], into = [];
    for (const arc of arcs) {
      if (arc.dataset.from !== id && arc.dataset.to !== id) continue;
      arc.classList.add("near");
      const other = arc.dataset.from === id ? arc.dataset.to : arc.dataset.from;
      rows.get(other).classList.add("near");
      (arc.dataset.from === id ? into : from).push(boxes[other].name);
    }
    side.replaceChildren();
    put("h3", boxes[id].name);
    put("p", boxes[id].facts);
    list(boxes[id].list, boxes[id].members);
    list("made from", from);
    list("read to make", into);
  };
  const keep = id => { kept = kept === id ? null : id; show(kept === null ? id : kept); };
  for (const [id, row] of rows) {
    row.setAttribute("tabindex", "0");
    row.setAttribute("role", "button");
    row.setAttribute("aria-label", boxes[id].name);
    row.addEventListener("mouseenter", () => kept === null && show(id));
    row.addEventListener("mouseleave", () => kept === null && show(null));
    row.addEventListener("click", () => keep(id));
    row.addEventListener("keydown", event => {
      if (event.key === "Escape") { kept = null; show(null); }
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      keep(id);
    });
  }
  const wide = Number(picture.getAttribute("width")), high = Number(picture.getAttribute("height"));
  let scale = 1;
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => {
      const factor = Number(button.dataset.zoom);
      scale = factor ? Math.min(4, Math.max(0.1, scale * factor)) : 1;
      picture.setAttribute("width", wide * scale);
      picture.setAttribute("height", high * scale);
    });
  }
}
