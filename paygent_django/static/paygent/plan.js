// Rows of the plan form: added from a template, removed by their own checkbox.
"use strict";

for (const rows of document.querySelectorAll(".pg-rows")) {
  const prefix = rows.dataset.prefix;
  const total = rows.querySelector(`input[name="${prefix}-TOTAL_FORMS"]`);
  const body = rows.querySelector("tbody");
  const template = rows.querySelector("template");

  rows.querySelector(".pg-add-row").addEventListener("click", () => {
    const index = Number(total.value);
    const row = template.content.firstElementChild.cloneNode(true);
    for (const part of row.querySelectorAll("[name], [id], [for]")) {
      for (const name of ["name", "id", "for"]) {
        if (part.hasAttribute(name)) {
          part.setAttribute(name, part.getAttribute(name).replace("__prefix__", index));
        }
      }
    }
    total.value = index + 1;
    body.append(row);
    row.querySelector("input").focus();
  });

  rows.addEventListener("change", (event) => {
    if (event.target.name?.endsWith("-DELETE")) {
      event.target.closest("tr").classList.toggle("pg-removed", event.target.checked);
    }
  });
}
