const form = document.querySelector("form");
const rows = [...document.querySelectorAll(".verdicts tbody tr")];
const texts = rows.map((row) => row.textContent.toLowerCase());

function filter() {
  const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const kind = form.elements.kind.value;
  let shown = 0;
  rows.forEach((row, k) => {
    const fits = kind === "all" || row.dataset.verdict === kind
      || (kind === "changed" && "changed" in row.dataset)
      || (kind === "wrong" && "wrong" in row.dataset)
      || (kind === "person" && "person" in row.dataset);
    row.hidden = !(fits && words.every((word) => texts[k].includes(word)));
    shown += !row.hidden;
  });
  form.elements.shown.value = `${shown} of ${rows.length}`;
}

form.hidden = false;
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
filter();
