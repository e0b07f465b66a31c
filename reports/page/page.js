
"use strict";

// A cell's number, without the deviation behind it; its text where it has none; nothing where it is a gap.
function keyOf(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = text.replace("\u2212", "-").match(/^[-+]?\d+(\.\d+)?(?=\s|$)/);
  if (number) return parseFloat(number[0]);
  return text === "--" || text === "" ? null : text;
}

function compare(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  if (typeof one === "number" && typeof other === "number") return sign * (one - other);
  return sign * String(one).localeCompare(String(other), "en", { numeric: true });
}

function rowsOf(table) {
  return Array.from(table.tBodies).flatMap((body) => Array.from(body.rows));
}

function sortBy(table, header, column) {
  const keyed = (rows) => Array.from(rows, (row) => ({ row, key: keyOf(row, column) }));
  const before = header.getAttribute("aria-sort");
  const numbers = keyed(rowsOf(table)).some(({ key }) => typeof key === "number");
  const descending = before ? before === "ascending" : numbers;
  // Rows of other settings are a body of their own: they are sorted among themselves.
  for (const body of table.tBodies) {
    const rows = keyed(body.rows).sort((one, other) => compare(one.key, other.key, descending ? -1 : 1));
    body.append(...rows.map(({ row }) => row));
  }
  for (const each of table.tHead.querySelectorAll("[aria-sort]")) each.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
}

for (const table of document.querySelectorAll(".sortable table")) {
  const rows = rowsOf(table);
  const headers = Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells);
  if (rows.length < 2 || rows.some((row) => row.cells.length !== headers.length)) continue;
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sortBy(table, header, column));
  });
}

// Where clipboards are not given to pages, the text is at least selected.
async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  getSelection().selectAllChildren(source);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    button.textContent = document.execCommand("copy") ? "Copied" : "Selected: copy it with the keyboard";
  }
}

for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}

for (const button of document.querySelectorAll("button.all")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const folded = Array.from(button.parentElement.querySelectorAll("details"));
    const open = folded.some((each) => !each.open);
    for (const each of folded) each.open = open;
    button.textContent = open ? "Close all" : "Open all";
  });
}

// Only what does scroll is a stop of the Tab key.
function markScrolling() {
  for (const box of document.querySelectorAll(".scroll, .card")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
markScrolling();
addEventListener("resize", markScrolling);
