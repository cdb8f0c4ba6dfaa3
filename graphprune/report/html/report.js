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
  for (const group of document.querySelectorAll("details.group")) {
    group.hidden = !group.textContent.toLowerCase().includes(wanted);
    count += !group.hidden;
  }
  for (const row of document.querySelectorAll(".searched tbody tr")) {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
  }
  document.getElementById("matches").textContent = wanted ? `${count} of ${groups.length} groups` : "";
});

const picture = document.querySelector(".picture svg");
if (picture) {
  explore(picture, document.getElementById("side"), read("boxes"), "h3");
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
