// What a page does by itself: colors, contents, tables, trees and the names of points. Without it all is there to read.
"use strict";
const make = (tag, set = {}, ...inside) => {
  const made = Object.assign(document.createElement(tag), set);
  made.append(...inside);
  return made;
};
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Colors: those of the system until the reader chooses others, which are kept.
{
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const button = make("button", { type: "button", className: "theme" });
  const name = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  try { if (localStorage.theme) root.dataset.theme = localStorage.theme; } catch { /* not allowed here */ }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.theme = root.dataset.theme; } catch { /* not allowed here */ }
    name();
  });
  system.addEventListener("change", name);
  name();
  document.querySelector("main").prepend(button);
}

// Contents: folded where they would take up a narrow screen; the section that is read is marked.
{
  const folded = document.querySelector("nav details");
  if (folded) {
    folded.open = matchMedia("(min-width: 1240px)").matches;
    const links = new Map(all("a", folded).map((link) => [link.hash.slice(1), link]));
    const seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        links.forEach((link) => link.removeAttribute("aria-current"));
        links.get(target.id)?.setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-10% 0px -80% 0px" });
    all("section").forEach((section) => seen.observe(section));
  }
}

// A field to search in, and how much of it was found.
const search = (caption, find) => {
  const field = make("input", { type: "search", placeholder: "Search", ariaLabel: `Search in ${caption}` });
  const found = make("output", { className: "soft" });
  field.addEventListener("input", () => {
    found.textContent = find(field.value.toLowerCase().split(/\s+/).filter(Boolean));
  });
  return [field, found];
};
const has = (text, words) => words.every((word) => text.includes(word));

// Tables: a click on a column sorts by it, upwards, downwards, and as they were.
const SEARCHED = 15; // rows from which a table is searched
const LONG = 40; // rows from which it scrolls by itself
const number = (text) => {
  const found = text.replace(/[,\s]/g, "").replace(/−/g, "-").match(/^([<≤])?[>≥±]?([-+]?\d*\.?\d+(?:e[-+]?\d+)?)/i);
  return found ? Number(found[2]) - (found[1] ? 1e-9 : 0) : NaN;
};
const shown = (cell) => (cell.querySelector("br") ? cell.firstChild.textContent : cell.textContent).trim();
for (const box of all(".table")) {
  const [body, heads, caption] = [box.querySelector("tbody"), all("thead th", box), box.querySelector("caption")];
  const rows = [...body.rows];
  if (rows.length < 2) continue;
  const sort = (column, direction) => {
    heads.forEach((head, i) => {
      if (i === column && direction) head.ariaSort = direction > 0 ? "ascending" : "descending";
      else head.removeAttribute("aria-sort");
    });
    const isText = heads[column].className !== "";
    const keyed = rows.map((row) => {
      const text = shown(row.cells[column]);
      return [row, isText ? text : number(text)];
    });
    if (direction) {
      keyed.sort(([, a], [, b]) => {
        if (isText) return direction * a.localeCompare(b, "en", { numeric: true });
        return Number.isNaN(a) - Number.isNaN(b) || direction * (a - b) || 0; // what is no number comes last
      });
    }
    body.append(...keyed.map(([row]) => row));
  };
  heads.forEach((head, i) => {
    const button = make("button", { type: "button" }, ...head.childNodes);
    const steps = head.className ? [1, -1, 0] : [-1, 1, 0]; // of numbers the largest first
    button.addEventListener("click", () => {
      const now = { ascending: 1, descending: -1 }[head.ariaSort] ?? 0;
      sort(i, steps[(steps.indexOf(now) + 1) % 3]);
    });
    head.append(button);
  });
  if (rows.length < SEARCHED) continue;
  box.classList.toggle("long", rows.length > LONG);
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const tools = make("div", { className: "tools" }, ...search(caption.textContent, (words) => {
    let count = 0;
    rows.forEach((row, i) => { count += !(row.hidden = !has(texts[i], words)); });
    return words.length ? `${count} of ${rows.length} rows` : "";
  }));
  const select = make("select", { ariaLabel: `Sort ${caption.textContent}` }, make("option", { value: -1 }, "Sort by"));
  heads.forEach((head, i) => select.append(make("option", { value: i }, head.textContent)));
  select.addEventListener("change", () => {
    const column = Number(select.value);
    if (column < 0) sort(0, 0);
    else sort(column, heads[column].className ? 1 : -1);
  });
  tools.append(select);
  box.prepend(tools);
}

// What scrolls can be reached by keyboard.
const reach = () => all(".scroll").forEach((box) => {
  if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
  else box.removeAttribute("tabindex");
});
addEventListener("resize", reach);
document.addEventListener("toggle", reach, true);
reach();

// Trees: what is found is unfolded down to it.
for (const tree of all(".tree")) {
  const leaves = all("li", tree).map((item) => {
    const label = item.querySelector("summary, span");
    return { item, text: label.textContent.toLowerCase(), folded: item.querySelector("details") };
  });
  tree.firstElementChild.after(make("div", { className: "tools" }, ...search(tree.dataset.caption, (words) => {
    let count = 0;
    for (const leaf of leaves) {
      leaf.item.hidden = words.length > 0;
      if (leaf.folded) leaf.folded.open = false;
    }
    if (!words.length) return "";
    for (const { item, text } of leaves) {
      if (!has(text, words)) continue;
      count += 1;
      all("li", item).forEach((below) => { below.hidden = false; });
      for (let above = item; above !== tree; above = above.parentElement) {
        if (above.tagName === "LI") above.hidden = false;
        if (above.tagName === "DETAILS") above.open = true;
      }
    }
    return `${count} found`;
  })));
}

// Plots: the point nearest to the pointer, or chosen by the arrow keys, says its name.
{
  const reachable = 14; // pixels
  const tip = make("div", { className: "tip", hidden: true, role: "status" });
  document.body.append(tip);
  const ring = document.querySelector("figure .points circle")?.cloneNode();
  ring?.setAttribute("class", "ring");
  const hide = () => { tip.hidden = true; ring?.remove(); };
  for (const group of all("figure .points")) {
    const plot = group.ownerSVGElement;
    const points = all("circle", group).map((circle) => {
      const name = circle.textContent;
      circle.replaceChildren(); // else the browser would show it a second time
      return { x: circle.cx.baseVal.value, y: circle.cy.baseVal.value, name };
    });
    let at = -1;
    const show = (index) => {
      at = index;
      const { x, y, name } = points[index];
      ring.setAttribute("cx", x);
      ring.setAttribute("cy", y);
      plot.append(ring);
      tip.textContent = name;
      tip.hidden = false;
      const place = new DOMPoint(x, y).matrixTransform(plot.getScreenCTM());
      const left = Math.min(place.x + 10, document.documentElement.clientWidth - tip.offsetWidth - 6);
      const top = place.y - tip.offsetHeight - 10;
      tip.style.left = `${Math.max(left, 6)}px`;
      tip.style.top = `${top < 4 ? place.y + 14 : top}px`;
    };
    const point = (event) => {
      const matrix = plot.getScreenCTM();
      const pointer = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
      let [best, least] = [-1, (reachable / matrix.a) ** 2];
      points.forEach(({ x, y }, i) => {
        const distance = (x - pointer.x) ** 2 + (y - pointer.y) ** 2;
        if (distance <= least) [best, least] = [i, distance];
      });
      if (best < 0) hide();
      else show(best);
    };
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.tabIndex = 0;
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      show((at + step + points.length) % points.length);
    });
  }
}

// On paper everything stands open.
{
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    opened.forEach((folded) => { folded.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((folded) => { folded.open = false; }));
}
