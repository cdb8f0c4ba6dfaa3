const read = id => JSON.parse(document.getElementById(id).textContent);
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const ink = dark ? "#e6ebf2" : "#1d2733", line = dark ? "#34404e" : "#d8dee6";
const config = {
  axis: {labelColor: ink, titleColor: ink, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 11},
  legend: {labelColor: ink, titleColor: ink}, title: {color: ink, fontSize: 13, anchor: "start"},
  rule: {color: ink},
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

// Members and numbers of channels are many: they are written when a group is opened.
const stays = ({channels, size}) => {
  const runs = channels.map(([first, count]) => count > 1 ? `${first}–${first + count - 1}` : `${first}`);
  const said = runs.length ? `Channels that stay: ${runs.join(", ")}.` : "No channel stays.";
  return channels.length === 1 && channels[0][1] === size ? "All channels stay." : said;
};
const fill = place => {
  const group = groups[place.dataset.group];
  const add = (kind, text, parent) => {
    const element = document.createElement(kind);
    element.textContent = text;
    parent.append(element);
    return element;
  };
  add("p", stays(group), place).className = "numbers";
  const list = add("ul", "", place);
  for (const member of group.members) add("li", member, list);
  if (group.more) add("li", `and ${group.more} more, which the search does not see`, list);
};
for (const place of document.querySelectorAll("details.group")) {
  place.addEventListener("toggle", () => { if (!place.querySelector(".numbers")) fill(place); });
}

const picture = document.querySelector(".picture svg");
if (picture) {
  explore(picture, document.getElementById("side"), read("boxes"), "h3");
  const wide = Number(picture.getAttribute("width")), high = Number(picture.getAttribute("height"));
  let scale = 1;
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => {
      const factor = Number(button.dataset.zoom);
      scale = factor ? Math.min(4, Math.max(0.1, scale * factor)) : 1;
      picture.classList.toggle("zoomed", scale !== 1);
      picture.setAttribute("width", wide * scale);
      picture.setAttribute("height", high * scale);
    });
  }
}

const search = document.getElementById("search");
const texts = groups.map(group => [group.id, group.name, ...group.members].join("\n").toLowerCase());
const searchGraph = wanted => {
  if (!picture) return;
  const boxes = read("boxes"), found = new Set();
  const rows = [...picture.querySelectorAll(".row")], arcs = [...picture.querySelectorAll(".arc")];
  for (const row of rows) {
    const box = boxes[row.dataset.box];
    if ([box.name, ...box.members].join("\n").toLowerCase().includes(wanted)) found.add(row.dataset.box);
  }
  for (const arc of arcs) {
    const hit = arc.textContent.toLowerCase().includes(wanted);
    arc.classList.toggle("unfound", !hit);
    if (hit) found.add(arc.dataset.from).add(arc.dataset.to);
  }
  for (const row of rows) row.classList.toggle("unfound", !found.has(row.dataset.box));
  picture.classList.toggle("sought", wanted !== "");
  const first = rows.find(row => found.has(row.dataset.box));
  if (wanted && first) picture.parentElement.scrollTop += first.getBoundingClientRect().top
    - picture.parentElement.getBoundingClientRect().top - 60;
};
search?.addEventListener("input", () => {
  const wanted = search.value.trim().toLowerCase();
  let count = 0, layers = 0;
  for (const place of document.querySelectorAll("details.group")) {
    place.hidden = !texts[place.dataset.group].includes(wanted);
    count += !place.hidden;
  }
  const rows = document.querySelectorAll(".searched tbody tr");
  for (const row of rows) {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
    layers += !row.hidden;
  }
  searchGraph(wanted);
  const said = `${count} of ${groups.length} groups, ${layers} of ${rows.length} layers`;
  document.getElementById("matches").textContent = wanted ? said : "";
});
