"use strict";
const { panels, pictures } = JSON.parse(document.getElementById("data").textContent);
for (const box of document.querySelectorAll("nav input"))
  box.addEventListener("input", () => document.body.classList.toggle(box.id, box.checked));
addEventListener("beforeprint", () => {  // answers that are ticked are printed open
  for (const answer of document.querySelectorAll(".with-notes main > details")) answer.open = true;
});

/** Put the description of each picture beside it; the style sheet shows one or the other. */
function addWords(root) {
  for (const picture of root.querySelectorAll("img")) {
    const words = document.createElement("span");
    words.className = "words";
    words.textContent = picture.alt;
    picture.after(words);
  }
}

/** Give each cell the head of its column, which a narrow screen shows in the cell. */
function addHeads(root) {
  for (const table of root.querySelectorAll("table")) {
    const heads = [...table.querySelectorAll("th")].map(head => head.textContent);
    for (const row of table.rows) [...row.cells].forEach((cell, k) => cell.dataset.head = heads[k]);
  }
}
addWords(document);
addHeads(document);

document.querySelectorAll(".panel").forEach((panel, index) => {
  const { states, quiz, workshop, amendment } = panels[index];
  const form = panel.querySelector("form"), fields = [...form.querySelectorAll("[name]")];
  const view = panel.querySelector(".view"), status = panel.querySelector("[role=status]");
  const predictions = {};  // of a quiz: index of the choice, by index of the question

  function show() {
    for (const field of fields) {
      if (field.type === "range") {
        const stop = JSON.parse(field.dataset.stops)[field.value];
        field.setAttribute("aria-valuetext", stop);
        field.nextElementSibling.value = stop;
      }
      for (const button of field.parentElement.querySelectorAll("button"))
        button.setAttribute("aria-pressed", button.value === field.value);
    }
    view.innerHTML = states ? states[fields.map(field => field.value).join(",")] : (workshop ?? amendment).html;
    const summary = workshop ? label() : amendment ? compare() : "";
    for (const picture of view.querySelectorAll("img")) picture.src = pictures[picture.dataset.picture];
    addWords(view);
    addHeads(view);
    const sentences = [...view.querySelectorAll(":scope > p")].map(p => p.textContent);
    status.textContent = [summary, ...sentences, score()].join(" ");
  }

  // Write a policy: label the rows of the table anew, and return a summary.
  function label() {
    const policy = readPolicy(form.elements.text.value, workshop.words);
    const rows = [...view.querySelectorAll("tr")].slice(1);
    rows.forEach((row, index) => {
      const ruling = policy.problems.length ? { label: "", rule: "" }
        : labelOf(policy, workshop.scenes[index], workshop.words);
      const badge = document.createElement("b");
      badge.className = badge.textContent = ruling.label;
      row.cells[1].replaceChildren(badge);
      row.cells[2].textContent = ruling.rule && `“${ruling.rule}”`;
    });
    const unsafe = view.querySelectorAll("b.unsafe").length;
    const summary = policy.problems.length ? `No exact label. ${policy.problems.join(" ")}`
      : `Under your policy, ${unsafe} of ${rows.length} pictures are unsafe.`;
    panel.querySelector(".summary").textContent = summary;
    return summary;
  }

  // Edit a policy: label the rows of the table under both versions, and return a summary.
  function compare() {
    const versions = ["before", "after"].map(name => readPolicy(form.elements[name].value, amendment.words));
    const problems = [...new Set(versions.flatMap(policy => policy.problems))];
    const rows = [...view.querySelectorAll("tr")].slice(1);
    let flips = 0;
    rows.forEach((row, index) => {
      const labels = problems.length ? ["", ""]
        : versions.map(policy => labelOf(policy, amendment.scenes[index], amendment.words).label);
      labels.forEach((label, version) => {
        const badge = document.createElement("b");
        badge.className = badge.textContent = label;
        row.cells[version + 1].replaceChildren(badge);
      });
      flips += labels[0] !== labels[1];
      row.cells[3].textContent = problems.length ? "" : labels[0] === labels[1] ? "stay" : "flip";
    });
    const summary = problems.length ? `No exact label. ${problems.join(" ")}`
      : `${flips} of ${rows.length} pictures must flip, ${flips ? "the others must not" : "and none may"}.`;
    panel.querySelector(".summary").textContent = summary;
    return summary;
  }

  // Predict, then reveal: keep the first prediction of each question, and show it on return.
  function remember(changed) {
    const { number, prediction } = form.elements;
    if (changed === prediction && prediction.value !== "0")
      predictions[number.value] ??= prediction.value;
    prediction.value = predictions[number.value] ?? "0";
    panel.querySelector(".summary").textContent = score();
  }

  function score() {
    if (!quiz) return "";
    const predicted = Object.entries(predictions).map(([index, choice]) =>
      ({ truth: quiz[index][0], model: quiz[index][1], class: [, "safe", "unsafe"][choice] }));
    if (!predicted.length) return "No prediction yet.";
    const right = who => `${predicted.filter(q => q[who] === q.truth).length} of ${predicted.length}`;
    return `Right so far: the class ${right("class")}, the model ${right("model")}, the rule ${right("truth")}.`;
  }

  function update(changed) {
    if (quiz) remember(changed);
    show();
  }

  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("input", event => update(event.target));
  // Reached backwards, the form sticks to the end of its panel: show the panel from its top.
  form.addEventListener("focusin", event => {
    const apart = form.getBoundingClientRect().top - panel.getBoundingClientRect().top;
    if (event.target.matches(":focus-visible") && apart > 1) panel.scrollIntoView();
  });
  form.addEventListener("click", event => {
    if (event.target.type !== "button") return;
    const field = event.target.parentElement.querySelector("input");
    field.value = event.target.value;
    update(field);
  });
  update();
});
