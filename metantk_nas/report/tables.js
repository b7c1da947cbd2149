"use strict";
/* Sorts and filters every table[data-name]. What is shown stands behind the # of the address, so that a link shows it
   again: #ranking.sort=-params&ranking.find=skip -pool&ranking.params=100K..2M&ranking.all=1&ranking.columns=all
   A column is th[data-column]; th.number sorts by td[data-value]. A table with data-head has a filter, and shows at
   most so many of the rows that match. */
(() => {
  const UNITS = { "": 1, K: 1e3, M: 1e6, G: 1e9 };
  const NUMBER = /^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*([KMG]?)\s*$/i;

  const readNumber = (text) => {
    const found = NUMBER.exec(text);
    return found ? Number(found[1]) * UNITS[found[2].toUpperCase()] : NaN;
  };

  const writeNumber = (value) => {
    const unit = ["G", "M", "K"].find((each) => Math.abs(value) >= UNITS[each]) ?? "";
    return Number((value / UNITS[unit]).toPrecision(4)) + unit;
  };

  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const readRows = (table, columns) =>
    [...table.tBodies[0].rows].map((row, place) => {
      const values = {};
      for (const { name, index, numeric } of columns) {
        const text = row.cells[index].dataset.value ?? row.cells[index].textContent.trim();
        values[name] = numeric ? (text === "" ? NaN : Number(text)) : text;
      }
      return { row, place, values, text: row.textContent.toLowerCase() };
    });

  const compare = (column, sign) => (a, b) => {
    const [left, right] = [a.values[column.name], b.values[column.name]];
    if (!column.numeric) return sign * left.localeCompare(right) || a.place - b.place;
    const missing = Number.isNaN(left) - Number.isNaN(right);
    return missing || (left < right ? -sign : left > right ? sign : a.place - b.place);
  };

  const setUp = (table) => {
    const name = table.dataset.name;
    const head = Number(table.dataset.head) || Infinity;
    const columns = [...table.tHead.rows[0].cells]
      .filter((cell) => cell.dataset.column)
      .map((cell) => ({ cell, name: cell.dataset.column, index: cell.cellIndex, numeric: cell.matches(".number") }));
    const rows = readRows(table, columns);
    let sort = "";

    const find = make("input", { type: "search", placeholder: "sep_conv -pool", size: 22 });
    find.title = "Rows with all of these words; -word leaves out rows that have it";
    const all = make("input", { type: "checkbox" });
    const wide = make("input", { type: "checkbox" });
    const shown = make("output", {});
    const clear = make("button", { type: "button", textContent: "clear" });
    const limits = new Map();
    const ranges = make("div", { className: "ranges" });
    for (const column of columns.filter((each) => each.numeric)) {
      const finite = rows.map((each) => each.values[column.name]).filter(Number.isFinite);
      const ends = [Math.min(...finite), Math.max(...finite)].map((end, at) => {
        const input = make("input", { type: "text", placeholder: finite.length ? writeNumber(end) : "–" });
        input.setAttribute("aria-label", `${at ? "most" : "least"} ${column.cell.textContent.trim()}`);
        return input;
      });
      limits.set(column.name, ends);
      ranges.append(make("div", {}, make("span", { textContent: column.cell.textContent.trim() }), ends[0], " … ", ends[1]));
    }
    const numbers = make("details", {}, make("summary", { textContent: "by numbers" }), ranges);
    const form = make("form", { className: "filter" });
    if (rows.length > 1) form.append(make("label", {}, "Filter ", find));
    if (rows.length > head) form.append(make("label", {}, all, ` list all ${rows.length.toLocaleString("en")}`));
    if (table.querySelector(".extra")) form.append(make("label", {}, wide, " all columns"));
    if (rows.length > 1) form.append(shown, clear, numbers);
    if (table.dataset.head) table.closest(".panel").before(form);

    const matches = ({ values, text }) => {
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      const isFound = (word) => (word.length > 1 && word[0] === "-" ? !text.includes(word.slice(1)) : text.includes(word));
      if (!words.every(isFound)) return false;
      return [...limits].every(([column, [least, most]]) => {
        const [low, high] = [readNumber(least.value), readNumber(most.value)];
        return (Number.isNaN(low) || values[column] >= low) && (Number.isNaN(high) || values[column] <= high);
      });
    };

    const draw = () => {
      const column = columns.find((each) => each.name === sort.replace(/^-/, ""));
      const sign = sort.startsWith("-") ? -1 : 1;
      const found = rows.filter(matches);
      found.sort(column ? compare(column, sign) : (a, b) => a.place - b.place);
      const visible = new Set(all.checked ? found : found.slice(0, head));
      for (const each of rows) each.row.hidden = !visible.has(each);
      table.tBodies[0].append(...found.map((each) => each.row));
      table.classList.toggle("all-columns", wide.checked);
      for (const each of columns) {
        each.cell.ariaSort = each === column ? (sign < 0 ? "descending" : "ascending") : "none";
      }
      for (const input of [...limits.values()].flat()) {
        input.ariaInvalid = String(input.value.trim() !== "" && Number.isNaN(readNumber(input.value)));
      }
      const matching = found.length === rows.length ? "" : `${found.length.toLocaleString("en")} match, `;
      shown.textContent = `${matching}${visible.size.toLocaleString("en")} of ${rows.length.toLocaleString("en")} shown`;
      clear.hidden = state().length === 0;
    };

    const state = () => {
      const pairs = [["sort", sort], ["find", find.value.trim()], ["all", all.checked ? "1" : ""]];
      pairs.push(["columns", wide.checked ? "all" : ""]);
      for (const [column, [least, most]] of limits) {
        const range = `${least.value.trim()}..${most.value.trim()}`;
        pairs.push([column, range === ".." ? "" : range]);
      }
      return pairs.filter(([, value]) => value).map(([key, value]) => [`${name}.${key}`, value]);
    };

    const read = (parameters) => {
      const get = (key) => parameters.get(`${name}.${key}`) ?? "";
      sort = get("sort");
      find.value = get("find");
      all.checked = get("all") === "1";
      wide.checked = get("columns") === "all";
      for (const [column, [least, most]] of limits) {
        const [low, high = ""] = get(column).split("..");
        [least.value, most.value] = [low, high];
        if (low || high) numbers.open = true;
      }
      draw();
      return state().length > 0;
    };

    for (const column of columns) {
      const button = make("button", { type: "button" }, ...column.cell.childNodes);
      button.addEventListener("click", () => {
        sort = sort === column.name ? `-${column.name}` : column.name;
        update(draw);
      });
      column.cell.replaceChildren(button);
    }
    form.addEventListener("input", () => update(draw));
    form.addEventListener("submit", (event) => event.preventDefault());
    clear.addEventListener("click", () => update(() => read(new URLSearchParams())));
    return { read, state, table };
  };

  const update = (change) => {
    change();
    const text = new URLSearchParams(tables.flatMap((each) => each.state())).toString();
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  };

  const readAddress = () => {
    const text = location.hash.slice(1);
    if (text && !text.includes("=")) return;
    const set = tables.filter((each) => each.read(new URLSearchParams(text)));
    if (set.length) set[0].table.closest("section").scrollIntoView();
  };

  const tables = [...document.querySelectorAll("table[data-name]")].map(setUp);
  for (const each of tables) each.read(new URLSearchParams());
  window.addEventListener("hashchange", readAddress);
  readAddress();
})();
