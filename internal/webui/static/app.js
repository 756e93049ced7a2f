// What pages can do without, made nicer: copying, stars without a new page, and
// the key that leads to the search.
"use strict";

function copies() {
  if (!navigator.clipboard) return; // only over TLS and on this machine
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.parentElement.classList.add("live");
    button.addEventListener("click", async () => {
      const say = button.querySelector("span");
      try {
        await navigator.clipboard.writeText(button.dataset.copy);
        say.textContent = "Copied";
      } catch {
        say.textContent = "Not copied";
      }
      button.classList.add("said");
      setTimeout(() => { say.textContent = ""; button.classList.remove("said"); }, 1600);
    });
  }
}

function stars() {
  for (const form of document.querySelectorAll("form[data-star]")) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button");
      const give = button.value === "yes";
      const path = form.dataset.star.split("/").map(encodeURIComponent).join("/");
      const answer = await fetch("/api/v1/stars/" + path, { method: give ? "PUT" : "DELETE" }).catch(() => null);
      if (!answer || !answer.ok) { // the page says why
        const value = document.createElement("input");
        value.type = "hidden";
        value.name = "give";
        value.value = button.value;
        form.append(value);
        form.submit();
        return;
      }
      const now = await answer.json();
      button.value = now.starred ? "no" : "yes";
      button.classList.toggle("mine", now.starred);
      button.setAttribute("aria-pressed", String(now.starred));
      button.querySelector("[data-label]").textContent = now.starred ? "Starred" : "Star";
      for (const count of document.querySelectorAll("[data-count]")) count.textContent = now.stars;
    });
  }
}

function keys() {
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      document.getElementById("q").select();
    }
  });
}

copies();
stars();
keys();
