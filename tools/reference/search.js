"use strict";
// The search box: every word of the query must stand in the name or its summary; names that begin with the query come first.
const box = document.getElementById("search"), list = document.getElementById("found"), menu = document.getElementById("menu");
const rows = INDEX.map(([name, kind, place, about]) => ({ name, kind, place, about, low: name.toLowerCase(), text: (name + " " + kind + " " + about).toLowerCase() }));
let chosen = -1;

function rank(row, query) {
  const last = row.low.slice(row.low.lastIndexOf(".") + 1);
  if (row.low === query || last === query) return 0;
  if (last.startsWith(query) || row.low.startsWith(query)) return 1;
  if (row.low.includes(query)) return 2;
  return 3;
}

function search() {
  const query = box.value.trim().toLowerCase(), words = query.split(/\s+/).filter(Boolean);
  const hits = words.length ? rows.filter(row => words.every(word => row.text.includes(word))) : [];
  const ranked = hits.map((row, at) => [rank(row, query), at, row]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  list.replaceChildren(...ranked.slice(0, 40).map(([, , row]) => {
    const item = document.createElement("li"), link = document.createElement("a");
    const name = document.createElement("b"), kind = document.createElement("i"), about = document.createElement("small");
    [name.textContent, kind.textContent, about.textContent, link.href] = [row.name, row.kind, row.about, row.place];
    link.append(name, kind, about);
    item.append(link);
    return item;
  }));
  if (words.length && !hits.length) list.textContent = "Nothing found.";
  list.hidden = !words.length;
  choose(-1);
}

function choose(at) {
  chosen = Math.max(-1, Math.min(at, list.children.length - 1));
  [...list.children].forEach((item, i) => item.setAttribute("aria-selected", i === chosen));
  if (chosen >= 0) list.children[chosen].scrollIntoView({ block: "nearest" });
}

box.addEventListener("input", search);
box.addEventListener("keydown", event => {
  if (event.key === "ArrowDown") choose(chosen + 1);
  else if (event.key === "ArrowUp") choose(chosen - 1);
  else if (event.key === "Enter") list.children[Math.max(chosen, 0)]?.querySelector("a")?.click();
  else if (event.key === "Escape") { box.value = ""; search(); box.blur(); }
  else return;
  event.preventDefault();
});
list.addEventListener("click", () => { list.hidden = true; });
document.addEventListener("click", event => { if (!event.target.closest(".search")) list.hidden = true; });
document.addEventListener("keydown", event => {
  if (event.key === "/" && document.activeElement !== box) { event.preventDefault(); box.focus(); }
});
menu.addEventListener("click", () => {
  const open = document.getElementById("pages").classList.toggle("open");
  menu.setAttribute("aria-expanded", open);
});
